"""The doctor: what it finds in environments that are made up, and what it says of this one."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o import cli, doctor
from implicit_l2o.doctor import cores, devices, examination, self_test, threads, versions
from implicit_l2o.doctor.findings import Finding, Level

GOOD = threads.Threads(logical=8, physical=4, quota=None, torch=4, interop=4)
GOMP, IOMP = "/site/torch/lib/libgomp.so.1", "/site/mkl/lib/libiomp5.so"


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_enough_cores_are_no_finding() -> None:
    assert threads.check(GOOD) == []
    assert threads.check(replace(GOOD, settings={"OMP_NUM_THREADS": "4,2"}, runtimes=[GOMP], load=3.0)) == []


@pytest.mark.parametrize(
    ("change", "level", "text", "remedy"),
    [
        ({"torch": 9}, Level.PROBLEM, "9 threads on the 8 cores of this process", "OMP_NUM_THREADS=4 "),
        ({"quota": 2.5, "torch": 4}, Level.PROBLEM, "4 threads on the 3 cores", "OMP_NUM_THREADS=3 "),
        ({"quota": 0.5, "torch": 4}, Level.PROBLEM, "4 threads on the 1 core of", "OMP_NUM_THREADS=1 "),
        ({"torch": 8}, Level.WARNING, "8 threads on 4 physical cores: two OpenMP threads on a shared core", "=4"),
        ({"settings": {"OMP_NUM_THREADS": "16"}}, Level.PROBLEM, "OMP_NUM_THREADS=16 is more than the 8 cores", "=4 "),
        (
            {"settings": {"MKL_NUM_THREADS": "0"}},
            Level.PROBLEM,
            "MKL_NUM_THREADS='0' is not a number",
            "MKL_NUM_THREADS=",
        ),
        ({"settings": {"OMP_NUM_THREADS": "four"}}, Level.PROBLEM, "OMP_NUM_THREADS='four' is not a number", "=4 "),
        ({"settings": {"KMP_DUPLICATE_LIB_OK": "TRUE"}}, Level.WARNING, "KMP_DUPLICATE_LIB_OK hides", "unset it"),
        ({"milliseconds": {1: 0.5, 4: 1.0}}, Level.WARNING, "4 threads are slower than one: 1 ms against 0.5 ms", "=1"),
        ({"load": 20.0}, Level.NOTE, "The machine is busy: 20.0 processes for 8 cores", ""),
        ({"runtimes": [GOMP, IOMP]}, Level.PROBLEM, "can hang or crash", "all by pip"),
        ({"runtimes": [GOMP, "/site/other.libs/libgomp-1.so"]}, Level.WARNING, "Several OpenMP runtimes", "=4"),
        (
            {"runtimes": [GOMP], "others": [IOMP]},
            Level.WARNING,
            "lib/libiomp5.so. Each has threads of its own",
            "all by",
        ),
        ({"runtimes": [GOMP], "others": ["/s/k.libs/libgomp-1.so.1"]}, Level.NOTE, "bring further OpenMP runtimes", ""),
    ],
)
def test_a_trap_of_threads_is_named(change: dict, level: Level, text: str, remedy: str) -> None:
    finding = only(threads.check(replace(GOOD, **change)))
    assert finding.level is level
    assert text in finding.text
    assert remedy in finding.remedy


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        # Of nested groups the tightest limit holds; a container sees its own group as the root.
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/cpu.max": "200000 100000",
                "sys/fs/cgroup/job/step/cpu.max": "400000 100000",
            },
            2.0,
        ),
        ({"proc/self/cgroup": "0::/seen/from/outside\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4.0),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/job\n3:memory:/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            },
            3.0,
        ),
    ],
)
def test_the_quota_of_control_groups(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert cores.quota(tmp_path) == quota


def test_physical_cores_are_those_with_other_siblings(tmp_path: Path) -> None:
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        write(tmp_path / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list", siblings + "\n")
    assert cores.physical({0, 1, 2, 3}, tmp_path) == 2
    assert cores.physical({0, 2}, tmp_path) == 1
    assert cores.physical({0, 9}, tmp_path) is None


def test_the_openmp_runtimes_of_a_process_and_of_its_packages(tmp_path: Path) -> None:
    line = "7f00-7f01 r-xp 00000000 fe:00 42"
    files = (GOMP, GOMP, "/a b/libiomp5.so", "/x/libcompute.so", "/x/libomptarget.so", "")
    write(tmp_path / "maps", "".join(f"{line} {file}".rstrip() + "\n" for file in files))
    assert threads.loaded_runtimes(tmp_path / "maps") == ["/a b/libiomp5.so", GOMP]
    assert threads.loaded_runtimes(tmp_path / "none") is None
    for name in ("torch/lib/libgomp.so.1", "sk.libs/libgomp-e9.so.1.0.0", "sk.libs/libz.so", "mkl/lib/libiomp5.so"):
        write(tmp_path / name, "")
    found = threads.installed_runtimes(tmp_path, [str(tmp_path / "mkl/lib/libiomp5.so")])
    assert found == [str(tmp_path / "sk.libs/libgomp-e9.so.1.0.0")]


def test_looking_leaves_threads_and_random_numbers_alone() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        seen = threads.look({"OMP_NUM_THREADS": "3", "HOME": "/"})
        self_test.run([torch.float32])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert seen.settings == {"OMP_NUM_THREADS": "3"}
    assert set(seen.milliseconds) == {1, 2}
    assert all(0 < each < math.inf for each in seen.milliseconds.values())
    assert seen.available >= 1


METADATA = [
    "torch>=2.6",
    'lightning>=2.4; extra == "train"',
    "jsonargparse[signatures]>=4.35; extra == 'train'",
    'torchdeq==0.1.0; extra == "torchdeq"',
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The versions of the packages that are installed, to be made up."""
    there = {"torch": "2.13.0+cpu", "lightning": "2.6.6", "jsonargparse": "4.53.0"}
    monkeypatch.setattr(versions, "version_of", there.get)
    return there


