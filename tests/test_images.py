"""The image loaders: real data where they are, tiny parquet files, broken files, a hub that breaks off."""

import hashlib
import http.server
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from implicit_l2o.data import _hub, images
from implicit_l2o.data.images import load_cifar10, load_digits, load_mnist, load_svhn

NAME = "mnist/train-00000-of-00001.parquet"
DATA = Path(os.environ.get("IL2O_DATA", Path(__file__).parents[2] / "shared" / "data"))
SIDE = 28


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)


def write(folder: Path, rows: list[tuple[bytes | None, int | None]], name: str = NAME, column: str = "image") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            column: pa.array(
                [{"bytes": data, "path": None} for data, _ in rows],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": pa.array([label for _, label in rows], pa.int64()),
        }
    )
    pq.write_table(table, path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, np.ndarray]:
    shown = pixels(5)
    write(tmp_path / "source", [(encoded(image), i + 3) for i, image in enumerate(shown)])
    return tmp_path / "source", shown


def load(folder: Path, tmp_path: Path, **options: str) -> images.LabelledImages:
    return load_mnist(folder, cache=tmp_path / "cache", progress=False, **options)  # pyright: ignore[reportArgumentType]


def test_digits_are_sklearns() -> None:
    digits = load_digits()
    assert digits.images.shape == (1797, 8, 8)
    assert digits.side == 8
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    x, y = digits.tensors()
    assert x.shape == (1797, 1, 8, 8)
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert y.tolist() == digits.labels.tolist()


def test_folder_is_decoded_once_and_then_mapped(source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, shown = source
    for found in (load(folder, tmp_path), load(folder, tmp_path)):
        assert np.array_equal(found.images, shown)
        assert found.labels.tolist() == [3, 4, 5, 6, 7]
        assert found.peak == 255
    assert isinstance(found.images, np.memmap)  # the second time, from the cache
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]  # nothing temporary is left


