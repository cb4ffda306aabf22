"""The process in which libFuzzer runs; `python -m fuzz` starts it, and starts it again where it was killed."""

import importlib
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from types import FunctionType
from typing import Any

import atheris  # pyright: ignore[reportMissingImports]

from fuzz.harness import emptied, judge, load

# The branches of these packages guide the mutations; what they import, and is large, is imported before them.
_PACKAGES = ["implicit_l2o", "pydicom", "nibabel", "PIL", "h5py", "yaml"]
_BEFORE = {
    "parquet": ("pyarrow.parquet",),
    "tables": ("pandas",),
    "config": ("lightning.pytorch.cli", "torchmetrics"),
    "checkpoint": ("lightning.pytorch",),
}
_FUNCTIONS = {  # too deep in other packages to be instrumented by their imports
    "tables": ("zipfile", "numpy.lib.format", "numpy.lib._npyio_impl"),
    "request": ("json.decoder", "json.scanner"),
    "checkpoint": ("zipfile", "torch._weights_only_unpickler", "torch.serialization"),
}


def main() -> None:
    """Fuzz the target that the first argument names; findings go to the folder that the second one names."""
    name, findings, *options = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz", dir=shared if os.access(shared, os.W_OK) else None))
    os.chdir(folder)
    for module in ("torch", "scipy.sparse", *_BEFORE.get(name, ())):
        importlib.import_module(module)
    with atheris.instrument_imports(include=_PACKAGES):
        target = load(name)
        for seed in target.seeds():  # what the readers import when they are used
            judge(target, seed, emptied(folder))
    for module in _FUNCTIONS.get(name, ()):
        _instrument(importlib.import_module(module))
    known = {path.stem for path in Path(findings).glob("*.json")}

    def once(data: bytes) -> None:
        finding = judge(target, data, emptied(folder))
        if finding is not None and finding.key not in known:
            known.add(finding.key)
            path = Path(findings) / finding.key
            path.with_suffix(".input").write_bytes(data)
            path.with_suffix(".json").write_text(json.dumps({"key": finding.key, "text": finding.text}))

    (Path(findings) / "started").write_text(str(time.process_time()))
    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


def _instrument(module: Any) -> None:
    """The functions and methods of a module that was imported before."""
    for owner in (module, *(item for item in vars(module).values() if isinstance(item, type))):
        if getattr(owner, "__module__", module.__name__) != module.__name__:
            continue
        for item in list(vars(owner).values()):
            if isinstance(item, FunctionType) and item.__module__ == module.__name__:
                atheris.instrument_func(item)


if __name__ == "__main__":
    main()
