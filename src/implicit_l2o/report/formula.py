"""LaTeX as MathML, which browsers draw themselves: no script, no font, no picture."""

import html
import xml.etree.ElementTree as ET

# What latex2mathml may write; everything else of an element (`\href`, `\style`, `\class`) is dropped.
_ATTRIBUTES = frozenset(
    "accent accentunder bevelled columnalign columnlines columnspacing depth display displaystyle fence form frame height "
    "linethickness lspace mathsize mathvariant maxsize minsize movablelimits notation rowlines rowspacing rspace "
    "scriptlevel separator stretchy symmetric voffset width".split()
)


def mathml(latex: str) -> str | None:
    r"""The formula as one `<math>` element; None when it is empty or cannot be converted.

    Whatever the LaTeX says, the result has mathematical elements alone: no links, styles or scripts.

    Example:
        >>> from implicit_l2o.report.formula import mathml
        >>> mathml("x").startswith("<math")
        True
        >>> mathml(r"\text{<script>}").count("<script>")
        0
    """
    from latex2mathml.converter import convert_to_element

    if not latex.strip():
        return None
    try:
        element = convert_to_element(latex, display="block")
    except Exception:  # the converter has no common base class, and a formula must not cost the report
        return None
    for node in element.iter():
        node.attrib = {name: text for name, text in node.attrib.items() if name in _ATTRIBUTES}
        # The converter writes its symbols as entities into the text, and would resolve them after serialising: a `<`
        # of the LaTeX would then come out as markup.
        node.text, node.tail = (_plain(text) for text in (node.text, node.tail))
    return ET.tostring(element, encoding="unicode", short_empty_elements=False)


def _plain(text: str | None) -> str | None:
    return None if text is None else "".join(c for c in html.unescape(text) if c.isprintable() or c.isspace())
