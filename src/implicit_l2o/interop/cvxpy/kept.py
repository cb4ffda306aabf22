"""Splittings of a layer, whose factors are kept from call to call."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from implicit_l2o.interop.cvxpy.program import ConePrograms


class AbstractSplitting(ABC):
    """A map whose fixed points give the solutions of a batch of cone programs."""

    @classmethod
    @abstractmethod
    def of(cls, programs: ConePrograms, *, step: float) -> Self:
        """Factor, with weights `step` times those of equilibration."""

    @abstractmethod
    def with_data(self, programs: ConePrograms) -> Self:
        """The same matrices with other costs and right-hand sides."""


Kind = TypeVar("Kind", bound=AbstractSplitting)


@dataclass(eq=False)
class KeptSplittings:
    """One for each kind and weight, while P and A stay."""

    known: dict[tuple[type, float], tuple[ConePrograms, Any]] = field(default_factory=dict)

    def of(self, kind: type[Kind], programs: ConePrograms, step: float) -> Kind:
        """The splitting of a batch."""
        found = self.known.get((kind, step))
        if found is not None and found[0].same_matrices(programs):
            return found[1].with_data(programs)
        splitting = kind.of(programs, step=step)
        self.known = {key: kept for key, kept in self.known.items() if kept[0].same_matrices(programs)}
        if programs.shared:
            self.known[kind, step] = (programs, splitting)
        return splitting
