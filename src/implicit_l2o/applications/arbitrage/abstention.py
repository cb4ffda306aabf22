"""What the post-conditions of a trained model promise: calibrated on validation samples, judged on test samples."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.arbitrage.analytic import optimal_trade
from implicit_l2o.applications.arbitrage.certificates import ChanceOfRefusal, LearnedRisk, LossOfUtility
from implicit_l2o.training import Samples

if TYPE_CHECKING:
    from implicit_l2o.applications.arbitrage.task import ArbitrageTask

LEVEL = 0.02  # of each conformal limit: the chance that a usual trade fails the property


@torch.no_grad()
def abstention(
    task: "ArbitrageTask",
    samples: Samples,
    usual: il2o.Inference,
    reserves: Tensor,
    at_most: float,
    confidence: float,
    *,
    observed: bool,
) -> dict[str, Any]:
    """Trades are sent where the chance of a refusal is small enough: the limit, its coverage, the executed share.

    The limit is the largest one for which, with the confidence, at most a share of the sent trades is refused, from
    validation samples alone (`il2o.selective_limit`). Where none can be promised, the limit is -1 and nothing is sent.

    Args:
        task: trained.
        samples: the examined test samples.
        usual: the trades for the validation samples.
        reserves: the true ones of those.
        at_most: the share of refused trades.
        confidence: of the promise, over calibrations.
        observed: the chance of a refusal is under the observed volatility; else under the largest one of the recipe.
    """
    measure = ChanceOfRefusal(task.market, observed=observed)
    wrong = ~task.market.executed(usual.x, reserves.double())
    try:
        limit = il2o.selective_limit(measure(usual), wrong, at_most=at_most, confidence=confidence).limit
    except ValueError:
        limit = -1.0
    tested = il2o.Inference(x=samples.answer, data=samples.batch[0])
    executed = task.market.executed(samples.answer.double(), samples.batch[1].double())
    sent = measure(tested) <= limit
    earned = torch.where(executed, task.market.utility(samples.answer.double()), 0.0)
    found, worth = il2o.coverage(sent, executed.double()), il2o.coverage(sent, earned)
    return {
        "at_most": at_most,
        "confidence": confidence,
        "limit": limit,
        "coverage": found.share,
        "executed_of_sent": found.quality_kept,
        "executed_of_kept_back": found.quality_refused,
        "utility_of_sent": worth.quality_kept,
        "utility_over_all": worth.quality_kept * found.share if found.kept else 0.0,
    }


@torch.no_grad()
def promises(task: "ArbitrageTask", samples: Samples, usual: il2o.Inference) -> dict[str, Any]:
    """The share of test trades that fails each conformal limit, one by one and together, also for the analytic optimum."""
    measures = [LearnedRisk(task.layer.W()), ChanceOfRefusal(task.market), LossOfUtility(task.market)]
    certificates = il2o.conformal(measures, usual, level=LEVEL)
    analytic = optimal_trade(task.market, samples.batch[0][:, : len(task.market.prices)].double())
    shares = {}
    for name, answers in (("conformal", samples.answer.double()), ("conformal_analytic", analytic)):
        inference = il2o.Inference(x=answers, data=samples.batch[0])
        report = il2o.certify(certificates, inference)
        together = il2o.adjusted(il2o.p_values(certificates, inference), "holm")
        failed = (report.labels == il2o.Label.FAIL).double().mean(0)
        shares[name] = {
            "level": LEVEL,
            "learned_risk": float(failed[0]),
            "chance_of_refusal": float(failed[1]),
            "loss_of_utility": float(failed[2]),
            "any": _share((report.labels == il2o.Label.FAIL).any(1)),
            "holm": _share((together <= LEVEL).any(1)),
            "unprofitable": _share(task.market.utility(answers) <= 0),
        }
    return shares


def _share(which: Tensor) -> float:
    return float(which.double().mean())