def test_an_extra_is_complete_or_says_what_is_missing(installed: dict[str, str]) -> None:
    needed = versions.requirements(METADATA)
    assert [each.name for each in needed["train"]] == ["lightning", "jsonargparse"]
    assert all(each.met for each in (*needed[""], *needed["train"]))
    assert versions.check_requirements(needed) == []  # what is absent is no conflict
    assert [str(each) for each in needed["torchdeq"]] == ["torchdeq==0.1.0 (missing)"]


def test_versions_that_do_not_fit(installed: dict[str, str]) -> None:
    installed |= {"torch": "2.5.1", "torchdeq": "0.2.0"}
    problem, warning = versions.check_requirements(versions.requirements(METADATA))
    assert problem == Finding(
        Level.PROBLEM, "The package needs torch>=2.6 (2.5.1 is installed).", "pip install 'torch>=2.6'"
    )
    assert warning.level is Level.WARNING
    assert warning.text.endswith("the extra 'torchdeq' needs torchdeq==0.1.0 (0.2.0 is installed).")
    assert warning.remedy == "pip install 'implicit_l2o[torchdeq]'"


@pytest.mark.parametrize(
    ("range_", "version", "met"),
    [
        (">=2.6", "2.13.0+cpu", True),
        (">=2.6", "2.6", True),
        (">=2.10", "2.9.1", False),
        (">=1.9,<3", "3.0", False),
        ("==0.1.0", "0.1", True),
        ("==0.1.0", "0.1.1", False),
        ("!=1.2", "1.2.0", False),
        ("", "1", True),
    ],
)
def test_ranges_of_versions(range_: str, version: str, met: bool) -> None:
    assert versions.permits(range_, version) is met


