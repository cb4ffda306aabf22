"""Build the wheel and the sdist and use them as a user would: in clean environments, on every Python that is found.

    python scripts/check_package.py                       # Python 3.11 to 3.13, as far as they are installed
    python scripts/check_package.py --python PATH ...     # these interpreters
    python scripts/check_package.py --any-torch           # also where PyTorch comes with gigabytes of CUDA libraries

Writes results/package.json; what an earlier run found with other interpreters and the same wheel stays there. The exit
status is 1 if a check failed. PyTorch is installed as constraints.txt pins it, first and alone. Where the index offers a
CUDA build alone, it is not downloaded: the package is then compiled and its requirements are looked up, but nothing is
imported, and the result says so. Any Python from 3.11 with venv runs this.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import package_contents as contents

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TARGETS = ("3.11", "3.12", "3.13")
LIMIT = 0.3  # seconds that `import implicit_l2o` may add to that of torch
_REPEATS = 7

_IMPORT = """
import time
start = time.process_time(); import torch; torch_seconds = time.process_time() - start
start = time.process_time(); import implicit_l2o; print(torch_seconds, time.process_time() - start)
"""
_NOT_ALONE = """
import sys, jaxtyping, numpy, torch  # torch imports some packages where they are installed
before = set(sys.modules)
import implicit_l2o
from importlib.metadata import packages_distributions, requires
import re
own = {re.match(r"[\\w.-]+", line)[0].lower() for line in requires("implicit_l2o") if "extra ==" in line}
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
loaded = {n.lower() for top in tops for n in packages_distributions().get(top, ())} & own
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""
_README = """
import re, sys
text = open(sys.argv[1], encoding="utf-8").read()
blocks = re.findall(r"^```python\\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
if sys.argv[2] == "core":  # the applications need the extra `train`
    blocks = [block for block in blocks if "applications" not in block]
names = {"__name__": "readme"}
for block in blocks:
    exec(block, names)
print(len(blocks), "blocks")
"""


class Check(NamedTuple):
    """One check: whether it passed, how long it took, and what it said if it did not."""

    ok: bool
    seconds: float
    message: str = ""


def run(command: Sequence[str | Path], *, cwd: Path) -> str:
    """What the command prints; a `RuntimeError` with the end of its output where it fails."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")  # the installed package is meant, compiled
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=clean, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise RuntimeError(f"exit status {done.returncode}: {said}")
    return done.stdout


def check(name: str, does: Callable[[], object]) -> Check:
    """Do it and say how it went; an exception is a check that failed."""
    start = time.perf_counter()
    try:
        does()
        found = Check(True, round(time.perf_counter() - start, 1))
    except Exception as error:
        found = Check(False, round(time.perf_counter() - start, 1), str(error))
    print(f"  {'ok    ' if found.ok else 'FAILED'} {name} ({found.seconds} s) {found.message}".rstrip(), flush=True)
    return found


class Environment:
    """A clean virtual environment in a folder of its own."""

    def __init__(self, interpreter: Path, folder: Path) -> None:
        self.folder = folder
        if interpreter.samefile(sys.executable):
            venv.create(folder, with_pip=True)
        else:
            run([interpreter, "-m", "venv", folder], cwd=folder.parent)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")

    def python(self, *words: str | Path) -> str:
        """Run its interpreter."""
        return run([self.bin / "python", *words], cwd=self.folder)

    def pip(self, *words: str | Path) -> str:
        """Install by its pip, as the constraints pin it."""
        return self.python("-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *words)

    def il2o(self, *words: str) -> str:
        """Run the command that the package installed."""
        return run([self.bin / "il2o", *words], cwd=self.folder)


def interpreters(named: Sequence[Path]) -> dict[str, Path]:
    """The interpreters to check by their version: those that were named, else one for each target that is found."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[str, Path] = {}
    candidates = list(named)
    if not named:
        candidates = [Path(sys.executable)]
        for target in TARGETS:
            on_path = shutil.which(f"python{target}")
            candidates += [Path(on_path)] if on_path else []
            candidates += sorted(pyenv.glob(f"{target}.*/bin/python"))
    for path in candidates:
        try:
            version = run([path, "-c", "import ensurepip, platform, venv; print(platform.python_version())"], cwd=ROOT)
        except (OSError, RuntimeError):
            continue
        minor = version.strip().rpartition(".")[0]
        if named or minor in TARGETS:
            found.setdefault(minor, Path(path))
    return {minor: found[minor] for minor in sorted(found, key=lambda text: int(text.split(".")[1]))}


