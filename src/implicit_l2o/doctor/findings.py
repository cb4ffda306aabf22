"""What the doctor says about what it found."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How much a finding matters."""

    PROBLEM = "problem"  # something does not work, is not what it seems, or is slow by a factor: exit status 1
    WARNING = "warning"  # a trap that this installation may fall into
    NOTE = "note"  # good to know


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: how much it matters.
        text: what is the case, and what follows from it.
        remedy: what to do, a command where there is one; empty where nothing needs to be done.
    """

    level: Level
    text: str
    remedy: str = ""
