"""The player's page in a real Chromium: it unpacks what was packed, plays it, and loads nothing."""

import base64
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from implicit_l2o.report.numbers import MISSING
from implicit_l2o.report.player import PlayedGradient, PlayedRun, PlayedSample, build_player, pack, window

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
ARGUMENTS += ("--disable-sync", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions")
EVIL = "</script><script>document.title = 'acted'</script><img src=x onerror=\"document.title = 'acted'\">"
FRAMES = 8
PIXELS = {"kind": "pixels", "height": 2, "width": 3, "colours": False, "heat": False, "low": 0.0, "high": 1.0}
EDGES = {
    "kind": "edges",
    "box": [1.0, 1.0],
    "lines": [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0]],
    "marks": [["s", 0, 0]],
}
BARS = {"kind": "bars", "names": [], "low": None, "high": None}
SIZES = {"pixels": 6, "edges": 2, "bars": 4}


def sample(picture: dict[str, Any], *, index: int = 0, name: str = "JFB") -> PlayedSample:
    size = SIZES[picture["kind"]]
    rng = np.random.default_rng(index)
    target = rng.uniform(0, 1, size)
    shrink = 10.0 ** -np.arange(FRAMES)
    return PlayedSample(
        index=index,
        note="best",
        ending="Converged after 14 iterations.",
        steps=[2 * k for k in range(FRAMES)],
        residual=shrink.tolist(),
        tolerance=1e-5,
        solved=[bool(residual <= 1e-5) for residual in shrink],
        violation=[0.1, *[0.0] * (FRAMES - 1)],
        values=[shrink.tolist(), [float("nan")] * FRAMES],
        labels=[[2, 2, 1, 1, 0, 0, 0, 0], [2] * FRAMES if index else [0] * FRAMES],
        frames=target + shrink[:, None] * (0.5 - target),
        target=target,
        inputs=None,
        gradients=[
            PlayedGradient(name=name, values=np.linspace(-1, 1, size), norm=2.0, solved=True),
            PlayedGradient(name="Implicit", values=None, norm=0.0, solved=False),
        ],
        cosine=0.25,
        remarks=["A remark."],
    )


def player(picture: dict[str, Any], *, word: str = "doubt") -> PlayedRun:
    return PlayedRun(
        title=f"Player {word}",
        name=word,
        values_name=word,
        parameters_name=word,
        picture=picture,
        gradient=picture | {"low": None, "high": None},
        properties=["distance", word],
        limits=[(1e-4, 1e-2), (1.0, float("inf"))],
        samples=[sample(picture, index=0, name=word), sample(picture, index=7, name=word)],
    )


def unpacked(packed: dict[str, Any]) -> np.ndarray:
    """As the page's script does it."""
    differences = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), dtype=np.uint8)
    levels = np.cumsum(differences.reshape(packed["count"], packed["size"]), axis=0, dtype=np.uint8)
    return packed["low"] + (packed["high"] - packed["low"]) * levels / 255


def test_packed_frames_are_those_that_were_given() -> None:
    frames = np.random.default_rng(0).normal(size=(20, 50))
    found = unpacked(pack(frames, -5.0, 5.0))
    assert np.abs(found - frames).max() <= 10 / 255 / 2 + 1e-12
    assert unpacked(pack(np.array([[np.nan, np.inf, -np.inf, 9.0]]), 0.0, 2.0)).tolist() == [[0.0, 2.0, 0.0, 2.0]]


def test_frames_that_rest_cost_next_to_nothing() -> None:
    frames = np.repeat(np.random.default_rng(0).uniform(size=(1, 4096)), 60, axis=0)
    assert len(pack(frames, 0.0, 1.0)["data"]) < 7000


def test_an_early_excursion_does_not_flatten_the_rest() -> None:
    frames = np.array([[0.0, 1e6], [0.0, 1.0]])
    assert window(frames, None, {}) == (0.0, 2.0)
    assert window(frames, np.array([-1.0, 0.0]), {"high": 3.0}) == (-1.0, 3.0)
    assert window(np.full((2, 3), 4.0), None, {}) == (4.0, 5.0)
    assert window(np.full((2, 3), np.nan), None, {}) == (0.0, 1.0)