def pinned(package: str) -> str:
    """`torch==2.13.0` as constraints.txt has it."""
    match = re.search(rf"^{package}==\S+$", CONSTRAINTS.read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit(f"constraints.txt does not pin {package}.")
    return match[0]


def cuda_libraries(environment: Environment) -> list[str]:
    """The CUDA packages that PyTorch's wheel for this interpreter asks for, by its metadata alone; none for a CPU build."""
    report = environment.folder / "torch.json"
    environment.pip("--dry-run", "--no-deps", "--ignore-installed", "--report", report, pinned("torch"))
    metadata = json.loads(report.read_text())["install"][0]["metadata"]
    if platform.system() != "Linux":
        return []  # elsewhere the wheels of the index are CPU builds, whatever Linux needs
    names = {re.match(r"[\w.-]+", line)[0] for line in metadata.get("requires_dist", ())}  # type: ignore[index]
    return sorted(name for name in names if name.startswith(("nvidia-", "cuda-")))


def build(folder: Path) -> tuple[Path, Path, dict[str, Check]]:
    """The wheel and the sdist, and what their contents and metadata are worth."""
    tools = Environment(Path(sys.executable), folder / "tools")
    tools.pip("build", "twine")
    checks = {"build": check("build sdist, and the wheel from it", lambda: _build(tools, folder / "dist"))}
    if not checks["build"].ok:
        raise SystemExit(1)
    wheel, sdist = next((folder / "dist").glob("*.whl")), next((folder / "dist").glob("*.tar.gz"))
    checks["metadata"] = check("twine check", lambda: tools.python("-m", "twine", "check", "--strict", wheel, sdist))
    checks["contents"] = check("contents of the wheel", lambda: contents.check_wheel(wheel, ROOT))
    checks["sdist_contents"] = check("contents of the sdist", lambda: contents.check_sdist(sdist))

    def same() -> None:
        tools.python("-m", "build", "--wheel", "--outdir", folder / "direct", ROOT)
        contents.check_same(wheel, next((folder / "direct").glob("*.whl")))

    checks["same_wheel"] = check("the sources build the wheel that the sdist builds", same)
    return wheel, sdist, checks


def _build(tools: Environment, folder: Path) -> None:
    tools.python("-m", "build", "--outdir", folder, ROOT)


def use(interpreter: Path, wheel: Path, sdist: Path, folder: Path, *, any_torch: bool) -> dict[str, Any]:
    """All checks with one interpreter."""
    environment = Environment(interpreter, folder)
    version = environment.python("-c", "import platform; print(platform.python_version())").strip()
    print(f"Python {version}", flush=True)
    unpacked = folder / "unpacked"
    contents.unpack(wheel, unpacked)
    checks = {
        "compile": check("compile", lambda: environment.python("-W", "error", "-m", "compileall", "-q", unpacked))
    }
    cuda = cuda_libraries(environment)
    result: dict[str, Any] = {"python": version, "checks": checks, "imported": not cuda or any_torch, "reason": ""}
    extras = contents.extras(wheel)
    if not result["imported"]:
        result["reason"] = f"the index offers {pinned('torch')} with CUDA libraries alone"
        checks["install"] = check("install without dependencies", lambda: environment.pip("--no-deps", wheel))
        for extra, needed in {"": contents.extras(wheel, base=True)[""], **extras}.items():
            words = ["--dry-run", "--no-deps", "--only-binary", ":all:", *needed]
            name = f"extra_{extra}" if extra else "requirements"
            checks[name] = check(f"{name}: there is a wheel of each", lambda words=words: environment.pip(*words))
        return result
    checks["torch"] = check(f"install {pinned('torch')}", lambda: environment.pip(pinned("torch")))
    checks["install"] = check("install the wheel", lambda: environment.pip(wheel))
    checks["import"] = check("import, without an optional package", lambda: environment.python("-c", _NOT_ALONE))
    checks["version"] = check("il2o --version", lambda: _version(environment, wheel))
    checks["doctor"] = check("il2o doctor", lambda: environment.il2o("doctor"))
    readme = ("-c", _README, ROOT / "README.md")
    checks["readme_core"] = check("README, without an extra", lambda: environment.python(*readme, "core"))
    result["import_seconds"] = import_seconds(environment)
    checks["import_time"] = check("import time", lambda: _quick(result["import_seconds"]))
    checks["train"] = check("install [train]", lambda: environment.pip(f"{wheel}[train]"))
    checks["list"] = check("il2o list, with [train]", lambda: _list(environment))
    checks["readme"] = check("README, with [train]", lambda: environment.python(*readme, "all"))
    for extra in extras:
        words = ("--dry-run", f"{wheel}[{extra}]")
        checks[f"extra_{extra}"] = check(f"resolve [{extra}]", lambda words=words: environment.pip(*words))

    def from_sdist() -> None:
        environment.pip("--no-deps", "--force-reinstall", sdist)
        environment.python("-c", _NOT_ALONE)
        _version(environment, wheel)

    checks["sdist"] = check("install the sdist, and import it", from_sdist)
    return result


def _version(environment: Environment, wheel: Path) -> None:
    said, expected = environment.il2o("--version").strip(), f"il2o {wheel.name.split('-')[1]}"
    if said != expected:
        raise RuntimeError(f"expected {expected!r}; got {said!r}")


def _list(environment: Environment) -> None:
    said = environment.il2o("list")
    missing = [path.stem for path in (ROOT / "experiments").glob("*.yaml") if f"  {path.stem} " not in said]
    if missing:
        raise RuntimeError(f"does not list {', '.join(missing)}")


def import_seconds(environment: Environment) -> dict[str, list[float]]:
    """Processor time of `import torch` and what `import implicit_l2o` adds to it, each in the same fresh process."""
    environment.python("-c", _IMPORT)  # compiles, and reads the files
    pairs = [environment.python("-c", _IMPORT).split() for _ in range(_REPEATS)]
    torch, added = zip(*pairs, strict=True)
    return {"torch": [float(text) for text in torch], "added": [float(text) for text in added]}


def _quick(seconds: dict[str, list[float]]) -> None:
    median = statistics.median(seconds["added"])
    if median >= LIMIT:
        raise RuntimeError(f"import implicit_l2o adds {median:.2f} s to torch; less than {LIMIT} s is wanted")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and write the result; the exit status."""
    parser = argparse.ArgumentParser(description="Build, install and use the package in clean environments.")
    parser.add_argument("--python", type=Path, nargs="+", default=[], metavar="PATH", help="interpreters to check")
    parser.add_argument("--any-torch", action="store_true", help="also download a PyTorch with CUDA libraries")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "package.json", metavar="FILE")
    options = parser.parse_args(arguments)
    found = interpreters(options.python)
    if not found:
        raise SystemExit(f"No interpreter of {', '.join(TARGETS)} with venv was found; name one by --python.")
    with tempfile.TemporaryDirectory(prefix="check package ") as name:  # a path with a blank is a path
        folder = Path(name)
        print("Package", flush=True)
        wheel, sdist, checks = build(folder)
        result = {
            "version": wheel.name.split("-")[1],
            "torch": pinned("torch").partition("==")[2],
            "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
            "wheel_bytes": wheel.stat().st_size,
            "sdist_bytes": sdist.stat().st_size,
            "files": contents.count(wheel),
            "checks": _plain(checks),
            "import_limit": LIMIT,
            "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        }
        pythons = kept(options.out, result["wheel_sha256"])
        every = [*checks.values()]
        for minor, path in found.items():
            used = use(path, wheel, sdist, folder / f"python {minor}", any_torch=options.any_torch)
            every += used["checks"].values()
            pythons[minor] = used | {"checks": _plain(used["checks"])}
            in_order = sorted(pythons, key=lambda text: int(text.split(".")[1]))
            content = result | {"pythons": [pythons[name] for name in in_order]}
            options.out.write_text(json.dumps(content, indent=2) + "\n")
    failed = sum(not each.ok for each in every)
    print(f"{len(every) - failed} checks passed, {failed} failed: {options.out}")
    return 1 if failed else 0


def kept(out: Path, digest: str) -> dict[str, Any]:
    """What an earlier run found with other interpreters, as far as it was about the same wheel, byte by byte."""
    if not out.exists():
        return {}
    earlier = json.loads(out.read_text())
    same = earlier.get("wheel_sha256") == digest
    return {each["python"].rpartition(".")[0]: each for each in earlier["pythons"]} if same else {}


def _plain(checks: dict[str, Check]) -> dict[str, Any]:
    return {name: each._asdict() for name, each in checks.items()}


if __name__ == "__main__":
    sys.exit(main())
