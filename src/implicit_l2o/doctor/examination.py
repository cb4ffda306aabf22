"""The whole examination: what was looked at, and what was found."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import implicit_l2o as il2o
from implicit_l2o.doctor import devices, self_test, versions
from implicit_l2o.doctor import threads as computing
from implicit_l2o.doctor.findings import Finding, Level
from implicit_l2o.doctor.threads import Threads
from implicit_l2o.doctor.versions import Requirement

_ORDER = list(Level)


@dataclass(frozen=True)
class Examination:
    """What the doctor saw.

    Attributes:
        versions: of Python, this package and what it always needs; None for what is missing.
        folder: where the package was imported from.
        threads: and the cores that they have.
        devices: besides the processor.
        extras: every optional part with its requirements.
        solves: the self-test, one entry a dtype.
        findings: most serious first.
    """

    versions: dict[str, str | None]
    folder: Path
    threads: Threads
    devices: list[devices.Device]
    extras: dict[str, list[Requirement]]
    solves: list[self_test.Solve]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Whether no problem was found; warnings and notes are no problems."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)

    def to_json(self) -> str:
        """Everything, as JSON; a number that JSON does not know (a residual of infinity) becomes null."""
        return json.dumps(_plain(self._content()), indent=2, allow_nan=False)

    def _content(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "versions": self.versions,
            "folder": str(self.folder),
            "threads": {**asdict(self.threads), "available": self.threads.available},
            "devices": [asdict(device) for device in self.devices],
            "extras": {
                extra: {
                    "complete": all(part.met for part in parts),
                    "install": versions.install(extra),
                    "requirements": [{**asdict(part), "met": part.met} for part in parts],
                }
                for extra, parts in self.extras.items()
            },
            "self_test": [
                {
                    **asdict(solve),
                    "dtype": solve.name,
                    "least_tolerance": solve.least_tolerance,
                    "passed": solve.passed,
                }
                for solve in self.solves
            ],
            "findings": [{**asdict(finding), "level": finding.level.value} for finding in self.findings],
        }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def examine() -> Examination:
    """Look at everything; some seconds. The number of PyTorch's threads and its random numbers are as before.

    Example:
        >>> from implicit_l2o.doctor import examine
        >>> found = examine()
        >>> found.versions["implicit_l2o"], all(solve.passed for solve in found.solves)
        ('0.1.0', True)
    """
    folder = Path(il2o.__file__).parent
    needed = versions.installed_requirements()
    seen = computing.look()
    others = devices.devices()
    solves = self_test.run()
    findings = [
        *versions.check_installation(folder, il2o.__version__, versions.installations()),
        *versions.check_requirements(needed),
        *versions.check_numpy(),
        *computing.check(seen),
        *devices.check_devices(others),
        *devices.check_precision(
            torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.cuda.is_available()
        ),
        *self_test.check(solves),
    ]
    return Examination(
        versions=versions.versions(),
        folder=folder,
        threads=seen,
        devices=others,
        extras={extra: parts for extra, parts in needed.items() if extra},
        solves=solves,
        findings=sorted(findings, key=lambda finding: _ORDER.index(finding.level)),
    )
