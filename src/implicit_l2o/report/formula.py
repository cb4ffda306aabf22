"""LaTeX as MathML, which browsers draw themselves: no script, no font, no picture."""

import html
import re
import xml.etree.ElementTree as ET

# What a formula needs; everything else of an element (`\href`, `\style`, `\class`) is dropped.
_WORDS = (
    "accent accentunder columnalign depth display displaystyle fence form height linethickness lspace mathvariant maxsize "
    "minsize movablelimits notation rspace scriptlevel separator stretchy symmetric voffset width xmlns"
)
_ATTRIBUTES = frozenset(_WORDS.split())
# The converter knows neither: the same in words that it knows.
_REWRITTEN = (
    (re.compile(r"\\(?:arg\s*\\|arg)(min|max)(?![a-zA-Z])"), r"\\operatorname*{arg\1}"),
    (re.compile(r"\\begin\{(?:aligned|align|split)\}"), r"\\begin{align*}"),
    (re.compile(r"\\end\{(?:aligned|align|split)\}"), r"\\end{align*}"),
    (re.compile(r"\\(?:bm|pmb)(?![a-zA-Z])"), r"\\boldsymbol"),
)
_LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_LIMITED = frozenset({"min", "max", "sup", "inf", "lim", "limsup", "liminf", "lim sup", "lim inf"})
# Browsers draw bold by characters of its own, not by `mathvariant`: (first, last, first bold one) by variant.
_BOLD = {
    "bold": (("0", "9", 0x1D7CE), ("A", "Z", 0x1D400), ("a", "z", 0x1D41A), ("Α", "Ω", 0x1D6A8), ("α", "ω", 0x1D6C2)),  # noqa: RUF001
    "bold-italic": (("A", "Z", 0x1D468), ("a", "z", 0x1D482), ("Α", "Ω", 0x1D71C), ("α", "ω", 0x1D736)),  # noqa: RUF001
}


def mathml(latex: str) -> str | None:
    r"""The formula as one `<math>` element; None when it is empty or has a command that cannot be converted.

    Whatever the LaTeX says, the result has mathematical elements alone: no links, styles or scripts.

    Example:
        >>> from implicit_l2o.report.formula import mathml
        >>> mathml("x").startswith("<math")
        True
        >>> mathml(r"\text{<script>}").count("<script>")
        0
        >>> mathml(r"\nosuchcommand x") is None
        True
    """
    from latex2mathml.converter import convert_to_element

    if not latex.strip():
        return None
    for pattern, words in _REWRITTEN:
        latex = pattern.sub(words, latex)
    try:
        root = convert_to_element(latex, display="block")
    except Exception:  # the converter's errors have no common base class, and a formula must not cost the report
        return None
    for element in root.iter():
        # The converter writes symbols as entities into the text, to be resolved after it is serialised: a `<` of the
        # LaTeX would then be markup. Resolved here, everything is escaped.
        element.text, element.tail = _plain(element.text), _plain(element.tail)
        if element.text and (re.match(r"\\[a-zA-Z]", element.text) or element.text == "&"):
            return None
        _draw(element)
        element.attrib = {name: text for name, text in element.attrib.items() if name in _ATTRIBUTES}
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _draw(element: ET.Element) -> None:
    """Say what browsers draw: limits under their operator, bold letters as characters."""
    base = element[0] if len(element) else None
    if (
        element.tag in _LIMITS
        and (base is not None and base.tag == "mo")
        and ((base.text or "").strip() in _LIMITED or base.get("movablelimits") == "true")
    ):
        element.tag = _LIMITS[element.tag]
        base.attrib.pop("movablelimits", None)
        base.set("lspace", "0.17em")
        base.set("rspace", "0.28em")
    ranges = _BOLD.get(element.get("mathvariant", ""))
    if ranges is not None and element.text:
        element.text = "".join(_bold(letter, ranges) for letter in element.text)
        del element.attrib["mathvariant"]


def _bold(letter: str, ranges: tuple[tuple[str, str, int], ...]) -> str:
    for first, last, start in ranges:
        if first <= letter <= last:
            return chr(start + ord(letter) - ord(first))
    return letter


def _plain(text: str | None) -> str | None:
    return None if text is None else "".join(c for c in html.unescape(text) if c.isprintable() or c.isspace())
