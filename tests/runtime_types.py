"""The type checker that jaxtyping's import hook (`addopts` in pyproject.toml) puts around the package's functions.

Checking costs several times the small tensor operations that an iteration is made of, and an iteration repeats its
shapes. So a test checks its first calls, thousands of them, and runs the rest at full speed.
"""

import functools
from collections.abc import Callable
from typing import Any, Self

import jaxtyping
from beartype import BeartypeConf, beartype

CHECKS_PER_TEST = 10_000  # about a second

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as type checkers do: an int is a float
_left = CHECKS_PER_TEST


def begin_test(*, check: bool) -> None:
    """Check the first calls from here on, or none."""
    global _left
    _left = CHECKS_PER_TEST
    jaxtyping.config.update("jaxtyping_disable", not check)


def typecheck(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and result against their annotations by beartype.

    Except `Self`: beartype resolves it when it decorates a class, and the hook decorates one method at a time.
    """
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if hint is not Self}
    checked = _beartype(function)

    @functools.wraps(checked)
    def counted(*args: Any, **kwargs: Any) -> Any:
        global _left
        _left -= 1
        if _left <= 0:
            jaxtyping.config.update("jaxtyping_disable", True)
        return checked(*args, **kwargs)

    return counted
