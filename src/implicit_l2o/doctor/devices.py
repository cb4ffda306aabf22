"""Graphics processors, and the precision that the dtypes have here."""

import os
from dataclasses import dataclass

import torch

from implicit_l2o.doctor.findings import Finding, Level

_SUPPORTED = (torch.float64, torch.float32, torch.bfloat16)  # of a solve


@dataclass(frozen=True)
class Device:
    """A device that PyTorch can compute on, beside the processor.

    Attributes:
        name: as PyTorch calls it, `"cuda:0"`.
        description: the model, with its memory where that is known.
        works: whether a product of matrices ran on it.
        error: why not, in one line.
    """

    name: str
    description: str
    works: bool = True
    error: str = ""


def devices() -> list[Device]:
    """Every device besides the processor."""
    found = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            memory = f"{properties.total_memory / 2**30:.0f} GiB"
            found.append(_try(f"cuda:{number}", f"{properties.name}, {memory}"))
    if torch.backends.mps.is_available():
        found.append(_try("mps", "Apple GPU"))
    return found


def _try(name: str, description: str) -> Device:
    try:
        square = torch.ones(8, 8, device=name)
        works = (square @ square).sum().item() == 8**3
        return Device(name, description, works, "" if works else "a product of matrices came out wrong")
    except RuntimeError as error:
        return Device(name, description, False, str(error).splitlines()[0])


def check_devices(found: list[Device]) -> list[Finding]:
    """Devices that do not work, and a build for devices that are not there."""
    findings = [
        Finding(
            Level.PROBLEM,
            f"{device.name} ({device.description}) does not compute: {device.error}.",
            "install the build of PyTorch that fits the driver and the card",
        )
        for device in found
        if not device.works
    ]
    if torch.version.cuda and not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "no driver or no card was found" if hidden is None else f"CUDA_VISIBLE_DEVICES={hidden!r} may hide it"
        text = f"PyTorch is built for CUDA {torch.version.cuda}, but has no such device ({why}): all runs on the CPU."
        findings.append(Finding(Level.NOTE, text))
    if any(device.name == "mps" for device in found):
        text = "Apple's GPU has no float64: solves there are in float32, with its tolerances."
        findings.append(Finding(Level.NOTE, text))
    return findings


def check_precision(default: torch.dtype, matmul: str, cuda: bool) -> list[Finding]:
    """Settings that a tight tolerance does not go with.

    Args:
        default: PyTorch's default dtype.
        matmul: `torch.get_float32_matmul_precision()`.
        cuda: whether there is a CUDA device, where that setting counts.
    """
    found = []
    if default not in _SUPPORTED:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in _SUPPORTED)
        text = f"The default dtype is {str(default).removeprefix('torch.')}; solves take {allowed}."
        found.append(Finding(Level.PROBLEM, text, "torch.set_default_dtype(torch.float32)"))
    if matmul != "highest" and cuda:
        text = (
            f"Products of float32 matrices are computed with fewer digits (precision {matmul!r}): residuals end near 1e-3 "
            f"of the iterates, whatever the tolerance."
        )
        found.append(Finding(Level.WARNING, text, 'torch.set_float32_matmul_precision("highest")'))
    return found
