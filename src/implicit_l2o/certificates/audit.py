"""A log of every inference that post-conditions judged: JSON lines, whole or not there."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from implicit_l2o.certificates.base import CertificateReport, Label

_CHUNK = 1 << 16


class AuditError(OSError):
    """The log could not be written; it is what it was before."""


@dataclass(frozen=True)
class AuditLog:
    """Appends one line a sample to a file, in the order of the inferences.

    All lines of one inference are appended together. If the disk is full, they are taken back and an `AuditError` is raised,
    so an answer that cannot be logged is not given. What a kill left half written at the end is removed by the next writer,
    and skipped by `read_audit`. Several processes may write to the same file, where the system has `fcntl`.

    A line has the fields `time` (UTC), `model`, `sample` (its place in the batch), `converged`, `values`, `limits` (the
    largest that passes and the largest that does not fail), `labels`, `worst` and `action`. Numbers
    that are not finite are strings.

    Args:
        path: of the file; its folder is made where it is missing.
        durable: wait until the disk has the lines, which outlasts a loss of power too.

    Example:
        >>> import pathlib, tempfile, torch
        >>> from implicit_l2o.certificates import AuditLog, Certificate, Inference, Sparsity, Threshold, certify, read_audit
        >>> report = certify([Certificate(Sparsity(), Threshold(1))], Inference(x=torch.tensor([[1.0, 2.0]])))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "audit.jsonl"
        ...     AuditLog(path).write(report, ["abstained"], model="toy")
        ...     [line] = read_audit(path)
        >>> line["values"], line["limits"], line["labels"], line["action"]
        ({'sparsity': 2.0}, {'sparsity': [1.0, 1.0]}, {'sparsity': 'FAIL'}, 'abstained')
    """

    path: str | os.PathLike[str]
    durable: bool = field(default=False, kw_only=True)

    def write(self, report: CertificateReport, actions: Sequence[str], *, model: str) -> None:
        """Append the samples of a report.

        Args:
            report: of the inference.
            actions: what was done with each sample.
            model: a name.

        Raises:
            AuditError: the lines could not be written; none of them is in the file.
            ValueError: there is not one action for each sample.
        """
        if len(actions) != len(report.converged):
            raise ValueError(f"an action is needed for each of {len(report.converged)} samples; got {len(actions)}.")
        lines = [json.dumps(line, allow_nan=False) + "\n" for line in _lines(report, actions, model)]
        content = "".join(lines).encode()
        path = Path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise AuditError(f"Cannot write the audit log {path}: {error.strerror}.") from error
        try:
            _lock(handle)
            end = _whole(handle)
            os.ftruncate(handle, end)  # what a kill left
            try:
                _write_all(handle, content, end)
                if self.durable:
                    os.fsync(handle)
            except BaseException:
                os.ftruncate(handle, end)
                raise
        except OSError as error:
            raise AuditError(
                f"Cannot write the audit log {path}: {error.strerror}. The file is as it was; the inference is not logged."
            ) from error
        finally:
            os.close(handle)


def read_audit(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    r"""The whole lines of a log, in order; an unfinished one at the end is skipped.

    Raises:
        ValueError: a whole line is no JSON object; the message says which.

    Example:
        >>> import pathlib, tempfile
        >>> from implicit_l2o.certificates import read_audit
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "audit.jsonl"
        ...     _ = path.write_text('{"sample": 0}\n{"sam')
        ...     list(read_audit(path))
        [{'sample': 0}]
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}, is no JSON: {error}.") from error
            if not isinstance(entry, dict):
                raise ValueError(f"{path}, line {number}, is a {type(entry).__name__}, not an object.")
            yield entry


def _lines(report: CertificateReport, actions: Sequence[str], model: str) -> Iterator[Mapping[str, Any]]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    limits = {name: [_plain(low), _plain(high)] for name, (low, high) in zip(report.names, report.limits, strict=True)}
    columns = zip(
        report.values.tolist(),
        report.labels.tolist(),
        report.converged.tolist(),
        report.worst.tolist(),
        actions,
        strict=True,
    )
    for sample, (values, labels, converged, worst, action) in enumerate(columns):
        yield {
            "time": now,
            "model": model,
            "sample": sample,
            "converged": converged,
            "values": {name: _plain(value) for name, value in zip(report.names, values, strict=True)},
            "limits": limits,
            "labels": {name: Label(label).name for name, label in zip(report.names, labels, strict=True)},
            "worst": Label(worst).name,
            "action": action,
        }


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _write_all(handle: int, content: bytes, offset: int) -> None:
    os.lseek(handle, offset, os.SEEK_SET)
    while content:  # a nearly full disk takes a part and then raises
        content = content[os.write(handle, content) :]


def _whole(handle: int) -> int:
    """The length of the file up to the end of its last whole line."""
    end = os.lseek(handle, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _CHUNK)
        os.lseek(handle, start, os.SEEK_SET)
        chunk = b""
        while len(chunk) < end - start:
            part = os.read(handle, end - start - len(chunk))
            if not part:
                break
            chunk += part
        found = chunk.rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _lock(handle: int) -> None:
    """One writer at a time; closing the file ends it."""
    try:
        import fcntl
    except ImportError:  # another system: there one process writes
        return
    fcntl.flock(handle, fcntl.LOCK_EX)