def test_what_is_imported_is_what_is_installed(tmp_path: Path) -> None:
    here, there = tmp_path / "here" / "src" / "implicit_l2o", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir(parents=True)
    assert versions.check_installation(here, "0.1.0", [("0.1.0", tmp_path / "here")]) == []
    shadowed = only(versions.check_installation(here, "0.1.0", [("0.1.0", there)]))
    assert shadowed.level is Level.PROBLEM
    assert f"installed in {there}, but imported from {here}" in shadowed.text
    stale = only(versions.check_installation(here, "0.2.0", [("0.1.0", tmp_path / "here")]))
    assert stale.level is Level.PROBLEM
    assert "sources are of version 0.2.0, the installation says 0.1.0" in stale.text
    twice = versions.check_installation(here, "0.1.0", [("0.1.0", tmp_path / "here"), ("0.0.9", there)])
    assert "is installed 2 times" in only(twice).text
    assert only(versions.check_installation(here, "0.1.0", [])).level is Level.WARNING


def test_the_installations_that_python_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel's and an editable one, whose checkout has a blank in its path."""
    for folder, origin in (("one", None), ("two", {"url": "file:///a%20b/repo", "dir_info": {"editable": True}})):
        info = tmp_path / folder / "implicit_l2o-0.1.0.dist-info"
        write(info / "METADATA", "Metadata-Version: 2.4\nName: implicit_l2o\nVersion: 0.1.0\n")
        if origin:
            write(info / "direct_url.json", json.dumps(origin))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "one"), str(tmp_path / "two")])
    assert versions.installations() == [("0.1.0", tmp_path / "one" / "implicit_l2o"), ("0.1.0", Path("/a b/repo"))]


def test_numpy_that_pytorch_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions.check_numpy() == []

    def broken(_: object) -> None:
        raise RuntimeError("Numpy is not available\nmore")

    monkeypatch.setattr(torch, "from_numpy", broken)
    finding = only(versions.check_numpy())
    assert finding.level is Level.PROBLEM
    assert finding.text.endswith("(RuntimeError: Numpy is not available).")


def test_a_card_that_does_not_compute_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = devices.Device("cuda:0", "Card, 8 GiB", False, "no kernel image")
    monkeypatch.setattr(torch.version, "cuda", None)
    finding = only(devices.check_devices([broken]))
    assert finding.level is Level.PROBLEM
    assert "cuda:0 (Card, 8 GiB) does not compute: no kernel image." in finding.text


def test_a_build_for_cuda_without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "no driver or no card was found" in only(devices.check_devices([])).text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES='' may hide it" in only(devices.check_devices([])).text


def test_settings_of_precision() -> None:
    assert devices.check_precision(torch.float64, "highest", cuda=True) == []
    assert devices.check_precision(torch.float32, "high", cuda=False) == []
    assert only(devices.check_precision(torch.float32, "high", cuda=True)).level is Level.WARNING
    dtype = only(devices.check_precision(torch.float16, "highest", cuda=False))
    assert (dtype.level, dtype.text) == (
        Level.PROBLEM,
        "The default dtype is float16; solves take float64, float32, bfloat16.",
    )


@pytest.fixture(scope="module")
def solves() -> list[self_test.Solve]:
    return self_test.run()


def test_the_self_test_passes_and_says_what_float32_reaches(solves: list[self_test.Solve]) -> None:
    double, single = solves
    assert double.passed
    assert single.passed
    assert double.residual <= 1e-10 < 1e-8 < single.residual
    assert double.floor < 1e-14
    note = only(self_test.check(solves))
    assert f"no less than Stopping(atol={single.least_tolerance:.0e})" in note.text


def test_the_tolerance_that_is_advised_is_met_and_a_smaller_one_ends_as_the_doctor_says(
    solves: list[self_test.Solve],
) -> None:
    """On another problem with iterates of size one: what rounding leaves is a matter of size, not of the problem."""
    single = solves[1]
    start = torch.zeros(16, 4)
    target = torch.nn.functional.normalize(torch.randn(16, 4), dim=-1)

    def solve(tolerance: float) -> il2o.FixedPoint:
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=tolerance, rtol=0.0, max_steps=500))
        return il2o.fixed_point(lambda z: 0.5 * z.sin() + 0.5 * target, start, solver=solver, on_failure="ignore")

    assert (solve(single.least_tolerance).status == il2o.Status.CONVERGED).all()
    assert (solve(1e-9).status == il2o.Status.MAX_STEPS).all()


