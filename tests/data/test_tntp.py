"""The TNTP reader: the quirks of the public files on small ones, the real files, and what is said about malformed ones."""

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from implicit_l2o.data import tntp
from implicit_l2o.data.tntp import NETWORKS, TntpError, load, read_flow, read_network

NET = """<NUMBER OF ZONES> 2\t\t\t
<NUMBER OF NODES> 3
<FIRST THRU NODE> 3
<NUMBER OF LINKS> 3
<ORIGINAL HEADER>~ \tInit node \tTerm node \tCapacity\t;
<END OF METADATA>\t\t


~\tinit_node\tterm_node\tcapacity\tlength\tfree_flow_time\tb\tpower\tspeed\ttoll\tlink_type\t;
\t1\t3\t10\t2\t5\t0.15\t4\t0\t0\t1\t;
\t3\t2\t20\t1\t7\t0.30\t2\t0\t50\t1\t;
\t1\t2\t30\t4\t0\t0\t0\t-1\t0\t-1\t;
"""
TRIPS = """<NUMBER OF ZONES> 2
<TOTAL OD FLOW> 7.0
<END OF METADATA>

Origin \t1
    1 :      1.5;     2 :     5.5;
Origin 2
"""
FLOW = "From \tTo \tVolume \tCost \n1 \t3 \t1.5 \t5.1 \n3 \t2 \t2.5 \t7 \n1 \t2 \t0 \t0 \n"


def write(folder: Path, **texts: str) -> dict[str, Path]:
    paths = {}
    for kind, text in texts.items():
        paths[kind] = folder / f"small_{kind}.tntp"
        paths[kind].write_bytes(text.encode())
    return paths


def test_a_plain_network(tmp_path: Path) -> None:
    paths = write(tmp_path, net=NET, trips=TRIPS, node="Node\tX\tY\t;\n1\t0.5\t-1\t;\n3 \t2e+00 \t \t4 ;\n")
    network = read_network(
        paths["net"], paths["trips"], node=paths["node"], toll_factor=0.1, distance_factor=3.0, name=None
    )
    assert (network.name, network.nodes, network.zones, network.first_thru) == ("small", 3, 2, 2)
    np.testing.assert_array_equal(network.tail, [0, 2, 0])
    np.testing.assert_array_equal(network.head, [2, 1, 1])
    np.testing.assert_array_equal(network.capacity, [10, 20, 30])
    np.testing.assert_array_equal(network.free_flow_time, [5, 7, 0])
    np.testing.assert_array_equal(network.b, [0.15, 0.3, 0])
    np.testing.assert_allclose(network.fixed_cost, [6, 8, 12])
    np.testing.assert_array_equal(network.trips, [[1.5, 5.5], [0, 0]])
    assert network.demand == 5.5
    np.testing.assert_array_equal(network.origins, [0])
    np.testing.assert_array_equal(network.coordinates, [[0.5, -1], [np.nan, np.nan], [2, 4]])
    assert network.latency().value(np.array([20.0, 0.0, 3.0])) == pytest.approx([6 + 5 * (1 + 0.15 * 16), 15, 12])


ROW = "\t1\t3\t10\t2\t5\t0.15\t4\t0\t0\t1\t;"

