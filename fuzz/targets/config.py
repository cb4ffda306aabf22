"""Configurations, as `il2o run` reads them up to the training."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from fuzz.harness import ROOT, Target
from implicit_l2o.experiment.config import ExperimentCLI
from implicit_l2o.experiment.errors import ConfigurationError
from implicit_l2o.experiment.sources import read_yaml

_TINY = b"""model:
  class_path: fuzz.targets.tiny.Tiny
  init_args: {size: 3, backward: {class_path: implicit_l2o.Neumann, init_args: {k: 2}}}
data: {class_path: fuzz.targets.tiny.Points, init_args: {samples: 12}}
trainer: {max_epochs: 2, accelerator: cpu, callbacks: [{class_path: EarlyStopping, init_args: {monitor: loss}}]}
"""
_MORE = b"""seed_everything: 3
model: {class_path: fuzz.targets.tiny.Tiny}
data: &d {class_path: fuzz.targets.tiny.Points}
calibration: {p_pass: 0.9, p_warn: 0.05, p_fail: 0.05, split: train}
weight_average: 0.99
checkpoint_minutes: null
threads: 1
baselines: {constant: {class_path: implicit_l2o.training.Untrained, init_args: {task: {class_path: fuzz.targets.tiny.Tiny}}}}
optimizer: {class_path: SGD, init_args: {lr: 0.1}}
"""


def read(data: bytes, folder: Path) -> None:
    """The whole input is the file."""
    path = folder / "some.yaml"
    path.write_bytes(data)
    read_yaml(path)  # in a hundredth of the time that Lightning's parser takes to be made
    with warnings.catch_warnings():  # of Lightning's, about the machine
        warnings.simplefilter("ignore")
        try:
            cli = ExperimentCLI([f"--config={path}", "--trainer.enable_progress_bar=false"])
            cli.check()
        except ConfigurationError as error:
            if "\n" in str(error):
                raise AssertionError(f"more than one line: {error}") from error
            raise
        except SystemExit as error:
            raise AssertionError(f"it ends the process with the status {error.code}") from error
        finally:
            os.chdir(folder)


def seeds() -> Iterator[bytes]:
    """Two small ones, and those that come with the package for their keys: their tasks are replaced by the small one."""
    yield _TINY
    yield _MORE
    for name in ("digits", "shortest_path_5x5"):
        yield (ROOT / "experiments" / f"{name}.yaml").read_bytes()[:1500]


TARGET = Target(
    read=read,
    seeds=seeds,
    errors=(ConfigurationError,),
    names_file=False,
    words=(
        *(
            b"model:",
            b"data:",
            b"class_path: ",
            b"init_args: ",
            b"trainer:",
            b"fuzz.targets.tiny.Tiny",
            b"&a ",
            b"*a",
            b"<<: ",
        ),
        *(
            b"!!python/object:",
            b"!!float ",
            b"!!timestamp ",
            b"2001-99-99",
            b"null",
            b".nan",
            b"~",
            b"? ",
            b"- ",
            b"[",
            b"{",
        ),
        *(
            b"seed_everything: ",
            b"threads: ",
            b"folder: ",
            b"name: ",
            b"callbacks: ",
            b"logger: ",
            b"devices: ",
            b"1e400",
        ),
    ),
    seconds=30,
    megabytes=3072,
    most_bytes=2048,
)