@pytest.mark.bad_input
def test_a_page_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        build_player(
            PlayedRun(title="", name="", values_name="", parameters_name="", picture=BARS), tmp_path / "a.html"
        )


# In the browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)} is on the path")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def view(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a player; at the end nothing was said on the console, nothing failed, nothing else was requested."""
    contexts, said, requested, opened = [], [], [], []

    def show(run: PlayedRun, *, width: int = 1200, height: int = 900, **options: Any) -> Any:
        path = build_player(run, tmp_path / f"{len(contexts)}.html")
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        opened.append(path.as_uri())
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield show
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in requested if not url.startswith(("data:", "blob:"))} == set(opened)


def at(page: Any) -> int:
    return int(page.locator("#slider").input_value())


def seek(page: Any, k: int) -> None:
    page.locator("#slider").fill(str(k))


def levels(page: Any, place: int) -> list[int]:
    """The red channel of a canvas."""
    return page.evaluate(
        """(place) => {
            const shown = document.querySelectorAll('#tiles canvas')[place];
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [shown.width, shown.height];
            canvas.getContext('2d').drawImage(shown, 0, 0);
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            return [...data].filter((_, i) => i % 4 === 0);
        }""",
        place,
    )


def test_images_have_the_greys_of_their_frame(view: Any) -> None:
    page, given = view(player(PIXELS)), sample(PIXELS)
    assert given.target is not None
    for k in (FRAMES - 1, 0, 3):
        seek(page, k)
        assert np.abs(np.array(levels(page, 0)) - 255 * given.frames[k]).max() <= 1
    assert np.abs(np.array(levels(page, 1)) - 255 * given.target).max() <= 1
    seek(page, FRAMES - 1)
    assert min(levels(page, 2)) > 240  # no difference: the colour of the paper


def test_edges_are_as_wide_as_their_values(view: Any) -> None:
    page, given = view(player(EDGES)), sample(EDGES)
    seek(page, 2)
    widths = page.evaluate(
        """() => [...document.querySelectorAll('#tiles figure:first-child .edge:not(.under)')]
            .map((edge) => Number(edge.getAttribute('stroke-width')))"""
    )
    assert widths[0] / widths[1] == pytest.approx(given.frames[2][0] / given.frames[2][1], rel=0.05)
    assert page.locator("#tiles figure").count() == 3
    assert page.locator("#tiles .place-text").first.text_content() == "s"


def test_bars_are_as_high_as_their_values(view: Any) -> None:
    page, given = view(player(BARS)), sample(BARS)
    seek(page, 1)
    heights = page.evaluate(
        "() => [...document.querySelectorAll('#tiles rect.bar')].map((bar) => Number(bar.getAttribute('height')))"
    )
    assert np.array(heights) / max(heights) == pytest.approx(given.frames[1] / given.frames[1].max(), abs=0.02)
    assert page.locator("#tiles rect.goal").count() == 4


def test_labels_turn_with_the_iteration(view: Any) -> None:
    page = view(player(EDGES))
    for k, first, second, worst in (
        (0, "FAIL", "FAIL", "FAIL"),
        (3, "FAIL", "WARN", "FAIL"),
        (7, "PASS", "PASS", "PASS"),
    ):
        seek(page, k)
        rows = page.locator("#judged tbody tr .verdict").all_inner_texts()
        assert rows == [first, second, "PASS"]
        assert page.locator("#verdict").inner_text() == f"{worst} at iteration {2 * k}"
        assert page.locator("#now").inner_text() == f"iteration {2 * k} of 14"
    value = page.locator("#slider").get_attribute("aria-valuetext")
    assert value == "iteration 14: residual 1.000e-7, 2 of 2 certificates pass"
    assert page.locator("#judged tbody tr").nth(2).locator("td").nth(2).inner_text() == MISSING


