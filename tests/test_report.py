"""The report of a run: whole, self-contained, inert whatever the names are, and readable when files are missing."""

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from implicit_l2o.report import figures, numbers, write_json, write_text
from implicit_l2o.report.formula import mathml
from implicit_l2o.report.html import build_report, build_summary, script_json
from implicit_l2o.report.svg import inline, save_svg, to_svg
from run_folder import CONFIG, make_run_folder, make_summary_folder

VOID = {"meta", "link", "br", "img", "input", "hr"}
EVIL = '</script><script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>&amp;\'"'


class Page(HTMLParser):
    """A page taken apart: its texts, attributes and scripts; every element must be closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(path.read_text())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        {"script": self.scripts, "style": self.styles}.get(inside, self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def samples(self) -> dict[str, Any]:
        return json.loads(self.scripts[-2])

    def loads(self) -> list[str]:
        """Whatever a browser would fetch: all but data and places in the page."""
        found = [
            f"{tag} {name}={value}"
            for tag, attrs in self.tags
            for name, value in attrs.items()
            if name in ("src", "href", "srcset", "data", "poster", "action", "background", "xlink:href")
            and not (value or "").startswith(("data:", "#"))
        ]
        found += [str(attrs) for tag, attrs in self.tags if tag in ("iframe", "object", "embed", "base", "form")]
        inside = " ".join([*self.styles, *(attrs.get("style") or "" for _, attrs in self.tags)])
        return found + re.findall(r"@import[^;]*|url\((?!#)[^)]*\)", inside)


def ids(page: Page) -> list[str]:
    return [str(attrs["id"]) for _, attrs in page.tags if "id" in attrs]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run_folder(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(build_report(run))


def test_the_page_is_self_contained(page: Page) -> None:
    assert page.loads() == []
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|WebSocket|sendBeacon)\b *\(", " ".join(page.scripts))
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_ids_are_unique_and_every_link_in_the_page_leads_somewhere(page: Page) -> None:
    known = ids(page)
    assert len(known) == len(set(known))
    targets = [value[1:] for _, attrs in page.tags if (value := attrs.get("href") or "").startswith("#")]
    targets += re.findall(
        r"url\(#([^)]+)\)", " ".join(str(value) for _, attrs in page.tags for value in attrs.values())
    )
    assert set(targets) <= set(known)


def test_every_figure_is_a_well_formed_drawing_with_a_label(run: Path) -> None:
    drawings = re.findall(r"<svg (?:(?!class).)*?</svg>", (run / "report.html").read_text(), re.DOTALL)
    assert len(drawings) == 18  # 4 training, 2 + 5 solver, 3 certificates, 3 examples and one more figure
    for drawing in drawings:
        root = ET.fromstring(drawing)
        assert root.get("aria-label")
        assert "currentColor" in drawing
        assert "#010203" not in drawing


def test_all_data_are_present(run: Path, page: Page) -> None:
    results = json.loads((run / "results.json").read_text())
    for said in (
        results["title"],
        results["summary"],
        results["command"],
        results["git_commit"],
        *results["guarantees"],
        *results["labels"].values(),
        *results["certificates"],
        *(f"{name} {version}" for name, version in results["versions"].items()),
        *(str(count) for counts in results["certificates"].values() for count in counts.values()),
        *(word for figure in results["figures"] for word in (figure["title"], figure["caption"])),
        *("seed 0", "complete", "35,856", "512 ms", "1 min 1 s", "5.6 MB", "after epoch 9", "0.9800", "0.9100"),
        *("Loss", "Accuracy", "Distance", "Iterations", "Residual", "Share converged", "Contraction estimate"),
        *("Gradient cosine", "calibrated on 400 values", "Best", "Median", "Worst"),
    ):
        assert said.lower() in page.text.lower()
    assert " ".join(CONFIG.split()) in page.text


def test_the_sample_table_holds_every_sample(run: Path, page: Page) -> None:
    stored = json.loads((run / "certificates.json").read_text())["samples"]
    columns = {column["name"]: column for column in page.samples["columns"]}
    assert page.samples["count"] == 200
    assert [["PASS", "WARN", "FAIL"][code] for code in columns["verdict"]["values"]] == stored["worst"]
    assert [columns["status"]["words"][code] for code in columns["status"]["values"]] == stored["status"]
    assert columns["iterations"]["values"] == stored["steps"]
    for name, values in [("residual", stored["residual"]), ("error", stored["error"]), *stored["values"].items()]:
        assert columns[name]["values"] == [v if v is None else pytest.approx(v, rel=1e-5) for v in values]
    for name, labels in stored["labels"].items():
        assert [["PASS", "WARN", "FAIL"][int(code)] for code in columns[name]["verdicts"]] == labels
    assert len(columns["target"]["values"]) == 200


def test_a_better_baseline_is_the_bold_one_and_what_is_missing_is_a_dash(tmp_path: Path) -> None:
    test = {"model": {"accuracy": 0.5, "distance": None}, "constant": {"accuracy": 0.75, "distance": 2.0}}
    html = build_report(make_run_folder(tmp_path, samples=8, changes={"test": test})).read_text()
    bold = re.findall(r"<strong>([^<]*)<span class=\"sr\"> \(best\)", html)
    assert bold == ["0.7500"]  # one value alone is not the best of anything
    assert f'<td class="num">{numbers.MISSING}</td>' in html


def test_what_a_training_cost_stands_beside_the_scores(page: Page) -> None:
    """Of the model and the trained baseline; the constant predictor has a dash."""
    text = " ".join(page.text.split())
    assert re.search(r"method .*?parameters time per epoch peak memory", text)
    assert re.search(r"two-stage regression .*?35,000 310 ms 4.0 MB", text)


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path, samples=20, status="failed", changes={"failure": "No space left <on> device."})
    assert "This run failed. No space left <on> device." in " ".join(Page(build_report(run)).text.split())


def test_the_test_is_no_curve_of_the_training(tmp_path: Path) -> None:
    run = make_run_folder(tmp_path, samples=20)
    rows = (run / "metrics.csv").read_text().splitlines()
    table = [f"{rows[0]},test/accuracy,lr", *(f"{row},0.5,0.01" for row in rows[1:])]
    (run / "metrics.csv").write_text("\n".join(table))
    text = build_report(run).read_text()
    assert "test/accuracy" not in text
    assert "learning rate" in text


def test_rebuilding_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", samples=8)
    before = build_report(folder).read_bytes()
    names = sorted(path.name for path in folder.iterdir())
    assert build_report(folder).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == names
    assert str(tmp_path).encode() not in before


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("config.yaml", None),
        *(
            (name, keep)
            for name in ("metrics.csv", "certificates.json", "predictions.npz")
            for keep in (None, 0.0, 0.6)
        ),
    ],
)
def test_an_interrupted_run_gets_a_report_that_says_what_is_absent(
    tmp_path: Path, name: str, keep: float | None
) -> None:
    changes = {"test": {}, "figures": [], "examples": []}
    folder = make_run_folder(tmp_path, samples=8, properties=("a",), status="interrupted", changes=changes)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep is not None:
        (folder / name).write_bytes(content[: int(keep * len(content))])
    page = Page(build_report(folder))
    assert "This run was interrupted." in page.text
    assert "There are no test results" in page.text
    assert re.search(rf"{re.escape(name)} (is|has|cannot)|last line of {re.escape(name)}", page.text)


def test_results_alone_are_enough(tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", {})
    page = Page(build_report(tmp_path))
    assert "Untitled run" in page.text
    assert page.loads() == []


def test_a_folder_without_results_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no results\.json: a run folder has results\.json and") as caught:
        build_report(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"no summary\.json: a folder of several seeds has"):
        build_summary(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no results\.json"):
        build_report(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["", '{"name": "dig', "[]", "\x00", "[" * 100_000])
def test_damaged_results_are_named_in_one_line(tmp_path: Path, content: str) -> None:
    for name, build in (("results.json", build_report), ("summary.json", build_summary)):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=re.escape(name)) as caught:
            build(tmp_path)
        assert "\n" not in str(caught.value)


def test_no_name_can_act(tmp_path: Path) -> None:
    """Every text that a run or a user can choose, at once."""
    evil = {
        **dict.fromkeys(("name", "title", "summary", "command", "monitor", "git_commit", "date"), EVIL),
        "problem": rf"\text{{{EVIL}}} + x",
        "guarantees": [EVIL],
        "metrics": {EVIL: {"better": EVIL, "label": EVIL}},
        "test": {"model": {EVIL: 1.0}, EVIL: {EVIL: 2.0}},
        "labels": {EVIL: EVIL},
        "certificates": {EVIL: {"PASS": 1, "WARN": 0, "FAIL": 0}},
        "examples": [{"kind": EVIL, "index": 0, "error": 0.1, "figure": EVIL}],
        "figures": [{"file": EVIL, "title": EVIL, "caption": EVIL}],
        "extra": {EVIL: EVIL},
        "machine": {EVIL: EVIL},
        "versions": {EVIL: EVIL},
    }
    folder = make_run_folder(tmp_path, samples=8, properties=(EVIL,), metrics=(EVIL,), changes=evil)
    (folder / "config.yaml").write_text(EVIL)
    page = Page(build_report(folder))
    assert page.loads() == []
    assert len(page.scripts) == 3  # the two of the page, and the data
    assert [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)] == []
    assert page.samples["columns"][-1]["name"] == EVIL
    assert EVIL in page.text


TEXTS = st.text(max_size=20) | st.sampled_from([EVIL, "{{ 7 * 7 }}", "{% raw %}", "$x$", "\x00\x1b[0m", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    "name title summary problem guarantees status seed command metrics test labels monitor best_epoch epochs parameters "
    "seconds_per_epoch peak_memory seconds solver certificates trusted examples figures extra machine versions "
    "git_commit date"
)


@settings(max_examples=60)
@given(results=st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS.split(), VALUES)))
def test_any_results_make_a_whole_page(tmp_path_factory: pytest.TempPathFactory, results: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "results.json").write_text(json.dumps(results))
    assert Page(build_report(folder)).loads() == []


COLUMN = st.lists(st.none() | st.floats(-1e9, 1e9) | st.sampled_from([0, 1, "PASS", "FAIL", EVIL]), max_size=4)
LIMITS = st.lists(st.floats(-10, 10), min_size=1, max_size=3)


@settings(max_examples=40)
@given(
    samples=st.dictionaries(st.sampled_from(["status", "converged", "residual", "steps", "error", "worst"]), COLUMN),
    values=st.dictionaries(st.sampled_from(["a", "b"]), COLUMN),
    labels=st.dictionaries(st.sampled_from(["a", "c"]), COLUMN),
    limits=st.dictionaries(st.sampled_from(["a", "b"]), LIMITS),
    rule=st.fixed_dictionaries({}, optional={"limit": VALUES, "above": VALUES, "values": COLUMN, "p_pass": VALUES}),
)
def test_any_certificates_make_a_whole_page(
    tmp_path_factory: pytest.TempPathFactory, samples: Any, values: Any, labels: Any, limits: Any, rule: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write_json(folder / "results.json", {"title": "any"})
    content = {"rules": {"a": rule}, "limits": limits, "samples": {**samples, "values": values, "labels": labels}}
    (folder / "certificates.json").write_text(json.dumps(content))
    assert Page(build_report(folder)).loads() == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "step,epoch\n",
        "step,epoch,val/loss\n0,0,\n",
        "val/loss\n1\n2\n",
        "epoch,val/loss\n0,1\n1,nan\n2,inf\n",
        "step,epoch,train/loss,solver/residual,solver/odd <b>\n0,0,1e300,0,5\n5,0,1e-300,0,5\n",
        "step,train/loss\n3,1\n1,2\n2\n2,3,4,5\n",
        "\x00\xff,\x00\n1,2\n",
    ],
)
def test_any_metrics_make_a_whole_page(tmp_path: Path, content: str) -> None:
    write_json(tmp_path / "results.json", {"best_epoch": 1})
    (tmp_path / "metrics.csv").write_text(content)
    assert Page(build_report(tmp_path)).loads() == []


def test_a_figure_outside_the_folder_or_of_another_kind_is_not_embedded(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    files = ["../secret.png", str(secret), "results.json", "figures/none.svg", "figures/answers.png"]
    shown = [{"file": file, "title": file, "caption": ""} for file in files]
    page = Page(build_report(make_run_folder(tmp_path / "run", samples=8, changes={"figures": shown, "examples": []})))
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert [attrs["alt"] for attrs in pictures] == ["figures/answers.png"]
    assert page.text.count("it lies outside the run folder") == 2
    assert "results.json is not shown: it is neither SVG nor PNG nor JPEG" in page.text
    assert "The figure figures/none.svg is absent." in page.text


def test_a_foreign_drawing_stays_a_picture_and_a_broken_one_is_noted(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path, samples=8)
    (folder / "figures" / "example_best.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    )
    (folder / "figures" / "example_worst.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><g>')
    page = Page(build_report(folder))
    assert [attrs["class"] for tag, attrs in page.tags if tag == "img"] == ["paper"] * 3  # shown twice, and the PNG
    assert "The figure figures/example_worst.svg is no complete SVG." in page.text
    assert len(page.scripts) == 3


def test_what_acts_is_taken_out_of_a_drawing() -> None:
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="10pt" height="5pt" '
        'onload="x()"><style>*{}</style><script>x()</script><a xlink:href="http://x"><rect/></a><foreignObject/>'
        '<image xlink:href="http://x/y.png"/><image xlink:href="data:image/svg+xml;base64,AA=="/>'
        '<image xlink:href="data:image/png;base64,AA=="/><path id="p" d="M 0.123456 1" onclick="x()"/>'
        '<use xlink:href="#p" style="fill: url(http://x)"/><g clip-path="url(#p)"/><text>a &lt; b</text></svg>'
    )
    assert inline(drawing, label="<", key="k") == (
        '<svg viewBox="0 0 10 5" width="13" role="img" aria-label="&lt;" stroke-linejoin="round"><image></image>'
        '<image></image><image href="data:image/png;base64,AA=="></image><path id="k-p" d="M 0.12 1"></path>'
        '<use href="#k-p"></use><g clip-path="url(#k-p)"></g><text>a &lt; b</text></svg>'
    )


@pytest.mark.parametrize(
    "text", ["", "<svg", "<html/>", '<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg"/>']
)
def test_what_is_no_drawing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SVG"):
        inline(text, label="", key="k")


def test_a_saved_drawing_is_a_file_of_its_own_and_the_same_each_time(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [0, 1], color="#0072b2")
    save_svg(figure, tmp_path / "a b.svg", label="a line")
    first = (tmp_path / "a b.svg").read_text()
    save_svg(figure, tmp_path / "a b.svg", label="a line")
    assert (tmp_path / "a b.svg").read_text() == first
    assert ET.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--blue, #0072b2)" in to_svg(figure, label="", key="k")


@pytest.mark.parametrize(
    ("latex", "part"),
    [
        (r"\operatorname*{argmin}_{x \in C} f(x)", "<munder><mo"),
        (r"\arg\min_x f", "argmin"),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "<mtable"),
        (r"\mathbf{1}^\top x", "\N{MATHEMATICAL BOLD DIGIT ONE}"),
        (r"\boldsymbol{\theta}", "\N{MATHEMATICAL BOLD ITALIC SMALL THETA}"),
        (r"x < y", "&lt;"),
    ],
)
def test_formulas_are_what_a_browser_draws(latex: str, part: str) -> None:
    drawn = mathml(latex)
    assert drawn is not None
    assert part in drawn
    assert ET.fromstring(drawn).tag == "{http://www.w3.org/1998/Math/MathML}math"


@pytest.mark.parametrize("latex", ["", " ", r"\frac{", r"\nosuchcommand x", r"\begin{array}"])
def test_what_cannot_be_drawn_is_shown_as_latex(tmp_path: Path, latex: str) -> None:
    assert mathml(latex) is None
    write_json(tmp_path / "results.json", {"problem": latex})
    assert latex.strip() in Page(build_report(tmp_path)).text


@given(latex=st.text(alphabet="x\\{}^_&<>\"'$%~ abmtexhrfsyl123\x00", max_size=30))
def test_no_formula_can_act(latex: str) -> None:
    drawn = mathml(latex)
    if drawn is not None:
        for element in ET.fromstring(drawn).iter():
            assert element.tag.startswith("{http://www.w3.org/1998/Math/MathML}m")
            assert {"href", "style", "class", "id"}.isdisjoint(element.attrib)


@given(
    content=st.recursive(
        st.none() | st.floats(-1e9, 1e9) | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
    )
)
def test_json_in_a_script_is_safe_and_whole(content: Any) -> None:
    written = script_json(content)
    assert json.loads(written) == content
    assert not set("<>&\u2028\u2029") & set(written)


@given(value=st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf, -math.inf]))
def test_numbers_are_close_to_what_they_say(value: float) -> None:
    written = numbers.value(value)
    if math.isfinite(value):
        assert float(written) == pytest.approx(value, rel=6e-4, abs=0)
        assert len(written) <= 11
    else:
        assert written == numbers.MISSING


@given(values=st.lists(st.none() | st.floats(-1e6, 1e6), max_size=6))
def test_a_column_never_hides_a_value(values: list[float | None]) -> None:
    for value, written in zip(values, numbers.column(values), strict=True):
        assert (written == numbers.MISSING) == (value is None)
        if value:
            assert float(written) != 0


@settings(max_examples=25)
@given(
    values=st.lists(st.none() | st.floats(allow_nan=True, allow_infinity=True), max_size=8),
    limits=st.none() | st.tuples(st.floats(-1e3, 1e3), st.floats(0, 10)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    log=st.sampled_from([None, True, False]),
)
def test_any_values_have_a_histogram(
    values: list[float | None], limits: tuple[float, float] | None, log: bool | None
) -> None:
    ET.fromstring(figures.histogram(values, key="k", label="", xlabel="x", limits=limits, log=log, reference=values))


def test_a_long_curve_is_thinned(tmp_path: Path) -> None:
    x = np.arange(100_000.0)
    drawing = figures.curves([figures.Series("", x, np.sin(x))], key="k", label="", xlabel="step")
    assert len(drawing) < 60_000


def test_the_report_of_several_seeds(tmp_path: Path) -> None:
    folder = make_summary_folder(tmp_path, samples=8)
    first = build_summary(folder).read_bytes()
    page = Page(folder / "report.html")
    assert page.loads() == [f"a href=seed_{seed}/report.html" for seed in (0, 1, 2)]
    for said in ("0.9700 ± 0.0248", "510 ms ± 24.8 ms", "0.9800 0.9700 0.9600", "two-stage regression", "4c487bc0ffee"):
        assert said in page.text
    assert build_summary(folder).read_bytes() == first


@settings(max_examples=40)
@given(
    summary=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["title", "seeds", "metrics", "labels", "test", "numbers", "machine"], VALUES)
    )
)
def test_any_summary_makes_a_whole_page(tmp_path_factory: pytest.TempPathFactory, summary: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "summary.json").write_text(json.dumps(summary))
    assert Page(build_summary(folder)).loads() == []


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "new" / "a.txt", "old ✓\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "new" / "a.txt", "half")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "old ✓\n"
