"""Road networks in the TNTP format: reader of its net, trips, flow and node files, and a downloader.

The public collection is "Transportation Networks for Research Core Team, Transportation Networks for Research",
https://github.com/bstabler/TransportationNetworks; see `TERMS`. Its files are never part of this package.
"""

import http.client
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import final

import numpy as np
from jaxtyping import Float

from implicit_l2o.data import _tntp
from implicit_l2o.data._files import atomic, cache_folder
from implicit_l2o.data._tntp import TntpError as TntpError
from implicit_l2o.games import TrafficNetwork

SOURCE = "https://raw.githubusercontent.com/bstabler/TransportationNetworks/master"
TERMS = (
    "The networks of https://github.com/bstabler/TransportationNetworks were donated for academic research purposes only. "
    "Whoever uses them is responsible for the results and must name the source in every publication: Transportation "
    "Networks for Research Core Team. Transportation Networks for Research. (with the date of access)"
)


@final
@dataclass(frozen=True, kw_only=True)
class NetworkFiles:
    """Where the public collection keeps a network, and the weights of its tolls and lengths.

    Args:
        net: path of the links from the root of the collection.
        trips: path of the trips.
        flow: path of the best known flows; None where there are none.
        node: path of the coordinates; None where there are none.
        toll_factor: units of time a unit of toll.
        distance_factor: units of time a unit of length.
    """

    net: str
    trips: str
    flow: str | None = None
    node: str | None = None
    toll_factor: float = 0.0
    distance_factor: float = 0.0


def _files(folder: str, stem: str, *, flow: bool = False, node: bool = False, **factors: float) -> NetworkFiles:
    def path(kind: str) -> str:
        return f"{folder}/{stem}_{kind}.tntp"

    return NetworkFiles(
        net=path("net"),
        trips=path("trips"),
        flow=path("flow") if flow else None,
        node=path("node") if node else None,
        **factors,
    )


NETWORKS = MappingProxyType(
    {
        "Braess": _files("Braess-Example", "Braess"),
        "SiouxFalls": _files("SiouxFalls", "SiouxFalls", flow=True, node=True),
        "Eastern-Massachusetts": _files("Eastern-Massachusetts", "EMA"),
        "Berlin-Friedrichshain": _files("Berlin-Friedrichshain", "friedrichshain-center", node=True),
        "Berlin-Tiergarten": _files("Berlin-Tiergarten", "berlin-tiergarten", node=True),
        "Anaheim": _files("Anaheim", "Anaheim", flow=True),
        "Barcelona": _files("Barcelona", "Barcelona", flow=True),
        "Winnipeg": _files("Winnipeg", "Winnipeg", flow=True),
        "Chicago-Sketch": _files(
            "Chicago-Sketch", "ChicagoSketch", flow=True, node=True, toll_factor=0.02, distance_factor=0.04
        ),
    }
)
"""The networks that `load` knows by name."""


def read_network(
    net: str | Path,
    trips: str | Path | None = None,
    *,
    node: str | Path | None = None,
    name: str | None = None,
    toll_factor: float = 0.0,
    distance_factor: float = 0.0,
    renumber: bool = False,
    check_total: bool = True,
) -> TrafficNetwork:
    """A network from its files.

    Read are `b`, `power`, tolls and lengths, the first node that paths may pass through, links that take no time, parallel
    links; comment lines (`~`) and headers anywhere, line ends of Windows, a `;` that is glued to a number or missing, an
    exponent such as `e+007`, origins without entries, explicit zeros, trips within a zone.

    Args:
        net: `*_net.tntp`. Without `<FIRST THRU NODE>` all nodes may be passed through.
        trips: `*_trips.tntp`; None is no demand.
        node: `*_node.tntp`; a node that it lacks has the coordinates NaN.
        name: None is that of the net file.
        toll_factor: units of time a unit of toll; the collection's pages state it.
        distance_factor: units of time a unit of length.
        renumber: number the nodes above the zones anew, in their order, where the file's numbers exceed the number of
            nodes.
        check_total: compare the trips with `<TOTAL OD FLOW>`.

    Raises:
        FileNotFoundError: a file is not there.
        TntpError: a file is malformed; the message names the file, the line, what is there and what was expected.

    Example:
        >>> import pathlib, tempfile
        >>> from implicit_l2o.data.tntp import read_network
        >>> folder = tempfile.TemporaryDirectory()
        >>> net = pathlib.Path(folder.name) / "two_net.tntp"
        >>> _ = net.write_text('''<NUMBER OF ZONES> 2
        ... <NUMBER OF NODES> 2
        ... <FIRST THRU NODE> 1
        ... <NUMBER OF LINKS> 1
        ... <END OF METADATA>
        ... ~ init term capacity length time b power speed toll type ;
        ... 1 2 10 0 5 0.15 4 0 0 1 ;
        ... ''')
        >>> read_network(net).free_flow_time
        array([5.])
        >>> folder.cleanup()
    """
    net = Path(net)
    links = _tntp.read_links(net, renumber=renumber)
    demand = np.zeros((links.zones, links.zones))
    if trips is not None:
        demand = _tntp.read_trips(Path(trips), links.zones, check_total=check_total)
    coordinates = None if node is None else _tntp.read_nodes(Path(node), links.place)
    rows = links.rows
    with np.errstate(over="ignore"):  # an infinite cost is refused
        cost = toll_factor * rows[:, 6] + distance_factor * rows[:, 1]
    try:
        return TrafficNetwork(
            name=net.name.removesuffix(".tntp").removesuffix("_net") if name is None else name,
            nodes=links.nodes,
            zones=links.zones,
            first_thru=links.first_thru,
            tail=links.tail,
            head=links.head,
            capacity=rows[:, 0],
            free_flow_time=rows[:, 2],
            b=rows[:, 3],
            power=rows[:, 4],
            fixed_cost=cost,
            trips=demand,
            coordinates=coordinates,
        )
    except ValueError as error:  # what no line shows alone, such as a cost by the factors
        raise TntpError(f"{net}: {error}") from error


