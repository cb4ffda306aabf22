"""For the site: an `Example:` of a docstring is an examples section, shown as code, and not text with links in it."""

import re
from typing import Any

import griffe


class ExamplesAsCode(griffe.Extension):
    """Griffe knows the section by its plural alone."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