def test_inner_folder_is_accepted(source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    assert len(load(source[0] / "mnist", tmp_path)) == 5


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: raw[:50], lambda raw: b"", lambda raw: b"x" * 999]
)
def test_damaged_cache_is_built_again(damage, source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    load(source[0], tmp_path)
    (cached,) = (tmp_path / "cache").iterdir()
    whole = cached.read_bytes()
    cached.write_bytes(damage(whole))
    assert np.array_equal(load(source[0], tmp_path).images, source[1])
    assert cached.read_bytes() == whole


def test_cache_of_another_layout_is_built_again(source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    load(source[0], tmp_path)
    (cached,) = (tmp_path / "cache").iterdir()
    with cached.open("wb") as file:
        np.save(file, np.zeros(5))
    assert np.array_equal(load(source[0], tmp_path).images, source[1])


def test_changed_source_is_read_anew(source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    load(source[0], tmp_path)
    other = pixels(3, seed=1)
    write(source[0], [(encoded(image), 0) for image in other])
    assert np.array_equal(load(source[0], tmp_path).images, other)


def test_cache_that_cannot_be_written_warns_and_goes_on(source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="name a writable cache folder"):
        found = load(source[0], tmp_path)
    assert np.array_equal(found.images, source[1])


@pytest.mark.bad_input
def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'train' and 'test'; got split='valid'"):
        load(tmp_path, tmp_path, split="valid")


def test_absent_folder_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no mnist/train-00000-of-00001\.parquet in .*without a folder it is"):
        load(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_truncated_parquet(keep: float, source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path = source[0] / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if keep >= 1 else int(keep * len(whole))])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"not a readable parquet file .*fetch it again"):
        load(source[0], tmp_path)
    assert not (tmp_path / "cache").exists()


def test_wrong_columns(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.parent.mkdir()
    pq.write_table(pa.table({"img": [1], "label": [2]}), path)
    with pytest.raises(ValueError, match=r"needs the columns 'image' and 'label'; it has \['img', 'label'\]"):
        load(tmp_path, tmp_path)
    pq.write_table(pa.table({"image": [b"raw"], "label": [2]}), path)
    with pytest.raises(ValueError, match="column 'image' must be a struct with the binary field 'bytes'; it is binary"):
        load(tmp_path, tmp_path)
    pq.write_table(pa.table({"image": [{"bytes": "text"}], "label": [2]}), path)
    with pytest.raises(ValueError, match="must be a struct with the binary field 'bytes'; it is struct<bytes: string>"):
        load(tmp_path, tmp_path)
    pq.write_table(pa.table({"image": [{"bytes": b""}], "label": ["2"]}), path)
    with pytest.raises(ValueError, match="column 'label' must be integers; it is string"):
        load(tmp_path, tmp_path)
    pq.write_table(
        pa.table({"image": pa.array([], pa.struct([("bytes", pa.binary())])), "label": pa.array([], pa.int8())}), path
    )
    with pytest.raises(ValueError, match="has no rows"):
        load(tmp_path, tmp_path)


GOOD = encoded(pixels(1)[0])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((b"not an image", 1), "row 1: the bytes are not an image"),
        ((None, 1), "row 1: the bytes are not an image"),
        ((GOOD[:200], 1), "row 1: the bytes are not an image"),
        ((encoded(pixels(1)[0][:20]), 1), "row 1: expected a grey .* 28x28 pixels; got mode L, 28x20"),
        ((encoded(np.zeros((SIDE, SIDE, 3), np.uint8)), 1), "row 1: expected a grey .* got mode RGB, 28x28"),
        ((GOOD, 10), "row 1: labels are 0 to 9; got 10"),
        ((GOOD, -1), "row 1: labels are 0 to 9; got -1"),
        ((GOOD, None), "row 1: labels are 0 to 9; got None"),
    ],
)
def test_bad_row_is_named(row: tuple[bytes | None, int | None], message: str, tmp_path: Path) -> None:
    write(tmp_path, [(GOOD, 0), row])
    with pytest.raises(ValueError, match=message):
        load(tmp_path, tmp_path)


class Hub:
    """A server on this machine that answers as the public hub does: a redirect with the digest, then the file."""

    def __init__(self, content: bytes) -> None:
        self.content, self.sent, self.digest, self.requests = content, content, hashlib.sha256(content).hexdigest(), 0
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests += 1
                if not self.path.startswith("/stored"):
                    self.send_response(302)
                    self.send_header("Location", "/stored" + self.path)
                    self.send_header("X-Linked-Size", str(len(hub.content)))
                    self.send_header("X-Linked-ETag", f'"{hub.digest}"')
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(hub.content)))
                self.end_headers()
                self.wfile.write(hub.sent)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(source: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub((source[0] / NAME).read_bytes())
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(_hub, "HUB", hub.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()


def download(tmp_path: Path) -> images.LabelledImages:
    return load_mnist(cache=tmp_path / "cache", progress=False)


def test_download_is_checked_and_kept(hub: Hub, source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    assert np.array_equal(download(tmp_path).images, source[1])
    asked = hub.requests
    assert np.array_equal(download(tmp_path).images, source[1])
    assert hub.requests == asked


def test_download_without_a_digest_is_accepted(hub: Hub, tmp_path: Path) -> None:
    hub.digest = "an-etag"
    assert len(download(tmp_path)) == 5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda hub: setattr(hub, "sent", hub.content[:-10]), "bytes of"),
        (lambda hub: setattr(hub, "sent", hub.content[:-1] + b"!"), "SHA-256"),
        (lambda hub: setattr(hub, "sent", b"<html>log in</html>".ljust(len(hub.content))), "not a parquet file"),
    ],
)
def test_broken_download_leaves_nothing(change, reason: str, hub: Hub, tmp_path: Path) -> None:
    change(hub)
    with pytest.raises(ConnectionError, match=rf"could not be downloaded from http://.*{reason}.*folder="):
        download(tmp_path)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_offline_names_the_folder_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "HUB", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ConnectionError, match=r"could not be downloaded .*; give a folder \(folder=\)") as error:
        download(tmp_path)
    assert "\n" not in str(error.value)


