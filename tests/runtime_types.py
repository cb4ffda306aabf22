"""The type checker that jaxtyping's import hook (`addopts` in pyproject.toml) puts around the package's functions."""

from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as type checkers do: an int is a float


def typecheck(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and result against their annotations by beartype.

    Except `Self`: beartype resolves it when it decorates a class, and the hook decorates one method at a time.
    """
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if hint is not Self}
    return _checked(function)
