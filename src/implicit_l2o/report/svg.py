"""Figures as SVG that lives inside a page: it follows the page's colours, and its ids are its own."""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from implicit_l2o.report.record import write_text

# Draw texts and axes in this colour: it becomes that of the text around the figure.
FOREGROUND = "#010203"
# Okabe and Ito's palette, which most kinds of colour blindness tell apart. The page's style lightens it where it is dark.
PALETTE = {
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "orange": "#e69f00",
    "purple": "#cc79a7",
    "sky": "#56b4e9",
    "grey": "#888888",
}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_WORDS = (
    "svg g defs clipPath path use rect circle ellipse line polyline polygon text tspan image linearGradient "
    "radialGradient stop title desc"
)
_ELEMENTS = frozenset(_WORDS.split())
_IMAGE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]*")
_LINK = re.compile(r"url\(\s*#([^)\s]+)\s*\)")
_FAMILY = re.compile(r"(font-family: |font: [^;]*?[\d.]+px )[^;]*")
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")
_COLOURS = {
    FOREGROUND: "currentColor",
    **{colour: f"var(--{name}, {colour})" for name, colour in PALETTE.items()},
}
_COLOUR = re.compile("|".join(_COLOURS), re.IGNORECASE)


def to_svg(figure: Figure, *, label: str, key: str) -> str:
    """A matplotlib figure as an SVG element: transparent, in the page's font and colours, the same in every run.

    Args:
        figure: texts and axes drawn in `FOREGROUND`, data in colours of `PALETTE`.
        label: what a reader who cannot see it is told.
        key: starts every id, so one figure of a page has one key. Letters, digits and hyphens.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from implicit_l2o.report.svg import to_svg
        >>> to_svg(Figure(figsize=(2, 1)), label="nothing", key="empty")[:4]
        '<svg'
    """
    buffer = io.StringIO()
    # Texts stay texts; ids depend on the figure alone; no date.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "implicit_l2o"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return inline(buffer.getvalue(), label=label, key=key)


def save_svg(figure: Figure, path: Path, *, label: str) -> None:
    """Write a figure as an SVG file whose colours follow the page that a report makes of it.

    Args:
        figure: as for `to_svg`.
        path: ends in `.svg`.
        label: what a reader who cannot see it is told.
    """
    element = to_svg(figure, label=label, key=re.sub("[^a-z0-9]+", "-", path.stem.lower()))
    write_text(path, element.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n")


def inline(text: str, *, label: str, key: str) -> str:
    """An SVG document as an element for a page: what draws is kept, what acts (scripts, links, styles, loads) is not.

    Args:
        text: the document.
        label: what a reader who cannot see it is told.
        key: as for `to_svg`.

    Raises:
        ValueError: it is no SVG document, or it defines entities.

    Example:
        >>> from implicit_l2o.report.svg import inline
        >>> inline('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><script/></svg>', label="box", key="a")
        '<svg viewBox="0 0 1 1" width="1" role="img" aria-label="box" stroke-linejoin="round"></svg>'
    """
    if "<!ENTITY" in text:
        raise ValueError("the SVG defines entities, which a report does not embed.")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise ValueError(f"no complete SVG document: {error}.") from error
    if root.tag != f"{_SVG}svg":
        raise ValueError(f"no SVG document: its root is {root.tag!r}.")
    size = [re.match(r"[\d.]+", root.get(name, "")) for name in ("width", "height")]
    box = root.get("viewBox") or "0 0 {} {}".format(*(match.group() if match else 100 for match in size))
    linked = set(_LINK.findall(text)) | set(re.findall(r'href="#([^"]+)"', text))
    _clean(root, key, linked)
    edges = re.findall(r"-?\d+\.?\d*", box)
    if len(edges) != 4:
        raise ValueError(f"the SVG's viewBox has no four numbers: {box!r}.")
    width = f"{float(edges[2]) * 4 / 3:.0f}"  # of points in pixels
    root.attrib = {"viewBox": box, "width": width, "role": "img", "aria-label": label, "stroke-linejoin": "round"}
    root.tail = None
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _clean(element: ET.Element, key: str, linked: set[str]) -> None:
    """Keep drawing elements and attributes, name ids anew, and drop what only spends bytes."""
    element.tag = element.tag.removeprefix(_SVG)
    if element.tag not in ("text", "tspan", "title", "desc"):
        element.text = None
    element.attrib = dict(_attributes(element, key, linked))
    for child in list(element):
        if isinstance(child.tag, str) and child.tag.removeprefix(_SVG) in _ELEMENTS:
            _clean(child, key, linked)
            if child.tag not in ("tspan",):
                child.tail = None
        else:
            element.remove(child)


def _attributes(element: ET.Element, key: str, linked: set[str]) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        name = "href" if name == f"{_XLINK}href" else name
        if name == "id":
            if value in linked:
                yield name, f"{key}-{value}"
        elif name == "href":
            if value.startswith("#"):
                yield name, f"#{key}-{value[1:]}"
            elif element.tag == "image" and _IMAGE.fullmatch(value):
                yield name, value
        elif name.startswith("{") or name.lower().startswith("on") or name == "class":
            continue
        else:
            value = _LINK.sub(lambda match: f"url(#{key}-{match.group(1)})", value)
            if "url(" in _LINK.sub("", value) or "@" in value or "\\" in value:
                continue
            value = _FAMILY.sub(r"\1system-ui, sans-serif", value)
            value = _COLOUR.sub(lambda match: _COLOURS[match.group().lower()], value)
            if name in ("d", "x", "y", "transform", "points"):
                value = _DECIMALS.sub(lambda match: f"{float(match.group()):.2f}", " ".join(value.split()))
            yield name, value