COLOUR = {
    "svhn": (load_svhn, "cropped_digits", "image", "ufldl-stanford/svhn"),
    "cifar10": (load_cifar10, "plain_text", "img", "uoft-cs/cifar10"),
}


def coloured(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", COLOUR)
def test_colour_images_are_decoded_once_and_then_mapped(name: str, tmp_path: Path) -> None:
    load_colour, inner, column, _ = COLOUR[name]
    shown = coloured(4)
    rows: list[tuple[bytes | None, int | None]] = [(encoded(image), 9 - i) for i, image in enumerate(shown)]
    write(tmp_path / "source", rows, f"{inner}/test-00000-of-00001.parquet", column)
    for folder in (tmp_path / "source", tmp_path / "source" / inner):
        found = load_colour(folder, split="test", cache=tmp_path / "cache", progress=False)
        assert np.array_equal(found.images, shown)
        assert found.labels.tolist() == [9, 8, 7, 6]
    assert isinstance(found.images, np.memmap)
    assert found.side == 32
    stored, labels = found.bytes([3, 1])
    assert np.array_equal(stored.numpy(), shown[[3, 1]].transpose(0, 3, 1, 2))
    assert labels.tolist() == [6, 8]
    scaled, _ = found.tensors([3, 1])
    assert np.allclose(scaled.numpy() * 255, stored.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", COLOUR)
def test_grey_images_are_no_colour_images(name: str, tmp_path: Path) -> None:
    load_colour, inner, column, repository = COLOUR[name]
    write(tmp_path, [(encoded(coloured(1)[0, :, :, 0]), 1)], f"{inner}/train-00000-of-00001.parquet", column)
    with pytest.raises(ValueError, match=r"row 0: expected a colour \(mode RGB\) image of 32x32 .* got mode L, 32x32"):
        load_colour(tmp_path, cache=tmp_path / "cache", progress=False)
    with pytest.raises(FileNotFoundError, match=rf"no {inner}/test-00000-of-00001\.parquet .*{repository}"):
        load_colour(tmp_path, split="test", cache=tmp_path / "cache", progress=False)


def test_colour_images_are_downloaded_into_a_folder_of_their_own(hub: Hub, tmp_path: Path) -> None:
    """The two repositories must not share a path in the cache, and the request names the repository."""
    write(tmp_path, [(encoded(coloured(1)[0]), 1)], "x.parquet", "img")
    hub.content = hub.sent = (tmp_path / "x.parquet").read_bytes()
    hub.digest = hashlib.sha256(hub.content).hexdigest()
    assert len(load_cifar10(cache=tmp_path / "cache", progress=False)) == 1
    assert (tmp_path / "cache" / "cifar10" / "plain_text" / "train-00000-of-00001.parquet").is_file()


@pytest.mark.skipif(
    not (DATA / "cifar10").is_dir(), reason="no CIFAR-10: set IL2O_DATA to a folder with cifar10/plain_text/*.parquet"
)
def test_real_cifar10(tmp_path: Path) -> None:
    test = load_cifar10(DATA / "cifar10", split="test", cache=tmp_path / "cache", progress=False)
    assert test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    # The mean of the test set as PNG is 0.4942, 0.4851, 0.4504; the copy may be encoded as JPEG.
    assert test.images.mean((0, 1, 2)) / 255 == pytest.approx([0.4942, 0.4851, 0.4504], abs=2e-3)


@pytest.mark.skipif(
    not (DATA / "mnist").is_dir(), reason="no MNIST: set IL2O_DATA to a folder that holds mnist/mnist/*.parquet"
)
def test_real_mnist(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        test = load(DATA / "mnist", tmp_path, split="test")
    assert test.images.shape == (10_000, SIDE, SIDE)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert test.images.mean() == pytest.approx(33.79, abs=0.01)
