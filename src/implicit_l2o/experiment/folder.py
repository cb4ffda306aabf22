"""The files of a run, by name, and the right to write them."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from implicit_l2o.experiment.errors import ConfigurationError

_WRITTEN = ("config.yaml", "metrics.csv", "checkpoints", "model.ckpt", "results.json", "certificates.json")
_WRITTEN += ("predictions.npz", "predict", "figures", "report.html", "summary.json", "baselines", "seed_[0-9]*")
_WRITTEN += ("baselines.npz", "player.html")
_WRITTEN += ("events.out.tfevents.*",)
_OF_A_RUN = ("metrics.csv", "checkpoints", "results.json", "summary.json", "seed_[0-9]*")  # of nothing else
_HEADER = b"# lightning.pytorch=="  # of a configuration that was written by a run
_locks: dict[Path, int] = {}  # open folders


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what.

    Args:
        path: the folder.

    Example:
        >>> from pathlib import Path
        >>> from implicit_l2o.experiment import RunFolder
        >>> RunFolder(Path("runs/digits")).best.as_posix()
        'runs/digits/checkpoints/best.ckpt'
    """

    path: Path

    @property
    def config(self) -> Path:
        """The complete configuration: `il2o run` repeats the run from it."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of the training's checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint from which a training goes on."""
        return self.checkpoints / "last.ckpt"

    @property
    def model(self) -> Path:
        """The best weights with their certificates, for inference."""
        return self.path / "model.ckpt"

    @property
    def results(self) -> Path:
        """Every number."""
        return self.path / "results.json"

    @property
    def certificates(self) -> Path:
        """Rules, and the labels of every test sample."""
        return self.path / "certificates.json"

    @property
    def predictions(self) -> Path:
        """The arrays behind the report."""
        return self.path / "predictions.npz"

    @property
    def baselines(self) -> Path:
        """The answers of the baselines to the test."""
        return self.path / "baselines.npz"

    @property
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def player(self) -> Path:
        """The page that plays solves."""
        return self.path / "player.html"

    @property
    def summary(self) -> Path:
        """Means and intervals, in the folder of several seeds."""
        return self.path / "summary.json"

    def seed(self, seed: int) -> "RunFolder":
        """The run of one seed among several."""
        return RunFolder(self.path / f"seed_{seed}")

    def checkpoint(self, name: str) -> Path:
        """A checkpoint by `"last"`, `"best"` or `"model"`, or by its path.

        Raises:
            ConfigurationError: it is not there; the message lists those that are.
        """
        known = {"last": self.last, "best": self.best, "model": self.model}
        path = known.get(name, Path(name))
        if not path.is_file():
            there = [other for other, file in known.items() if file.is_file()]
            has = f"{self.path} has {', '.join(there)}" if there else f"{self.path} has no checkpoint yet"
            raise ConfigurationError(f"no checkpoint {path}; {has}.")
        return path

    def claim(self, *, resume: bool, overwrite: bool = False) -> None:
        """Make the folder, and make it this process's own until `release`; an earlier run in it is not lost by accident.

        Args:
            resume: go on with the run that is in it.
            overwrite: remove the run that is in it.

        Raises:
            ConfigurationError: another process writes it, or it holds something that may be neither kept nor removed.
            OSError: it cannot be made.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigurationError(f"{self.path} is a file; name another folder with --folder DIR.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock()
        old = [path for pattern in _WRITTEN for path in self.path.glob(pattern)]
        if not old or resume:
            return
        if not self._is_run():
            names = ", ".join(sorted(path.name for path in old))
            raise ConfigurationError(
                f"{self.path} holds {names}, which a run would replace; name another folder with --folder DIR."
            )
        if not overwrite:
            raise ConfigurationError(
                f"{self.path} holds an earlier run: go on with it (--ckpt_path last), replace it (--overwrite), or name "
                "another folder (--folder DIR)."
            )
        for path in old:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _is_run(self) -> bool:
        """Whether what is here was written by a run, even one that was killed at once."""
        if any(any(self.path.glob(pattern)) for pattern in _OF_A_RUN):
            return True
        return self.config.is_file() and self.config.read_bytes().startswith(_HEADER)

    def release(self) -> None:
        """Let other processes write here."""
        descriptor = _locks.pop(self.path.resolve(), None)
        if descriptor is not None:
            os.close(descriptor)

    def _lock(self) -> None:
        """The system lets go of it when the process ends, however it ends."""
        key = self.path.resolve()
        if key in _locks:
            return
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        descriptor = os.open(key, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigurationError(
                f"another process is writing into {self.path}; wait for it, or name another folder with --folder DIR."
            ) from None
        except OSError:  # a file system without locks
            os.close(descriptor)
            return
        _locks[key] = descriptor
