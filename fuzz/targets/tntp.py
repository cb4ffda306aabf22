"""Road networks: links, trips, flows and nodes in the TNTP format."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fuzz.harness import Target, Unsound
from implicit_l2o.data.tntp import TntpError, read_flow, read_network

_NET = b"""<NUMBER OF ZONES> 2
<NUMBER OF NODES> 3
<FIRST THRU NODE> 3
<NUMBER OF LINKS> 3
<ORIGINAL HEADER>~ \tInit node \tTerm node \tCapacity\t;
<END OF METADATA>

~\tinit_node\tterm_node\tcapacity\tlength\tfree_flow_time\tb\tpower\tspeed\ttoll\tlink_type\t;
\t1\t3\t10\t2\t5\t0.15\t4\t0\t0\t1\t;
\t3\t2\t20\t1\t7\t0.30\t2\t0\t50\t1\t;
\t1\t2\t30\t4\t0\t0\t0\t-1\t0\t-1\t;
"""
_TRIPS = b"""<NUMBER OF ZONES> 2
<TOTAL OD FLOW> 7.0
<END OF METADATA>
Origin \t1
    1 :      1.5;     2 :     5.5;
Origin 2
"""
_FLOW = b"From \tTo \tVolume \tCost \n1 \t3 \t1.5 \t5.1 \n3 \t2 \t2.5 \t7 \n1 \t2 \t0 \t0 \n"
_NODE = b"Node\tX\tY\t;\n1\t0.5\t-1\t;\n3 \t2e+00 \t \t4 ;\n"
_GOOD = {"net": _NET, "trips": _TRIPS, "flow": _FLOW, "node": _NODE}
_KINDS = ("net", "renumbered", "trips", "flow", "node")


def read(data: bytes, folder: Path) -> None:
    """The first byte says which of the files is the input; the others are good ones."""
    kind = _KINDS[data[0] % len(_KINDS) if data else 0]
    files = {name: folder / f"{name}.tntp" for name in _GOOD}
    for name, path in files.items():
        path.write_bytes(data[1:] if name == kind.replace("renumbered", "net") else _GOOD[name])
    network = read_network(
        files["net"],
        None if kind in ("net", "renumbered") else files["trips"],
        node=files["node"],
        toll_factor=0.1,
        distance_factor=3.0,
        renumber=kind == "renumbered",
    )
    if network.coordinates is not None and np.isinf(network.coordinates).any():
        raise Unsound("a coordinate is infinite")
    if kind == "flow":
        volume, cost = read_flow(files["flow"], network)
        if not (np.isfinite(volume).all() and np.isfinite(cost).all() and (volume >= 0).all()):
            raise Unsound("a volume or a cost is not finite")


def seeds() -> Iterator[bytes]:
    """A good file of every kind."""
    for number, kind in enumerate(_KINDS):
        yield bytes([number]) + _GOOD[kind.replace("renumbered", "net")]


TARGET = Target(
    read=read,
    seeds=seeds,
    errors=(TntpError, OSError),
    words=(
        *(b"<NUMBER OF ZONES>", b"<NUMBER OF NODES>", b"<NUMBER OF LINKS>", b"<FIRST THRU NODE>", b"<END OF METADATA>"),
        *(
            b"<TOTAL OD FLOW>",
            b"Origin ",
            b"1e308",
            b"1e12",
            b"-0",
            b"nan",
            b"inf",
            b"\xef\xbb\xbf",
            b"~",
            b"999999999",
        ),
    ),
    most_bytes=4096,
)