def test_it_opens_at_the_end_and_plays_from_the_start(view: Any) -> None:
    page = view(player(BARS))
    assert at(page) == FRAMES - 1
    assert page.locator("#forth").is_disabled()
    page.locator("#speed").select_option("30")
    page.locator("#play").click()
    assert page.locator("#play").inner_text() == "Pause"
    page.locator("#play", has_text="Play").wait_for()
    assert at(page) == FRAMES - 1
    page.locator("#speed").select_option("4")
    page.locator("#play").click()
    page.locator("#play").click()
    assert at(page) < FRAMES - 1


def test_the_keyboard_steps_and_plays(view: Any) -> None:
    page = view(player(BARS))
    page.locator("#slider").focus()
    for key, place in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", FRAMES - 1)):
        page.keyboard.press(key)
        assert at(page) == place
    page.keyboard.press("Space")
    assert page.locator("#play").inner_text() == "Pause"
    page.keyboard.press("Space")
    assert page.locator("#play").inner_text() == "Play"
    page.locator("#back").focus()
    seek(page, 5)
    page.locator("#back").press("Enter")
    assert at(page) == 4


def test_a_click_on_a_curve_or_a_strip_leads_there(view: Any) -> None:
    page = view(player(BARS))
    strip = page.locator("#judged .strip").first
    box = strip.bounding_box()
    strip.click(position={"x": 2.5 / FRAMES * box["width"], "y": box["height"] / 2})
    assert at(page) == 2
    curve = page.locator("#panels svg").first
    box = curve.bounding_box()
    curve.click(position={"x": box["width"] - 3, "y": box["height"] / 2})
    assert at(page) == FRAMES - 1


def test_another_sample_is_another_solve(view: Any) -> None:
    page = view(player(PIXELS))
    seek(page, 5)
    page.get_by_role("radio", name="7 (best)").check(force=True)
    page.wait_for_selector("html[data-ready='1']")
    assert at(page) == 5
    assert np.abs(np.array(levels(page, 0)) - 255 * sample(PIXELS, index=7).frames[5]).max() <= 1
    assert page.locator("#judged tbody tr .verdict").all_inner_texts()[2] == "FAIL"


def test_two_gradients_and_the_angle_between_them(view: Any) -> None:
    page = view(player(PIXELS))
    assert page.locator("#cosine").inner_text().startswith("Cosine between doubt and Implicit: 0.2500.")
    assert page.locator("#modes canvas").count() == 1
    assert page.locator("#modes .absent").inner_text() == "There is no gradient."
    assert "adjoint equation not solved" in page.locator("#modes").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_images_follow_the_theme(view: Any, scheme: str) -> None:
    page = view(player(PIXELS), color_scheme=scheme)
    paper = min(levels(page, 2)) if scheme == "light" else max(levels(page, 2))
    assert (paper > 128) == (scheme == "light")
    page.evaluate("delete document.documentElement.dataset.ready")
    page.locator("#theme").click()
    page.wait_for_selector("html[data-ready]")
    other = min(levels(page, 2)) if scheme == "dark" else max(levels(page, 2))
    assert (other > 128) == (scheme == "dark")


@pytest.mark.parametrize("width", [320, 390, 768])
def test_no_player_scrolls_sideways(view: Any, width: int) -> None:
    for picture in (PIXELS, EDGES, BARS):
        page = view(player(picture, word="w" * 60), width=width, height=740)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_names_do_not_act(view: Any) -> None:
    page = view(player(EDGES, word=EVIL))
    assert page.title() == f"Player {EVIL}: iterations of {EVIL}"
    assert page.locator("#tiles h3").first.inner_text() == EVIL
    assert page.locator("#judged tbody tr").nth(2).locator("th").inner_text() == EVIL


def test_every_control_has_a_name(view: Any) -> None:
    page = view(player(PIXELS))
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, canvas, svg[role=img]')].filter((one) =>
            !(one.getAttribute('aria-label') || one.textContent.trim() || (one.labels && one.labels.length)))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_without_scripts_it_says_what_is_missing(view: Any) -> None:
    page = view(player(BARS), java_script_enabled=False)
    assert "which this browser does not run" in page.locator("noscript").inner_text()
    assert not page.locator("#transport").is_visible()
