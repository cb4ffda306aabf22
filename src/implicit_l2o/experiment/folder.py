"""The files of a run, by name."""

from dataclasses import dataclass
from pathlib import Path


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
    def figures(self) -> Path:
        """The folder of the figures."""
        return self.path / "figures"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

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
            FileNotFoundError: it is not there; the message lists those that are.
        """
        path = {"last": self.last, "best": self.best, "model": self.model}.get(name, Path(name))
        if not path.is_file():
            there = [known for known in ("last", "best", "model") if self.checkpoint_path(known).is_file()]
            has = f"{self.path} has {', '.join(there)}" if there else f"{self.path} has no checkpoint yet"
            raise FileNotFoundError(f"no checkpoint {path}; {has}.")
        return path

    def checkpoint_path(self, name: str) -> Path:
        """Where `"last"`, `"best"` or `"model"` would be."""
        return {"last": self.last, "best": self.best, "model": self.model}[name]
