"""How a public name leaves: it works on, warns, and says what replaces it and until when. The policy: docs/versions.md.

A leaf of the import graph. `tests/test_deprecation.py` fails once a name has outlived the version it was to be removed in.
"""

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_RELEASE = re.compile(r"(\d+)\.(\d+)\Z")
_NOTICE = 2  # minor releases in which a deprecated name still works: the one that deprecates it, and the next


@dataclass(frozen=True)
class Deprecation:
    """Since when a name is deprecated, when it goes, and what takes its place.

    Args:
        since: the minor release that deprecates it, `"0.2"`.
        removal: the first release without it: at least two minor releases later (`"0.4"`), or a major one.
        instead: what to write in its place, as code or in words.

    Raises:
        ValueError: a version is not of the form `"0.2"`, or `removal` comes sooner than the policy promises.

    Example:
        >>> from implicit_l2o._deprecation import Deprecation
        >>> Deprecation(since="0.2", removal="0.4", instead="il2o.solve").message("il2o.run")
        'il2o.run is deprecated since 0.2 and will be removed in 0.4; use il2o.solve instead.'
    """

    since: str
    removal: str
    instead: str

    def __post_init__(self) -> None:
        since, removal = release(self.since), release(self.removal)
        later_major = removal[0] > since[0]
        if not (later_major or removal >= (since[0], since[1] + _NOTICE)):
            earliest = f"{since[0]}.{since[1] + _NOTICE}"
            raise ValueError(
                f"a name deprecated in {self.since} stays until {earliest} at least; got removal={self.removal!r}."
            )

    def message(self, name: str) -> str:
        """What users read."""
        return f"{name} is deprecated since {self.since} and will be removed in {self.removal}; use {self.instead} instead."

    def warn(self, name: str, *, stacklevel: int = 2) -> None:
        """Warn of the use of `name` where it is used: `stacklevel=2` is the caller of the function that calls this."""
        warnings.warn(self.message(name), DeprecationWarning, stacklevel=stacklevel + 1)


def release(version: str) -> tuple[int, int]:
    """Major and minor number of `"0.2"`.

    Raises:
        ValueError: it has another form.
    """
    match = _RELEASE.match(version)
    if match is None:
        raise ValueError(f"a release is named by its major and minor number, such as '0.2'; got {version!r}.")
    return int(match[1]), int(match[2])


def deprecated(deprecation: Deprecation) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of functions and methods: every call warns, and does what it did.

    A class is not decorated, or it would be no class any more: rename it and keep the old name by `deprecated_names`.

    Raises:
        TypeError: it decorates a class.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if inspect.isclass(function):
            raise TypeError(
                f"deprecated takes a function; keep the old name of {function.__name__} by deprecated_names."
            )
        name = getattr(function, "__qualname__", repr(function))

        @functools.wraps(function)
        def warned(*args: P.args, **kwargs: P.kwargs) -> R:
            deprecation.warn(f"{name}()")
            return function(*args, **kwargs)

        return warned

    return decorate


def deprecated_names(module: str, names: Mapping[str, tuple[Any, Deprecation]]) -> Callable[[str], Any]:
    """A module's `__getattr__` that still knows names which have been renamed or moved, and warns of each use.

    Args:
        module: `__name__` of the module.
        names: old name -> (what it stands for, its deprecation).

    Example:
        >>> import warnings
        >>> from implicit_l2o._deprecation import Deprecation, deprecated_names
        >>> gone = Deprecation(since="0.2", removal="0.4", instead="new")
        >>> find = deprecated_names("package", {"old": (42, gone)})  # in a module: __getattr__ = deprecated_names(...)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     find("old")
        42
        >>> str(caught[0].message)
        'package.old is deprecated since 0.2 and will be removed in 0.4; use new instead.'
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value, deprecation = names[name]
        deprecation.warn(f"{module}.{name}")
        return value

    return find
