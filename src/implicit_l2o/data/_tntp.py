"""The lines of TNTP files, read strictly: whatever is not understood is an error with file and line."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

_KEY = re.compile(r"<([^>]*)>(.*)")
_ORIGIN = re.compile(r"origin\b\s*(.*)", re.IGNORECASE)
_COLUMNS = (
    "init_node",
    "term_node",
    "capacity",
    "length",
    "free_flow_time",
    "b",
    "power",
    "speed",
    "toll",
    "link_type",
)
_IDLE = 10_000  # nodes that no link need touch; a header that claims many more would fill the memory
_MAY_BE_NEGATIVE = ("length", "speed", "link_type")  # not used, or by a factor whose product is checked


class TntpError(ValueError):
    """A TNTP file is malformed; the message is `path:line: what is there, and what was expected`."""


class Links(NamedTuple):
    """What a net file says; nodes from 0."""

    zones: int
    nodes: int
    first_thru: int
    tail: np.ndarray
    head: np.ndarray
    rows: np.ndarray  # the eight columns from the capacity on
    place: dict[int, int]  # from the file's node numbers


class _File:
    """A text file whose complaints say where."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Bytes that are no UTF-8 can only be in comments; elsewhere they are no number.
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        self.lines = text.splitlines()
        self.end = len(self.lines)  # line of the end of the metadata

    def error(self, line: int, what: str) -> TntpError:
        return TntpError(f"{self.path}:{line}: {what}")

    def metadata(self) -> tuple[dict[str, tuple[int, str]], int]:
        """Line and text of every `<KEY> value`, and the number of lines up to the end of the metadata."""
        found: dict[str, tuple[int, str]] = {}
        for line, text in enumerate(self.lines, 1):
            match = _KEY.match(text.strip())
            if match is None:
                if text.strip() and not text.lstrip().startswith("~"):
                    raise self.error(
                        line, f"got {_short(text)} in the metadata; expected '<KEY> value' or a comment '~'."
                    )
                continue
            key = " ".join(match[1].upper().split())
            if key == "END OF METADATA":
                self.end = line
                return found, line
            found[key] = (line, match[2].strip().rstrip(";").strip())
        raise self.error(len(self.lines), "the file ends; expected the line '<END OF METADATA>'.")

    def body(self, start: int) -> Iterator[tuple[int, str]]:
        """Line and text of what follows, without blank lines, comments and late headers."""
        for line, text in enumerate(self.lines[start:], start + 1):
            stripped = text.strip()
            if stripped and not stripped.startswith(("~", "<")):
                yield line, stripped

    def count(self, found: dict[str, tuple[int, str]], key: str, default: int | None = None) -> int:
        """A positive whole number of the metadata."""
        if key not in found:
            if default is None:
                raise self.error(self.end, f"no '<{key}>' in the metadata; there are {sorted(found)}.")
            return default
        line, text = found[key]
        return self.whole(line, text, f"<{key}>", minimum=1)

    def number(self, line: int, text: str, what: str) -> float:
        try:
            value = float(text.replace("_", "?"))  # Python alone takes 1_000
        except ValueError:
            raise self.error(line, f"{what} is {_short(text)}; expected a number.") from None
        if not math.isfinite(value):
            raise self.error(line, f"{what} is {text}; expected a finite number.")
        return value

    def whole(self, line: int, text: str, what: str, *, minimum: int = 0, maximum: int | None = None) -> int:
        value = self.number(line, text, what)
        if value != int(value) or value < minimum or (maximum is not None and value > maximum):
            upto = "" if maximum is None else f" to {maximum}"
            raise self.error(line, f"{what} is {text}; expected a whole number from {minimum}{upto}.")
        return int(value)