def test_a_self_test_that_fails_is_a_problem(solves: list[self_test.Solve]) -> None:
    for change in ({"error": 1.0}, {"gradient_error": math.nan}, {"converged": (63, 64)}):
        finding = only(self_test.check([replace(solves[0], **change)]))
        assert finding.level is Level.PROBLEM
        assert "The self-test in float64 failed" in finding.text


def made_up(solves: list[self_test.Solve], *findings: Finding) -> examination.Examination:
    return examination.Examination(
        versions={"python": "3.11.7", "scipy": None},
        folder=Path("/somewhere"),
        threads=replace(
            GOOD, quota=2.0, settings={"OMP_NUM_THREADS": "4"}, runtimes=[GOMP], milliseconds={1: 2.0, 4: 1.0}
        ),
        devices=[devices.Device("cuda:0", "Card, 8 GiB")],
        extras={
            "exact": [
                versions.Requirement("highspy", ">=1.7", "1.16.0"),
                versions.Requirement("numba", ">=0.60", None),
            ],
            "astra": [versions.Requirement("astra-toolbox", ">=2.4", None)],
            "ct": [versions.Requirement("h5py", ">=3.10", "3.16.0")],
        },
        solves=solves,
        findings=list(findings),
    )


def test_the_text_says_everything_and_keeps_commands_whole(solves: list[self_test.Solve]) -> None:
    finding = Finding(Level.PROBLEM, "It is broken.", "mend it")
    text = doctor.show(made_up(solves, finding))
    for line in (
        "  scipy         not installed",
        "  cores         8 for this process, 4 physical; a quota of 2",
        "  environment   OMP_NUM_THREADS=4",
        "  speed         1 thread 2 ms, 4 threads 1 ms",
        "  cuda:0        Card, 8 GiB: works",
        "  exact         missing (numba): pip install 'implicit_l2o[exact]'",
        "  astra         missing (all): pip install 'implicit_l2o[astra]'",
        "  ct            complete",
        "PROBLEM: It is broken.",
        "  -> mend it",
    ):
        assert line in text.splitlines()
    assert text.endswith("\n1 problem found.")
    assert max(map(len, text.splitlines())) <= 100


def test_exit_status_and_json(
    solves: list[self_test.Solve], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    diverged = replace(solves[0], residual=math.inf)
    for finding, status in ((Finding(Level.WARNING, "Beware."), 0), (Finding(Level.PROBLEM, "Broken."), 1)):
        found = made_up([diverged], finding)
        monkeypatch.setattr(doctor, "examine", lambda found=found: found)
        assert cli.main(["doctor"]) == status
        assert finding.text in capsys.readouterr().out
        assert cli.main(["doctor", "--json"]) == status
        content = json.loads(capsys.readouterr().out)
        assert content["ok"] is (status == 0)
        assert content["findings"] == [{"level": finding.level.value, "text": finding.text, "remedy": ""}]
        assert content["self_test"][0]["residual"] is None
        assert content["extras"]["exact"]["complete"] is False
        assert content["threads"]["available"] == 2


_WITHOUT = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["doctor", "--json"]
try:
    runpy.run_module("implicit_l2o.doctor", run_name="__main__")
finally:
    inside = sorted({name.split(".")[1] for name in sys.modules if name.startswith("implicit_l2o.")})
    print("inside", *inside, file=sys.stderr)
"""


def test_it_runs_without_any_optional_package_and_imports_the_core_alone() -> None:
    """As a user runs it; whether this installation has a problem is not the question here."""
    optional = ("lightning", "matplotlib", "numba", "highspy", "jinja2", "yaml", "pandas", "psutil", "packaging")
    code = f"OPTIONAL = {optional}\n{_WITHOUT}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    content = json.loads(done.stdout)
    assert done.returncode == (not content["ok"])
    assert content["versions"]["implicit_l2o"] == il2o.__version__
    assert [each["passed"] for each in content["self_test"]] == [True, True]
    assert not {"training", "report", "data", "experiment", "applications", "interop"} & set(done.stderr.split())
