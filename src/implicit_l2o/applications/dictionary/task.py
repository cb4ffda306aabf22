"""The training, the tests and the certificates of the implicit dictionary."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric, MetricCollection

import implicit_l2o as il2o
from implicit_l2o.applications.dictionary.certificates import fidelity, sparsities
from implicit_l2o.applications.dictionary.comparison import compare_splittings
from implicit_l2o.applications.dictionary.data import Sizes, world
from implicit_l2o.applications.dictionary.figures import draw_atoms, draw_properties, draw_signal, draw_signals
from implicit_l2o.applications.dictionary.metrics import recovery_metrics, update_recovery
from implicit_l2o.applications.dictionary.model import ImplicitDictionary, fixed_steps
from implicit_l2o.training import About, AbstractTask, Optimization, Samples, Splits

_COMPARED = 100  # test signals on which the splittings are timed


@final
class DictionaryTask(AbstractTask):
    """Learn the transform under which unknown signals are sparse, from signals and their measurements.

    Args:
        sizes: of the problem; None takes the published ones.
        conditioning: weight of the penalty that keeps the transform invertible, at least 0; without it `D` collapses onto
            the span of the signals, where `K` is of no use for certificates.
        training_steps: of the solver while training, at least 1; a gradient needs no converged answer.
        backward: None takes `JFB()`.
        solver: of the answers; None takes the model's.
        seed: of the problem and of the first `D`; None takes the run's. It must be that of the data.
        optimization: None takes AdamW at 1e-2 with a cosine schedule.

    Raises:
        ValueError: an argument is out of its range; when the training begins, data of another problem.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.dictionary.task import DictionaryTask
        >>> task = DictionaryTask(seed=0).eval()
        >>> task.infer(torch.zeros(2, 100)).x.shape
        torch.Size([2, 250])
    """

    monitor = "val/mse"

    def __init__(
        self,
        *,
        sizes: Sizes | None = None,
        conditioning: float = 1e-4,
        training_steps: int = 50,
        backward: il2o.AbstractBackward | None = None,
        solver: il2o.AbstractFixedPointSolver | None = None,
        seed: int | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        if not conditioning >= 0:
            raise ValueError(f"DictionaryTask needs conditioning >= 0; got conditioning={conditioning}.")
        if training_steps < 1:
            raise ValueError(f"DictionaryTask needs training_steps >= 1; got training_steps={training_steps}.")
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        made = world(Sizes() if sizes is None else sizes, seed)
        network = ImplicitDictionary(made.A, seed=seed, solver=solver, backward=backward)
        super().__init__(network, optimization=optimization or Optimization(learning_rate=1e-2))
        self.conditioning = conditioning
        self.training_solver = fixed_steps(training_steps)
        self.register_buffer("M", made.M)  # for the figures and the findings; the training does not see it

    @property
    def network(self) -> ImplicitDictionary:
        """The model."""
        assert isinstance(self.model, ImplicitDictionary)
        return self.model

    def on_fit_start(self) -> None:
        """Refuse data that were measured by another `A`."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        d, x = data.splits.train[:100]
        predicted = x.to(self.device) @ self.network.A.mT
        if predicted.shape != d.shape or not torch.allclose(predicted, d.to(self.device), atol=1e-3):
            raise ValueError("DictionaryTask: the data are of another problem; give both the same seed and sizes.")

    def infer(self, d: Tensor) -> il2o.Inference:
        """The signals, to the tolerance."""
        return self.network(d)

    def training_inference(self, d: Tensor) -> il2o.Inference:
        """The signals after a fixed number of steps."""
        return self.network(d, self.training_solver)

    def loss(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Tensor:
        """Mean squared error over samples and entries, plus the weighted conditioning of the dictionary."""
        error = (inference.x - batch[1]).square().mean()
        return error + self.conditioning * self.network.conditioning() if self.conditioning else error

    def metrics(self) -> Mapping[str, Metric]:
        """Mean squared error, and the largest relative fidelity."""
        return recovery_metrics(self.network.A)

    def update(self, metrics: MetricCollection, inference: il2o.Inference, batch: Sequence[Tensor]) -> None:
        """See `update_recovery`."""
        update_recovery(metrics, inference, batch)

    def error(self, inference: il2o.Inference, batch: Sequence[Tensor]) -> Float[Tensor, " B"]:
        """Mean squared error of each signal."""
        return (inference.x - batch[1]).square().mean(dim=1)

    def certificates(self) -> Sequence[il2o.Certificate]:
        """Does the answer explain the measurement? A fixed limit."""
        return (fidelity(self.network.A),)

    def measures(self) -> Sequence[il2o.AbstractMeasure]:
        """Is the answer as sparse as those of the training data?"""
        return sparsities(self.network.K)

    def about(self) -> About:
        """What the report says in words."""
        return About(
            title="Implicit dictionary",
            summary="A signal is recovered from fewer measurements than it has entries, as the one that explains them "
            "exactly and is sparsest under a learned transform.",
            problem=r"x(d) = \arg\min_x \|K x\|_1 \quad \text{s.t.} \quad A x = d",
            guarantees=(
                "Every answer satisfies A x = d up to rounding, however few steps were made.",
                "The iteration converges for every learned transform: it is firmly nonexpansive, relaxed by less than 2.",
                "Answers scale with their measurements: x(c d) = c x(d).",
            ),
        )

    def draw(self, figure: Figure, sample: Mapping[str, Tensor]) -> None:
        """The recovered signal on the true one."""
        draw_signal(figure.subplots(), sample["answer"], sample.get("target"))

    def findings(self, samples: Samples, splits: Splits) -> Mapping[str, Any]:
        """What the certificates say of each kind of signal, the splittings side by side, and what was learned."""
        kinds = self.kinds(samples)
        singular = torch.linalg.svdvals(self.network.D.detach().double())
        return {
            "kinds": {kind: self._shares(x, samples.batch[0]) for kind, x in kinds.items()},
            "published_threshold": self._limit("sparsity"),
            "splittings": compare_splittings(self.network, samples.batch[0][:_COMPARED]),
            "condition_number": float(singular[0] / singular[-1]),
            "atoms_found": float(self.atoms_found().median()),
        }

    def figures(self, samples: Samples, splits: Splits) -> Mapping[str, tuple[Figure, str]]:
        """Signals, the two properties of each kind of signal, and the learned transform of the true atoms."""
        d, x = samples.batch[:2]
        kinds = self.kinds(samples)
        values = {kind: self._values(signal, d) for kind, signal in kinds.items()}
        names = [certificate.name for certificate in self.all_certificates()]
        limits = {certificate.name: certificate.rule.warn_limit for certificate in self.all_certificates()}
        assert samples.error is not None
        median = int(samples.error.argsort()[len(x) // 2])
        return {
            "Signals": (
                draw_signals({kind: signal[median] for kind, signal in kinds.items()}, self.network.K.cpu()),
                "The test signal of median error, and its transform by the learned K: what explains the measurement is not "
                "enough, and what is sparse is not enough.",
            ),
            "Properties": (
                draw_properties(values, names, limits),
                "Fidelity and sparsity of each kind of signal; right of and above the lines a certificate fails.",
            ),
            "Atoms": (
                draw_atoms((self.network.K @ self.get_buffer("M")).cpu()),
                "The learned transform of the true atoms, each scaled to largest entry 1; rows in the order of the atom to "
                "which they answer most. Of a found atom one row is dark, the others are white.",
            ),
        }

    @torch.no_grad()
    def kinds(self, samples: Samples) -> dict[str, Float[Tensor, "N signal"]]:
        """Signals for the test measurements: true, recovered, those of another sample, and of least norm."""
        d, x = samples.batch[:2]
        least = il2o.affine_factor(self.network.A.cpu()).solve(d)
        return {"true": x, "model": samples.answer, "wrong signal": x.roll(1, 0), "least squares": least}

    def atoms_found(self) -> Float[Tensor, " atoms"]:
        """The largest cosine of each true atom with a learned one."""
        learned, true = (torch.nn.functional.normalize(part, dim=0) for part in (self.network.D, self.get_buffer("M")))
        return (learned.mT @ true).abs().amax(dim=0).detach()

    @torch.no_grad()
    def _values(self, x: Tensor, d: Tensor) -> Tensor:
        answers = il2o.Inference(x=x.to(self.device), data=d.to(self.device))
        return il2o.certify(self.all_certificates(), answers).values.cpu()

    @torch.no_grad()
    def _shares(self, x: Tensor, d: Tensor) -> dict[str, dict[str, float]]:
        """Median value and share of FAIL, by certificate."""
        report = il2o.certify(self.all_certificates(), il2o.Inference(x=x.to(self.device), data=d.to(self.device)))
        failed = (report.labels == il2o.Label.FAIL).double().mean(dim=0)
        return {
            certificate.name: {"median": float(report.values[:, i].median()), "failed": float(failed[i])}
            for i, certificate in enumerate(self.all_certificates())
        }

    def _limit(self, name: str) -> float:
        return next(float(c.rule.warn_limit) for c in self.all_certificates() if c.name == name)
