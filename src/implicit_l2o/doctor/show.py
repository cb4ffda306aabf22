"""The examination as text: what was looked at, then what was found and what to do about it."""

import textwrap
from collections.abc import Iterator

from implicit_l2o.doctor.examination import Examination
from implicit_l2o.doctor.findings import Level
from implicit_l2o.doctor.self_test import Solve
from implicit_l2o.doctor.threads import Threads
from implicit_l2o.doctor.versions import Requirement, install

_WIDTH = 100
_COLUMN = 14
_NO_BREAK = "\N{NO-BREAK SPACE}"  # a command is copied, so it stays on its line


def show(found: Examination) -> str:
    """The text that `il2o doctor` prints."""
    blocks = [
        _block("Versions", [(name, version or "not installed") for name, version in found.versions.items()]),
        _block("Threads", _threads(found.threads)),
        _block(
            "Devices",
            [
                ("cpu", "works"),
                *((each.name, f"{each.description}: {each.error or 'works'}") for each in found.devices),
            ],
        ),
        _block("Optional parts", [(extra, _extra(extra, parts)) for extra, parts in found.extras.items()]),
        _block("Self-test", [(solve.name, _solve(solve)) for solve in found.solves]),
        "\n".join(_findings(found)),
    ]
    return "\n\n".join(block for block in blocks if block)


def _block(title: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    return "\n".join([title, *(_filled(f"  {name:<{_COLUMN}}", text) for name, text in rows)])


def _filled(first: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    ).replace(_NO_BREAK, " ")


def _threads(threads: Threads) -> list[tuple[str, str]]:
    cores = f"{threads.logical} for this process"
    if threads.physical is not None:
        cores += f", {threads.physical} physical"
    if threads.quota is not None:
        cores += f"; a quota of {threads.quota:g}"
    if threads.load is not None:
        cores += f"; load {threads.load:.1f}"
    rows = [("cores", cores), ("PyTorch's", f"{threads.torch} in an operation, {threads.interop} beside each other")]
    if len(threads.milliseconds) > 1:
        times = (f"{n} thread{'' if n == 1 else 's'} {time:.2g} ms" for n, time in threads.milliseconds.items())
        rows.append(("speed", ", ".join(times)))
    settings = " ".join(f"{name}={value}" for name, value in threads.settings.items())
    rows.append(("environment", settings or "no settings"))
    if threads.runtimes is not None:
        rows.append(("OpenMP", ", ".join(threads.runtimes) or "none loaded"))
    return rows


def _extra(extra: str, parts: list[Requirement]) -> str:
    missing = [part.name if part.installed is None else str(part) for part in parts if not part.met]
    if not missing:
        return "complete"
    without = "all" if len(missing) == len(parts) else ", ".join(missing)
    return f"missing ({without}): {install(extra).replace(' ', _NO_BREAK)}"


def _solve(solve: Solve) -> str:
    met, samples = solve.converged
    return (
        f"{'passed' if solve.passed else 'FAILED'}: {met} of {samples} problems to {solve.tolerance:.0e} in "
        f"{solve.steps} steps and {solve.milliseconds:.1f} ms; residual {solve.residual:.1e}, "
        f"error {solve.error:.1e}, of the gradient {solve.gradient_error:.1e}"
    )


def _findings(found: Examination) -> Iterator[str]:
    for finding in found.findings:
        yield _filled(f"{finding.level.value.upper()}: ", finding.text)
        if finding.remedy:
            yield f"  -> {finding.remedy}"
    problems = sum(finding.level is Level.PROBLEM for finding in found.findings)
    if found.findings:
        yield ""
    yield "No problem was found." if not problems else f"{problems} problem{'' if problems == 1 else 's'} found."
