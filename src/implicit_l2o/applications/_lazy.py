"""Names of a package that are imported when first asked for: a served model does without the training's packages."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` that imports a name from the module that defines it.

    Args:
        package: the importing package's `__name__`.
        places: the module by name: one of the package's own, or its whole path.

    Example:
        >>> from implicit_l2o.applications._lazy import lazily
        >>> lazily("implicit_l2o.applications.digits", {"Architecture": "model"})("Architecture").__name__
        'Architecture'
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        place = places[name]
        return getattr(importlib.import_module(place if "." in place else f"{package}.{place}"), name)

    return get