QUIRKS = {
    "line ends of Windows": (NET.replace("\n", "\r\n"), TRIPS.replace("\n", "\r\n")),
    "a byte order mark": ("\ufeff" + NET, "\ufeff" + TRIPS),
    "a glued semicolon": (NET.replace("1\t;", "1;"), TRIPS.replace("; ", ";")),
    "no semicolon": (NET.replace("\t;\n\t3", "\n\t3"), TRIPS.replace("5.5;", "5.5")),
    "no leading tab": (NET.replace("\n\t", "\n"), TRIPS.replace("    1 :", "1:")),
    "the header behind the metadata": (
        NET.replace("<END OF METADATA>\t\t\n", "").replace("<ORIGINAL HEADER>", "<END OF METADATA>\n<ORIGINAL HEADER>"),
        TRIPS,
    ),
    "an unknown key": ("<SCENARIO> base\n" + NET, "<AUTHOR> ~ nobody\n" + TRIPS),
    "a header one line later": (NET.replace("\n\n\n", "\n\n\n\n"), TRIPS.replace("\n\n", "\n\n\n")),
    "spaces around the colon": (NET, TRIPS.replace(" :  ", " \t: \t")),
    "comments in the trips": (NET, TRIPS.replace("Origin 2", "~ the second\nOrigin 2 \t")),
    "an exponent of Windows": (NET.replace("\t10\t", "\t1.0e+001\t"), TRIPS.replace("5.5", "5.5e+000")),
    "explicit zeros": (NET, TRIPS + "  1 : 0.0;  2 : 0;\n"),
    "integers as decimals": (NET.replace("\t1\t3\t", "\t1.0\t3.0\t"), TRIPS),
    "several lines an origin": (NET, TRIPS.replace("1.5; ", "1.5;\n")),
    "a smaller trips file": (NET.replace("ZONES> 2", "ZONES> 3"), TRIPS),
    "a total that is stated as unknown": (NET, TRIPS.replace("7.0", "-1")),
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_quirk_changes_nothing(quirk: str, tmp_path: Path) -> None:
    plain = write(tmp_path, net=NET, trips=TRIPS)
    expected = read_network(plain["net"], plain["trips"])
    net, trips = QUIRKS[quirk]
    paths = write(tmp_path, net=net, trips=trips)
    network = read_network(paths["net"], paths["trips"])
    for name in ("tail", "head", "capacity", "free_flow_time", "b"):
        np.testing.assert_array_equal(getattr(network, name), getattr(expected, name))
    np.testing.assert_array_equal(network.trips[:2, :2], expected.trips)
    assert network.first_thru == 2


def test_parallel_links_loops_and_links_without_time(tmp_path: Path) -> None:
    net = NET.replace("LINKS> 3", "LINKS> 5") + "1 3 1 0 0 1e-71 16.8 0 0 1 ;\n3 3 1 0 0 0 0 0 0 1\n"
    paths = write(tmp_path, net=net, flow=FLOW + "1 3 9 0\n3 3 0 0\n")
    network = read_network(paths["net"])
    assert (network.edges, network.demand, len(network.origins)) == (5, 0, 0)
    assert network.latency().constant_links.tolist() == [False, False, True, True, True]
    volume, _ = read_flow(paths["flow"], network)
    np.testing.assert_array_equal(volume, [1.5, 2.5, 0, 9, 0])


def test_without_a_first_thru_node_every_node_may_be_passed_through(tmp_path: Path) -> None:
    paths = write(tmp_path, net=NET.replace("<FIRST THRU NODE> 3\n", ""))
    assert read_network(paths["net"]).first_thru == 0


def test_node_numbers_far_above_their_count(tmp_path: Path) -> None:
    net = NET.replace("\t1\t3\t", "\t1\t2100000000\t").replace("\t3\t2\t", "\t2100000000\t2\t")
    paths = write(tmp_path, net=net)
    with pytest.raises(
        TntpError, match=r"_net.tntp:10: term_node is 2100000000; expected a node from 1 to 3 \(renumber"
    ):
        read_network(paths["net"])
    np.testing.assert_array_equal(read_network(paths["net"], renumber=True).head, [2, 1, 1])


def test_a_flow_file_with_metadata(tmp_path: Path) -> None:
    paths = write(
        tmp_path, net=NET, flow="<NUMBER OF NODES>\t-1\n<NUMBER OF LINKS> -1 ;\n\n" + FLOW.replace(" \n", " ;\r\n")
    )
    volume, cost = read_flow(paths["flow"], read_network(paths["net"]))
    np.testing.assert_array_equal(volume, [1.5, 2.5, 0])
    np.testing.assert_array_equal(cost, [5.1, 7, 0])


MALFORMED_NETS = [
    (NET.replace("<NUMBER OF ZONES> 2\t\t\t\n", ""), "5: no '<NUMBER OF ZONES>' in the metadata; there are"),
    (NET.replace("ZONES> 2", "ZONES> two"), "1: <NUMBER OF ZONES> is 'two'; expected a number"),
    (NET.replace("ZONES> 2", "ZONES> 2.5"), "1: <NUMBER OF ZONES> is 2.5; expected a whole number from 1"),
    (NET.replace("ZONES> 2", "ZONES> 9"), "1: 9 zones of 3 nodes; expected at most as many"),
    (NET.replace("THRU NODE> 3", "THRU NODE> 7"), "3: got 7; expected 1 to 4"),
    (NET.replace("<END OF METADATA>", "END"), "6: got 'END' in the metadata; expected '<KEY> value'"),
    (NET[: NET.index("<ORIG")], "4: the file ends; expected the line '<END OF METADATA>'"),
    (NET.replace("\t5\t0.15", "\t0.15"), "10: got 9 values; expected 10: init_node"),
    (NET.replace("\t5\t0.15", "\tfive\t0.15"), "10: free_flow_time is 'five'; expected a number"),
    (NET.replace("\t5\t0.15", "\tnan\t0.15"), "10: free_flow_time is nan; expected a finite number"),
    (NET.replace("\t5\t0.15", "\t1_0\t0.15"), "10: free_flow_time is '1_0'; expected a number"),
    (NET.replace("\t5\t0.15", "\t-5\t0.15"), "10: free_flow_time is -5; expected at least 0"),
    (NET.replace("0.15\t4", "0.15\t0.5"), "10: power is 0.5; expected 0 or at least 1"),
    (NET.replace("\t20\t", "\t0\t"), "11: capacity is 0; expected more"),
    (NET.replace("\t1\t3\t", "\t1\t4\t"), "10: term_node is 4; expected a node from 1 to 3"),
    (NET.replace("\t1\t3\t", "\t0\t3\t"), "10: init_node is 0; expected a node from 1 to 3"),
    (NET.replace("\t1\t3\t", "\t1.5\t3\t"), "10: init_node is 1.5; expected a whole number"),
    (NET.replace("0\t1\t;\n\t3", "0\t1\t; 3"), "10: got '3\\t2\\t20"),
    (NET.replace("LINKS> 3", "LINKS> 4"), "12: the file has 3 links; '<NUMBER OF LINKS>' says 4"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED_NETS, ids=[message[:30] for _, message in MALFORMED_NETS])
def test_a_malformed_net_says_where(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, net=text)["net"]
    with pytest.raises(TntpError, match=f"^{re.escape(str(path))}:{re.escape(message)}"):
        read_network(path)


MALFORMED_TRIPS = [
    (TRIPS.replace("ZONES> 2", "ZONES> 3"), "1: got 3 zones; the network has 2"),
    (TRIPS.replace("Origin 2", "Origin 3"), "7: the origin is 3; expected a whole number from 1 to 2"),
    (TRIPS.replace("Origin 2", "Origin"), "7: the origin is ''; expected a number"),
    (TRIPS.replace("Origin \t1\n", ""), "5: got '1 :      1.5'; expected 'Origin o' first"),
    (TRIPS.replace("2 :  ", "2   "), "6: got '2      5.5'; expected 'Origin o' or 'destination : trips;'"),
    (TRIPS.replace("2 :  ", "3 :  "), "6: the destination is 3; expected a whole number from 1 to 2"),
    (TRIPS.replace("5.5", "many"), "6: the number of trips from 1 to 2 is 'many'; expected a number"),
    (TRIPS.replace("5.5", "-5.5"), "6: -5.5 trips from 1 to 2; expected at least 0"),
    (TRIPS.replace("Origin 2", "2 : 1;"), "7: trips from 1 to 2 stand on line 6 already"),
    (TRIPS.replace("5.5", "4.5"), "2: the trips add up to 6; '<TOTAL OD FLOW>' says 7 (check_total"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED_TRIPS, ids=[message[:30] for _, message in MALFORMED_TRIPS])
def test_malformed_trips_say_where(text: str, message: str, tmp_path: Path) -> None:
    paths = write(tmp_path, net=NET, trips=text)
    with pytest.raises(TntpError, match=f"^{re.escape(str(paths['trips']))}:{re.escape(message)}"):
        read_network(paths["net"], paths["trips"])


def test_the_total_need_not_be_compared(tmp_path: Path) -> None:
    paths = write(tmp_path, net=NET, trips=TRIPS.replace("5.5", "4.5"))
    assert read_network(paths["net"], paths["trips"], check_total=False).demand == 4.5


MALFORMED_FLOWS = [
    (FLOW.replace("1.5 ", ""), "2: got 3 values; expected 4: From To Volume Cost"),
    (FLOW.replace("1.5", "x"), "2: Volume is 'x'; expected a number"),
    (FLOW.replace("1.5", "-1.5"), "2: Volume is -1.5; expected at least 0"),
    (FLOW.replace("1 \t3", "2 \t3"), "2: got a link from 2 to 3; the network has no (further) such link"),
    (FLOW + "1 3 1 1\n", "5: got a link from 1 to 3; the network has no (further) such link"),
    (FLOW[: FLOW.index("1 \t2")], "3: 1 links are missing, the first from 1 to 2"),
]


@pytest.mark.parametrize(("text", "message"), MALFORMED_FLOWS, ids=[message[:30] for _, message in MALFORMED_FLOWS])
def test_malformed_flows_say_where(text: str, message: str, tmp_path: Path) -> None:
    paths = write(tmp_path, net=NET, flow=text)
    network = read_network(paths["net"])
    with pytest.raises(TntpError, match=f"^{re.escape(str(paths['flow']))}:{re.escape(message)}"):
        read_flow(paths["flow"], network)


def test_malformed_nodes_say_where(tmp_path: Path) -> None:
    paths = write(tmp_path, net=NET, node="Node X Y ;\n1 0 ;\n")
    with pytest.raises(TntpError, match=r"_node.tntp:2: got 2 values; expected 3: Node X Y"):
        read_network(paths["net"], node=paths["node"])
    paths = write(tmp_path, net=NET, node="Node X Y ;\n9 0 0;\n")
    with pytest.raises(TntpError, match=r"_node.tntp:2: Node is 9; the network has no such node"):
        read_network(paths["net"], node=paths["node"])


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "broken_net.tntp"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(TntpError, match=r"broken_net.tntp:1: "):
        read_network(path)


COUNTS = {  # zones, nodes, links, first thru, pairs, origins, trips: the published inventory
    "Braess": (2, 4, 5, 1, 1, 1, 6.0),
    "SiouxFalls": (24, 24, 76, 1, 528, 24, 360_600.0),
    "Eastern-Massachusetts": (74, 74, 258, 1, 1113, 56, 65_576.375),
    "Berlin-Friedrichshain": (23, 224, 523, 24, 506, 23, 11_205.1),
    "Berlin-Tiergarten": (26, 361, 766, 27, 644, 26, 10_754.87),
    "Anaheim": (38, 416, 914, 39, 1406, 38, 104_694.4),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts_of_the_public_networks(name: str, tntp_folder: Path) -> None:
    network = load(name, tntp_folder)
    pairs = int((network.between > 0).sum())
    counts = (network.zones, network.nodes, network.edges, network.first_thru + 1, pairs, len(network.origins))
    assert counts == COUNTS[name][:-1]
    assert network.demand == pytest.approx(COUNTS[name][-1], abs=1e-3)
    assert (network.coordinates is not None) == (NETWORKS[name].node is not None)


def test_the_links_without_time_of_berlin(tntp_folder: Path) -> None:
    for name, links in (("Berlin-Friedrichshain", 184), ("Berlin-Tiergarten", 206)):
        network = load(name, tntp_folder)
        assert int((network.free_flow_time == 0).sum()) == links == int(network.latency().constant_links.sum())


@pytest.mark.parametrize(
    ("name", "beckmann", "total"),
    [("SiouxFalls", 4_231_335.28710744, 7_480_225.3449), ("Anaheim", 1_286_032.171096, 1_419_913.8511)],
)
def test_the_stored_flows_have_the_published_objective(
    name: str, beckmann: float, total: float, tntp_folder: Path
) -> None:
    network = load(name, tntp_folder)
    flow_file = NETWORKS[name].flow
    assert flow_file is not None
    volume, cost = read_flow(tntp_folder / flow_file, network)
    latency = network.latency()
    assert latency.integral(volume).sum() == pytest.approx(beckmann, rel=1e-12)
    assert volume @ cost == pytest.approx(total, rel=1e-10)
    np.testing.assert_allclose(latency.value(volume), cost, rtol=1e-13)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server over a collection that has the Braess network alone."""
    root = tmp_path / "collection"
    folder = root / "Braess-Example"
    folder.mkdir(parents=True)
    (folder / "Braess_net.tntp").write_text(NET)
    (folder / "Braess_trips.tntp").write_text(TRIPS)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))  # pyright: ignore[reportArgumentType]

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", root
        server.shutdown()


def test_a_download_shows_the_terms_once(
    served: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, _ = served
    cache = tmp_path / "cache"
    network = load("Braess", source=address, cache=cache)
    assert network.edges == 3
    assert "academic research purposes only" in capsys.readouterr().err
    assert tntp.download("Braess", source="http://127.0.0.1:9", cache=cache) == cache  # everything is there
    assert capsys.readouterr().err == ""
    assert not list(cache.rglob("*.part"))


def test_a_download_that_fails_leaves_nothing(served: tuple[str, Path], tmp_path: Path) -> None:
    address, root = served
    cache = tmp_path / "cache"
    with pytest.raises(
        ConnectionError, match=r"SiouxFalls_net.tntp could not be downloaded .*File not found.*give a folder"
    ):
        load("SiouxFalls", source=address, cache=cache)
    (root / "Braess-Example" / "Braess_trips.tntp").write_text("<!DOCTYPE html><html>log in</html>")
    with pytest.raises(ConnectionError, match="no TNTP file"):
        load("Braess", source=root.as_uri(), cache=cache)
    assert [path.name for path in cache.rglob("*.*")] == ["Braess_net.tntp"]


def test_unknown_networks_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the networks are Braess, SiouxFalls, .*; got 'Atlantis'"):
        load("Atlantis", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"SiouxFalls: no SiouxFalls/SiouxFalls_net.tntp in"):
        load("SiouxFalls", tmp_path)
    with pytest.raises(ValueError, match="the networks are"):
        tntp.download("Atlantis")
