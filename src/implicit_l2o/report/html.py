"""The report of a run: one HTML file from the files of its folder, with nothing to load and nothing to run.

`folder` reads the files, `sections`, `tables` and `panels` say what each section has, `templates/` lay it out.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from implicit_l2o.report import numbers, panels, sections, tables
from implicit_l2o.report.folder import RunFolder, mapping, read_object, read_run, sequence, text
from implicit_l2o.report.formula import mathml
from implicit_l2o.report.record import write_text
from implicit_l2o.report.svg import inline

_IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # no part of a page, and half of them no UTF-8
_SUMMARY_HOLDS = (
    "a folder of several seeds has summary.json, and each seed in seed_0/, seed_1/, ...; il2o run --seeds writes it."
)


def build_report(folder: Path) -> Path:
    """Write `report.html` into a run folder, from what the folder has, and return its path.

    The same files give the same bytes. Of the folder only results.json is needed: the report of an interrupted run
    says what is absent.

    Args:
        folder: as `il2o run` writes it.

    Raises:
        FileNotFoundError: the folder has no results.json.
        ValueError: results.json is not a complete JSON object.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from implicit_l2o.report import write_json
        >>> from implicit_l2o.report.html import build_report
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "results.json", {"title": "Paths", "status": "interrupted"})
        ...     print(build_report(Path(folder)).name)
        report.html
    """
    folder = Path(folder)
    run = read_run(folder)
    pictures = Pictures(folder)
    shown = [
        {
            "title": text(mapping(figure).get("title")),
            "caption": text(mapping(figure).get("caption")),
            "picture": pictures.embed(mapping(figure).get("file"), text(mapping(figure).get("title"))),
        }
        for figure in sequence(run.results.get("figures"))
    ]
    examples = sections.examples(run)
    for example in examples:
        example["picture"] = pictures.embed(example["file"], f"{example['kind']} inference")
    page = render(
        "report.html",
        title=text(run.results.get("title")) or text(run.results.get("name")) or "Untitled run",
        headline=sections.headline(run),
        formula=_formula(run.results.get("problem")),
        guarantees=[text(sentence) for sentence in sequence(run.results.get("guarantees"))],
        results=tables.result_table(run),
        training=panels.training(run),
        solver=panels.solver(run),
        examples=examples,
        first_figure=shown[0] if shown and shown[0]["picture"] else None,  # the one a reader should see at once
        figures=shown[1:] if shown and shown[0]["picture"] else shown,
        certificates=panels.certificates(run),
        samples=_samples(run),
        origin=sections.origin(run.results),
        config=run.config,
        notes=run.notes + pictures.notes,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def build_summary(folder: Path) -> Path:
    """Write `report.html` into the folder of several seeds, from its summary.json, and return its path.

    Args:
        folder: the parent of `seed_0/`, `seed_1/`, ..., as `il2o run --seeds` writes it.

    Raises:
        FileNotFoundError: the folder has no summary.json.
        ValueError: summary.json is not a complete JSON object.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from implicit_l2o.report import write_json
        >>> from implicit_l2o.report.html import build_summary
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "summary.json", {"title": "Paths", "seeds": [0, 1]})
        ...     print(build_summary(Path(folder)).name)
        report.html
    """
    folder = Path(folder)
    summary = read_object(folder, "summary.json", _SUMMARY_HOLDS)
    seeds = [text(seed) for seed in sequence(summary.get("seeds"))]
    page = render(
        "summary.html",
        title=text(summary.get("title")) or text(summary.get("name")) or "Untitled experiment",
        seeds=[
            {"seed": seed, "report": f"seed_{seed}/report.html" if _has_report(folder, seed) else None}
            for seed in seeds
        ],
        tables=tables.seed_tables(summary),
        measured=tables.seed_numbers(summary),
        origin=sections.origin(summary),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


class Pictures:
    """Figure files of a run as elements of the page; what cannot be embedded is noted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._embedded = 0
        self.notes: list[str] = []

    def embed(self, file: object, label: str) -> Markup | None:
        """The picture, or None where there is none; a file outside the folder is not touched.

        Args:
            file: relative to the folder.
            label: for those who cannot see it.
        """
        name = text(file)
        if not name:
            return None
        path = self._folder / name
        kind = _IMAGES.get(path.suffix.lower())
        try:
            inside = path.resolve().is_relative_to(self._folder.resolve())
            content = path.read_bytes() if inside and kind else None
        except (OSError, ValueError, RuntimeError):
            content = None
            self.notes.append(f"The figure {name} is absent.")
        else:
            if content is None:
                why = "it is neither SVG nor PNG nor JPEG" if inside else "it lies outside the run folder"
                self.notes.append(f"The figure {name} is not shown: {why}.")
        if not content:
            return None
        self._embedded += 1
        if kind == "image/svg+xml":
            return self._svg(content, name, label)
        return _image(content, str(kind), label)

    def _svg(self, content: bytes, name: str, label: str) -> Markup | None:
        """One drawn for a page (`save_svg`) becomes part of it; any other one stays a picture with colours of its own."""
        try:
            element = inline(content.decode("utf-8"), label=label, key=f"file{self._embedded}")
        except ValueError:  # no UTF-8 included
            self.notes.append(f"The figure {name} is no complete SVG.")
            return None
        return Markup(element) if b"currentColor" in content else _image(content, "image/svg+xml", label)


def _image(content: bytes, kind: str, label: str) -> Markup:
    data = base64.b64encode(content).decode("ascii")
    return Markup('<img class="paper" alt="{}" src="data:{};base64,{}">').format(label, kind, data)


def _formula(latex: object) -> dict[str, Any] | None:
    """MathML, and the LaTeX for who wants to copy it or where it could not be converted."""
    source = latex.strip() if isinstance(latex, str) else ""
    if not source:
        return None
    drawn = mathml(source)
    return {"latex": source, "mathml": Markup(drawn) if drawn else None}


def _samples(run: RunFolder) -> dict[str, Any] | None:
    """The table of test samples: its data for the script, and the first rows for a page without scripts."""
    table = tables.sample_table(run)
    if table is None:
        return None
    return table | {"json": Markup(script_json({"columns": table["columns"], "count": table["count"]}))}


def script_json(content: object) -> str:
    r"""JSON that can stand in a script element: no character of it can end the element or start a comment.

    Example:
        >>> from implicit_l2o.report.html import script_json
        >>> script_json(["</script>", None])
        '["\\u003c/script\\u003e",null]'
    """
    plain = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: f"\\u{ord(match.group()):04x}", plain)


def _has_report(folder: Path, seed: str) -> bool:
    return re.fullmatch(r"\d+", seed) is not None and (folder / f"seed_{seed}").is_dir()


def render(template: str, *, script: str = "page.js", style: str = "style.css", **content: Any) -> str:
    """The page, with its style and its scripts inside; its policy lets a browser run these scripts and load nothing.

    Args:
        template: extends `page.html`.
        script: runs at the end of the page; includes `page.js`.
        style: includes `style.css`.
        content: what the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("implicit_l2o.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["count"] = numbers.count
    rules, early, late = (environment.get_template(name).render() for name in (style, "early.js", script))
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in (early, late)
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}; "
        "base-uri 'none'; form-action 'none'"
    )
    trusted = {"style": Markup(rules), "early": Markup(early), "script": Markup(late)}
    page = environment.get_template(template).render(policy=policy, **trusted, **content)
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", page)