def read_flow(path: str | Path, network: TrafficNetwork) -> tuple[Float[np.ndarray, " E"], Float[np.ndarray, " E"]]:
    """Volume and cost of every link, in the order of the network's links, from a `*_flow.tntp` file.

    Parallel links are taken in their order.

    Raises:
        FileNotFoundError: the file is not there.
        TntpError: it is malformed, has a link that the network lacks, or lacks one.
    """
    return _tntp.read_volumes(Path(path), network.tail, network.head)


def load(
    name: str, folder: str | Path | None = None, *, source: str = SOURCE, cache: str | Path | None = None
) -> TrafficNetwork:
    """A network of the public collection, from a folder or downloaded.

    Args:
        name: one of `NETWORKS`.
        folder: has the collection's folders, `SiouxFalls/SiouxFalls_net.tntp` and so on. None downloads the files that are
            not yet in the cache, and prints the terms of use.
        source: address of the collection's root.
        cache: a writable folder for the downloads; None is `implicit_l2o/tntp` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: the folder lacks a file.
        ConnectionError: the download failed.
        TntpError: a file is malformed.

    Example:
        >>> from implicit_l2o.data.tntp import load
        >>> load("Atlantis")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        ValueError: it lists the names that are known
    """
    files = _known(name)
    root = _fetched(name, source, cache) if folder is None else Path(folder)
    for part in (files.net, files.trips, files.node):
        if part is not None and not (root / part).is_file():
            raise FileNotFoundError(f"{name}: no {part} in {root}. Without a folder it is downloaded.")
    return read_network(
        root / files.net,
        root / files.trips,
        node=None if files.node is None else root / files.node,
        name=name,
        toll_factor=files.toll_factor,
        distance_factor=files.distance_factor,
    )


def download(name: str, *, source: str = SOURCE, cache: str | Path | None = None) -> Path:
    """Fetch the files of a network and print the terms of use; the folder that holds them, as `load` takes it.

    Files that are there already are not fetched again, and nothing is printed then.

    Args:
        name: one of `NETWORKS`.
        source: address of the collection's root.
        cache: as in `load`.

    Raises:
        ValueError: an unknown name.
        ConnectionError: a file could not be fetched, or what came is no TNTP file.
    """
    _known(name)
    return _fetched(name, source, cache)


def _known(name: str) -> NetworkFiles:
    if name not in NETWORKS:
        raise ValueError(f"the networks are {', '.join(NETWORKS)}; got {name!r}.")
    return NETWORKS[name]


def _fetched(name: str, source: str, cache: str | Path | None) -> Path:
    root = cache_folder() / "tntp" if cache is None else Path(cache)
    files = NETWORKS[name]
    parts = [part for part in (files.net, files.trips, files.flow, files.node) if part is not None]
    missing = [part for part in parts if not (root / part).is_file()]
    if missing:
        print(TERMS, file=sys.stderr)
    for part in missing:
        _fetch(f"{source.rstrip('/')}/{part}", root / part)
    return root


def _fetch(url: str, target: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            content = response.read()
            size = response.headers.get("Content-Length")
        if size is not None and int(size) != len(content):
            raise ConnectionError(f"{len(content)} bytes of {size} arrived")
        if content.lstrip()[:9].lower() in (b"<!doctype", b"<html>") or not content.strip():  # a login page, say
            raise ConnectionError("what came is no TNTP file")
        with atomic(target) as file:
            file.write(content)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"{url} could not be downloaded to {target} ({reason}); give a folder (folder=) that holds the file."
        ) from error