def read_links(path: Path, *, renumber: bool) -> Links:
    """The metadata and the links of a net file."""
    file = _File(path)
    found, start = file.metadata()
    zones, nodes = file.count(found, "NUMBER OF ZONES"), file.count(found, "NUMBER OF NODES")
    first_thru = file.count(found, "FIRST THRU NODE", default=1)
    if zones > nodes:
        raise file.error(found["NUMBER OF ZONES"][0], f"{zones} zones of {nodes} nodes; expected at most as many.")
    if first_thru > nodes + 1:
        raise file.error(found["FIRST THRU NODE"][0], f"got {first_thru}; expected 1 to {nodes + 1}.")
    ends, rows = [], []
    for line, text in file.body(start):
        content, _, rest = text.partition(";")
        values = content.split()
        if rest.strip(" \t;") and not rest.lstrip(" \t;").startswith("~"):
            raise file.error(line, f"got {_short(rest)} behind ';'; expected one link a line.")
        if len(values) != len(_COLUMNS):
            raise file.error(line, f"got {len(values)} values; expected {len(_COLUMNS)}: {' '.join(_COLUMNS)}.")
        most = None if renumber else nodes
        for k in (0, 1):
            number = file.whole(line, values[k], _COLUMNS[k])
            if not 1 <= number <= (number if most is None else most):
                hint = " (renumber=True numbers the nodes anew)" if number > nodes else ""
                raise file.error(line, f"{_COLUMNS[k]} is {number}; expected a node from 1 to {nodes}{hint}.")
        ends.append([int(float(value)) for value in values[:2]])
        rows.append(_link(file, line, values[2:]))
    links = file.count(found, "NUMBER OF LINKS")
    if len(rows) != links:
        raise file.error(len(file.lines), f"the file has {len(rows)} links; '<NUMBER OF LINKS>' says {links}.")
    for key, value in (("NUMBER OF NODES", nodes), ("NUMBER OF ZONES", zones)):
        most = 2 * links + (_IDLE if key == "NUMBER OF NODES" else _IDLE // 10)
        if value > most:
            raise file.error(found[key][0], f"got {value}; expected at most {most} where there are {links} links.")
    used = np.array(ends).reshape(-1, 2)
    place = _numbers(file, used, zones, nodes)
    tail, head = (np.array([place[int(node)] for node in column], dtype=np.int64) for column in used.T)
    return Links(zones, nodes, first_thru - 1, tail, head, np.array(rows), place)


def _link(file: _File, line: int, texts: list[str]) -> list[float]:
    names = _COLUMNS[2:]
    values = [file.number(line, text, name) for text, name in zip(texts, names, strict=True)]
    for name, value in zip(names, values, strict=True):
        if value < 0 and name not in _MAY_BE_NEGATIVE:
            raise file.error(line, f"{name} is {value:g}; expected at least 0.")
    capacity, _, _, b, power, *_ = values
    if capacity == 0:
        raise file.error(line, "capacity is 0; expected more.")
    if b > 0 and 0 < power < 1:
        raise file.error(line, f"power is {power:g}; expected 0 or at least 1.")
    if b == 0 and power < 1:
        values[4] = 1.0  # it has no meaning
    return values


def _numbers(file: _File, used: np.ndarray, zones: int, nodes: int) -> dict[int, int]:
    """From the numbers of the file to those from 0."""
    if used.max(initial=0) <= nodes:
        return {node: node - 1 for node in range(1, nodes + 1)}
    above = np.unique(used[used > zones]).tolist()
    if zones + len(above) > nodes:
        raise file.error(
            len(file.lines),
            f"the links use {len(above)} nodes above the zones; '<NUMBER OF NODES>' says {nodes - zones}.",
        )
    return {**{node: node - 1 for node in range(1, zones + 1)}, **{node: zones + k for k, node in enumerate(above)}}


def read_trips(path: Path, zones: int, *, check_total: bool) -> np.ndarray:
    """The trips between the zones of a net file."""
    file = _File(path)
    found, start = file.metadata()
    stated = file.count(found, "NUMBER OF ZONES", default=zones)
    if stated > zones:
        raise file.error(found["NUMBER OF ZONES"][0], f"got {stated} zones; the network has {zones}.")
    trips, seen = np.zeros((zones, zones)), {}
    origin = None
    for line, text in file.body(start):
        if heading := _ORIGIN.match(text):
            origin = file.whole(line, heading[1], "the origin", minimum=1, maximum=zones)
            continue
        for entry in filter(None, (part.strip() for part in text.split(";"))):
            destination, colon, amount = entry.partition(":")
            if not colon or origin is None:
                expected = "'Origin o' first" if colon else "'Origin o' or 'destination : trips;'"
                raise file.error(line, f"got {_short(entry)}; expected {expected}.")
            zone = file.whole(line, destination.strip(), "the destination", minimum=1, maximum=zones)
            value = file.number(line, amount.strip(), f"the number of trips from {origin} to {zone}")
            if value < 0:
                raise file.error(line, f"{value:g} trips from {origin} to {zone}; expected at least 0.")
            if (origin, zone) in seen:
                raise file.error(line, f"trips from {origin} to {zone} stand on line {seen[origin, zone]} already.")
            seen[origin, zone] = line
            trips[origin - 1, zone - 1] = value
    if check_total and "TOTAL OD FLOW" in found:
        line, text = found["TOTAL OD FLOW"]
        total = file.number(line, text, "<TOTAL OD FLOW>")
        if total > 0 and abs(trips.sum() - total) > 1e-3 * total:
            raise file.error(
                line,
                f"the trips add up to {trips.sum():g}; '<TOTAL OD FLOW>' says {total:g} (check_total=False skips this).",
            )
    return trips


def read_volumes(path: Path, tail: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Volume and cost of every link of a flow file."""
    file = _File(path)
    waiting: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for edge, ends in enumerate(zip((tail + 1).tolist(), (head + 1).tolist(), strict=True)):
        waiting[ends].append(edge)
    volume, cost = np.full(len(tail), np.nan), np.full(len(tail), np.nan)
    header = True
    for line, text in file.body(0):
        values = text.replace(";", " ").split()
        if header and re.match(r"[A-Za-z]", values[0] if values else ""):
            continue
        header = False
        if len(values) != 4:
            raise file.error(line, f"got {len(values)} values; expected 4: From To Volume Cost.")
        ends = file.whole(line, values[0], "From"), file.whole(line, values[1], "To")
        if not waiting.get(ends):
            raise file.error(line, f"got a link from {ends[0]} to {ends[1]}; the network has no (further) such link.")
        edge = waiting[ends].pop(0)
        volume[edge], cost[edge] = (file.number(line, values[k], ("Volume", "Cost")[k - 2]) for k in (2, 3))
        if volume[edge] < 0:
            raise file.error(line, f"Volume is {values[2]}; expected at least 0.")
    missing = np.flatnonzero(np.isnan(volume))
    if len(missing):
        at = missing[0]
        raise file.error(
            len(file.lines), f"{len(missing)} links are missing, the first from {tail[at] + 1} to {head[at] + 1}."
        )
    return volume, cost


def read_nodes(path: Path, place: dict[int, int]) -> np.ndarray:
    """Coordinates of the nodes of a net file; NaN where there are none."""
    file = _File(path)
    coordinates = np.full((max(place.values()) + 1, 2), np.nan)
    header = True
    for line, text in file.body(0):
        values = text.replace(";", " ").split()
        if header and re.match(r"[A-Za-z]", values[0] if values else ""):
            header = False
            continue
        header = False
        if len(values) != 3:
            raise file.error(line, f"got {len(values)} values; expected 3: Node X Y.")
        node = file.whole(line, values[0], "Node")
        if node not in place:
            raise file.error(line, f"Node is {node}; the network has no such node.")
        coordinates[place[node]] = [file.number(line, values[k], "XY"[k - 1]) for k in (1, 2)]
    return coordinates


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 40 else text[:37] + "...")
