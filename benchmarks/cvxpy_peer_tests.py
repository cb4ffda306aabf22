"""cvxpylayers' own tests and examples of its PyTorch layer, with nothing changed but the import.

    python -m benchmarks.cvxpy_peer_tests --folder cvxpylayers-1.2.0 [...]     # writes results/cvxpy_peer_tests.json

The folders are checkouts or unpacked source archives of cvxpylayers. Every file that imports its PyTorch layer is copied to
a scratch folder, the import is replaced, and it runs there: tests by pytest, examples as scripts (of notebooks the code
cells, without IPython's commands) with a limit of processor time. Where an example fails, it is run once more as it was, to
tell our failures from those of a missing package or data file. Files that have a row are not run again unless `--again`
says so.
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from implicit_l2o.report import machine, write_json

RESULTS = Path(__file__).parents[1] / "results" / "cvxpy_peer_tests.json"
PACKAGES = ("clarabel", "cvxpy", "cvxpylayers", "diffcp", "torch")
THEIRS = re.compile(r"from cvxpylayers\.torch(\.cvxpylayer)? import CvxpyLayer")
OURS = "from implicit_l2o.interop.cvxpy import CvxpyLayer"
# Tests of a behaviour that is another one here: how they have to fail for that, and what it is.
DIFFERENT = {
    "test_infeasible": ("SolverError", "a status and a warning instead of diffcp's exception"),
    "test_unbounded": ("SolverError", "a status and a warning instead of diffcp's exception"),
    "test_none_parameter_at_call_time": (
        "TypeError: CvxpyLayer takes floating-point tensors; got NoneType",
        "a TypeError that names the parameter instead of an AttributeError",
    ),
    "test_solver_args_actually_used": (
        "are too similar",
        "a limit of one first-order step does not spoil the answer, which is polished",
    ),
    "test_quad_form_psd_rejects_diffcp": (
        "DID NOT RAISE",
        "a parameter in a quadratic form is taken whatever the solver",
    ),
    "test_least_squares_custom_method": (
        "unexpected keyword argument 'custom_method'",
        "`custom_method`, which cvxpylayers 1 has no more, is not taken",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, nargs="+", required=True, help="named cvxpylayers-VERSION")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="most processor time of an example; tests have ten times it"
    )
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"files": []}
    results |= {
        "machine": machine(),
        "packages": {name: _version(name) for name in PACKAGES},
        "seconds": arguments.seconds,
    }
    for folder in arguments.folder:
        with tempfile.TemporaryDirectory() as scratch:
            own = Path(scratch) / folder.name
            shutil.copytree(folder, own)
            for path in sorted(_of_torch(own)):
                name = str(path.relative_to(scratch))
                if not arguments.again and any(row["file"] == name for row in results["files"]):
                    continue
                run = _tests if path.name.startswith("test_") else _example
                row = {"file": name, **run(path, own, arguments.seconds)}
                rest = [other for other in results["files"] if other["file"] != name]
                results["files"] = sorted([*rest, row], key=lambda other: other["file"])
                write_json(RESULTS, results)
                print(json.dumps(row), flush=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _of_torch(folder: Path) -> list[Path]:
    """Their tests and examples that make a layer of PyTorch's."""
    files = [path for end in ("py", "ipynb") for path in folder.rglob(f"*.{end}")]
    ours = [path for path in files if path.name.startswith("test_") or "examples" in path.parts]
    texts = {path: path.read_text(errors="replace") for path in ours}
    return [path for path, text in texts.items() if THEIRS.search(text) and "CvxpyLayer(" in text]


def _environment(folder: Path) -> dict[str, str]:
    here = [str(Path(__file__).parents[1] / "src"), str(folder)]
    paths = [*here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "Agg", "PYTHONWARNINGS": "default"}


def _run(
    arguments: list[str], path: Path, folder: Path, seconds: float
) -> tuple[subprocess.CompletedProcess[str], float]:
    """A child with a limit of processor time, and the time it took."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 2))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=path.parent,
        env=_environment(folder),
        capture_output=True,
        text=True,
        errors="replace",
        preexec_fn=limit,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return run, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _tests(path: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """The outcome of every test of a file."""
    path.write_text(THEIRS.sub(OURS, path.read_text()))
    report = path.with_suffix(".xml")
    options = ["-q", "-p", "no:cacheprovider", f"--rootdir={path.parent}", f"--junitxml={report}"]
    run, taken = _run(["-m", "pytest", *options, path.name], path, folder, 10 * seconds)
    cases = [_case(part) for part in ElementTree.parse(report).iter("testcase")] if report.exists() else []
    kinds = ("passed", "different", "failed", "skipped")
    return {
        "kind": "tests",
        "ended": None if cases else _short(run.stdout + run.stderr),
        "seconds": taken,
        **{kind: sum(case["outcome"] == kind for case in cases) for kind in kinds},
        "cases": [case for case in cases if case["outcome"] != "passed"],
    }


def _case(element: ElementTree.Element) -> dict[str, str]:
    name = element.get("name", "")
    problem = next((part for part in element if part.tag in ("failure", "error", "skipped")), None)
    if problem is None:
        return {"name": name, "outcome": "passed", "reason": ""}
    if problem.tag == "skipped":
        return {"name": name, "outcome": "skipped", "reason": _short(problem.get("message") or "")}
    message = problem.get("message") or problem.text or ""
    expected, reason = DIFFERENT.get(name, (None, ""))
    if expected is not None and expected in message:
        return {"name": name, "outcome": "different", "reason": reason}
    return {"name": name, "outcome": "failed", "reason": _short(message)}


def _example(path: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Whether an example runs to its end; where it fails, whether it does as it was."""
    helpers = {other: other.read_text() for other in path.parent.glob("*.py") if other != path}
    for other, text in helpers.items():
        other.write_text(THEIRS.sub(OURS, text))
    text = _code(path)
    outcome, reason, taken = _script(path, THEIRS.sub(OURS, text), folder, seconds)
    for other, before in helpers.items():
        other.write_text(before)
    row = {"kind": "example", "outcome": outcome, "reason": reason, "seconds": taken}
    if outcome == "failed":
        unchanged, reason, _ = _script(path, text, folder, seconds)
        row |= {"unchanged": unchanged, "unchanged_reason": reason}
    return row


def _script(path: Path, text: str, folder: Path, seconds: float) -> tuple[str, str, float]:
    """How a script ended, why, and the processor time it took."""
    script = path.with_name(f"run_{path.stem.replace(' ', '_')}.py")
    script.write_text(text)
    run, taken = _run([script.name], path, folder, seconds)
    script.unlink()
    if run.returncode == 0:
        return "ran", "", taken
    if run.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "stopped", "", taken
    return "failed", _short(run.stderr), taken


def _code(path: Path) -> str:
    """The Python of a script or a notebook."""
    if path.suffix == ".py":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    lines = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    kept = ["" if line.lstrip().startswith(("%", "!")) else line for line in lines]
    # Outside of a notebook there is no widget for the progress bar.
    return "\n".join(kept).replace("tqdm.notebook", "tqdm")


def _short(text: str) -> str:
    """The last line of an error, without the folders of this machine."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    line = next(
        (line for line in reversed(lines) if re.match(r"(E +)?[\w.]+(Error|Exception|Warning)\b", line)), lines[-1]
    )
    return re.sub(r"(/[\w.\-]+)+/", "", line.strip())[:200]


if __name__ == "__main__":
    main()
