"""What this installation is made of and whether it works: `python -m implicit_l2o.doctor`, or `il2o doctor`.

It looks at versions, threads, devices and optional parts, solves a small problem whose answer is known, and names the
known traps. It needs no optional package and changes nothing.
"""

from implicit_l2o.doctor.examination import Examination as Examination
from implicit_l2o.doctor.examination import examine as examine
from implicit_l2o.doctor.findings import Finding as Finding
from implicit_l2o.doctor.findings import Level as Level
from implicit_l2o.doctor.show import show as show

__all__ = ["Examination", "Finding", "Level", "examine", "main", "show"]


def main(*, as_json: bool = False) -> int:
    """Print the examination, as text or as JSON; the exit status: 1 if a problem was found, else 0."""
    found = examine()
    print(found.to_json() if as_json else show(found))
    return 0 if found.ok else 1
