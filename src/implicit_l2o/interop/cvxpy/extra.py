"""CVXPY, which is in an extra: how it is found and imported, and what of its warnings is not for users of a layer."""

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, ClassVar


def require_cvxpy(what: str) -> None:
    """Raise the error that says how to install CVXPY and Clarabel, where they are not."""
    for name in ("cvxpy", "clarabel"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"{what} needs {name}: pip install 'implicit_l2o[cvxpy]'.", name=name)


@contextlib.contextmanager
def sparse_values() -> Iterator[None]:
    """Without CVXPY's advice against reading the values of sparse parameters and variables, which it does itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(Reading from|Writing to) a sparse CVXPY expression", RuntimeWarning)
        yield


def cvxpy_module(module: str = "") -> Any:
    """CVXPY or a module of it, which type checkers do not know."""
    return importlib.import_module(f"cvxpy.{module}" if module else "cvxpy")


def three_dimensional() -> Any:
    """Clarabel's interface without power cones of more than three dimensions, which CVXPY then makes smaller ones of."""
    of_clarabel = cvxpy_module("reductions.solvers.conic_solvers.clarabel_conif").CLARABEL
    left_out = cvxpy_module("constraints").PowConeND

    kept = [kind for kind in of_clarabel.SUPPORTED_CONSTRAINTS if kind is not left_out]

    class ThreeDimensional(of_clarabel):
        SUPPORTED_CONSTRAINTS: ClassVar[list[Any]] = kept

        def name(self) -> str:
            """Another one than Clarabel's own, as CVXPY wants it."""
            return "CLARABEL_3D"

    return ThreeDimensional()
