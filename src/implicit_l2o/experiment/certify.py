"""`il2o certify`: a trained model on new data, with a certificate for each sample."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor
from tqdm import tqdm

import implicit_l2o as il2o
from implicit_l2o.experiment.check import load_data
from implicit_l2o.experiment.config import ExperimentCLI
from implicit_l2o.experiment.errors import ConfigurationError, in_words, one_line
from implicit_l2o.experiment.folder import RunFolder
from implicit_l2o.experiment.results import certificate_record, plain, write_predictions
from implicit_l2o.report import write_json
from implicit_l2o.training import AbstractData, AbstractTask, Samples, read_checkpoint


class _TaskOnly(ExperimentCLI):
    """Makes no trainer, so it writes no file."""

    def _instantiate(self) -> None:
        self.config_init = self.parser.instantiate_classes(Namespace(model=self.config.model))
        self.model = self._get(self.config_init, "model")


class _TaskAndData(_TaskOnly):
    """Makes the data module too, without loading it."""

    def _instantiate(self) -> None:
        self.config_init = self.parser.instantiate_classes(Namespace(model=self.config.model, data=self.config.data))
        self.model = self._get(self.config_init, "model")
        self.datamodule = self._get(self.config_init, "data")


def load_task(run: Path) -> AbstractTask:
    """The trained task of a run, in evaluation mode, with its certificates.

    Args:
        run: the folder that `il2o run` or `il2o fit` wrote.

    Raises:
        ConfigurationError: the folder holds no finished training, or its configuration does not fit the code any more.
        CheckpointError: its model file is broken.
    """
    return _load(run, _TaskOnly)[0]


def load_run(run: Path) -> tuple[AbstractTask, AbstractData]:
    """The trained task of a run as `load_task` gives it, and the data that it was trained on, loaded.

    Args:
        run: the folder that `il2o run` or `il2o fit` wrote.

    Raises:
        ConfigurationError: as for `load_task`; or the data are not there any more.
        CheckpointError: its model file is broken.
    """
    task, cli = _load(run, _TaskAndData)
    given = cli.config.data.get("init_args", Namespace()).as_dict()
    load_data(cli.datamodule, given)
    return task, cli.datamodule


def _load(run: Path, kind: type[_TaskOnly]) -> tuple[AbstractTask, _TaskOnly]:
    folder = RunFolder(run)
    if not run.is_dir():
        raise ConfigurationError(f"{run} is no folder of a run.")
    if folder.summary.is_file() and not folder.model.is_file():
        seeds = sorted(path.name for path in run.glob("seed_[0-9]*"))
        raise ConfigurationError(
            f"{run} holds several seeds; name one of them, such as {run / (seeds or ['seed_0'])[0]}."
        )
    for path in (folder.config, folder.model):
        if not path.is_file():
            raise ConfigurationError(f"{run} holds no trained model: {path.name} is missing; `il2o run` writes it.")
    checkpoint = read_checkpoint(folder.model, require=("state_dict",))
    cli = kind([f"--config={folder.config}"])
    task: AbstractTask = cli.model
    try:
        task.on_load_checkpoint(checkpoint)
        task.load_state_dict(checkpoint["state_dict"])
        task.all_certificates()
    except (RuntimeError, ValueError) as error:  # other layers, other measures
        raise ConfigurationError(
            f"{folder.model} does not fit the model of {folder.config}: {one_line(error)[:200]}"
        ) from error
    return task.eval(), cli


def certify(
    run: Path,
    data: Path,
    *,
    array: str | None = None,
    out: Path | None = None,
    batch_size: int = 500,
    progress: bool = True,
) -> int:
    """Infer new samples, write predictions and certificates, print the counts.

    Args:
        run: folder of a finished run.
        data: `.npz`, `.parquet`, `.h5` or `.csv`.
        array: which array of the file holds the inputs; None finds it.
        out: folder for `predictions.npz` and `certificates.json`; None takes `RUN/certified/NAME-OF-FILE`.
        batch_size: samples at once.
        progress: show a bar.

    Returns:
        How many samples fail.

    Raises:
        ConfigurationError: there is no such run, or the file does not hold such inputs.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size must be at least 1; got {batch_size}.")
    try:
        task = load_task(run)
        d = _inputs(task, run, data, array)
    except ConfigurationError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigurationError(in_words(error)) from error
    parts = list(_examined(task, d, batch_size, progress))
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    names = tuple(certificate.name for certificate in task.all_certificates())
    samples = Samples(names=names, batch=(d,), **found)  # pyright: ignore[reportArgumentType]
    folder = RunFolder(run / "certified" / data.stem if out is None else out)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_predictions(folder, samples)
    write_json(folder.certificates, plain(certificate_record(task, samples)))
    print(report(samples, task).table())
    print(f"\nwritten: {folder.predictions}, {folder.certificates}")
    return int((samples.worst == il2o.Label.FAIL).sum())


def _inputs(task: AbstractTask, run: Path, data: Path, array: str | None) -> Tensor:
    if task.inputs is None:
        raise ConfigurationError(f"{run} does not say what its inputs look like; train it again.")
    from implicit_l2o.data.tables import read_inputs

    shape, dtype = task.inputs
    return read_inputs(data, name=array, shape=shape, dtype=dtype)


def _examined(task: AbstractTask, d: Tensor, batch_size: int, progress: bool) -> Iterator[dict[str, Tensor]]:
    with (
        tqdm(total=len(d), desc="certify", unit="sample", file=sys.stderr, disable=not progress) as bar,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", il2o.ConvergenceWarning)  # the record says it of each sample
        for batch in d.split(batch_size):
            yield task.examine(batch)
            bar.update(len(batch))


def report(samples: Samples, task: AbstractTask) -> il2o.CertificateReport:
    """The samples as the library's own report."""
    rules = [certificate.rule for certificate in task.all_certificates()]
    # What fails although none of its properties does, has no answer that could be measured.
    converged = ~((samples.worst == il2o.Label.FAIL) & (samples.labels != il2o.Label.FAIL).all(dim=1))
    if samples.status is not None:
        converged = converged & (samples.status == il2o.Status.CONVERGED)
    return il2o.CertificateReport(
        names=samples.names,
        values=samples.values,
        labels=samples.labels,
        limits=tuple((rule.pass_limit, rule.warn_limit) for rule in rules),
        converged=converged,
    )
