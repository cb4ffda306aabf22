"""Limits with a guarantee: coverage by simulation, p-values, joint tests, and selective limits."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

import implicit_l2o as il2o
from implicit_l2o.certificates.selective import _tail


class First(il2o.AbstractMeasure):
    """The first entry."""

    def __init__(self, name: str = "first", index: int = 0) -> None:
        self.name = name
        self.index = index

    def __call__(self, inference: il2o.Inference) -> torch.Tensor:
        return inference.x[:, self.index]


@pytest.mark.parametrize(("count", "level"), [(19, 0.05), (20, 0.05), (57, 0.1), (100, 0.025)])
def test_coverage_is_that_of_the_theorem(count: int, level: float) -> None:
    random = torch.Generator().manual_seed(count)
    trials = 1500
    fails = plain = 0
    rule = il2o.Conformal(torch.zeros(count), level=level)
    for _ in range(trials):
        values = torch.rand(count + 1, generator=random, dtype=torch.float64).log()  # any continuous distribution
        rule = il2o.Conformal(values[:-1], level=level)
        fails += int(values[-1] > rule.warn_limit)
        plain += int(values[-1] > values[:-1].sort().values[math.ceil(count * (1 - level) - 1e-9) - 1])
    exact = rule.fail_rate
    assert level - 1 / (count + 1) <= exact <= level
    assert abs(fails / trials - exact) <= 4 * math.sqrt(exact / trials)
    assert plain >= fails  # the plain quantile is the smaller limit, or the same


def test_the_share_that_fails_given_one_calibration_follows_the_beta_distribution() -> None:
    random = torch.Generator().manual_seed(0)
    count, level = 99, 0.1
    rank = math.ceil((count + 1) * (1 - level))
    shares = [
        1 - float(il2o.Conformal(torch.rand(count, generator=random).double(), level=level).warn_limit)
        for _ in range(2000)
    ]
    law = beta(count + 1 - rank, rank)
    for q in (0.05, 0.5, 0.95):
        assert float(torch.tensor(shares).quantile(q)) == pytest.approx(law.ppf(q), abs=0.008)


def test_too_few_values_are_refused() -> None:
    il2o.Conformal(torch.zeros(19), level=0.05)
    with pytest.raises(ValueError, match=r"needs at least 19 calibration values; got 18"):
        il2o.Conformal(torch.zeros(18), level=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 0.0}, r"0 < level < 1; got level=0.0"),
        ({"level": 0.1, "warn_level": 0.05}, r"level=0.1 <= warn_level < 1; got warn_level=0.05"),
    ],
)
def test_bad_levels(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        il2o.Conformal(torch.zeros(99), **options)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 30 calibration values are NaN"):
        il2o.Conformal(torch.cat([torch.zeros(29), torch.tensor([math.nan])]))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(-1, 8))
def test_p_values_count(values: list[int], new: int) -> None:
    rule = il2o.Conformal(torch.tensor(values).double(), level=0.5)
    expected = (1 + sum(value >= new for value in values)) / (len(values) + 1)
    assert float(rule.p_value(torch.tensor([float(new)]).double())) == pytest.approx(expected)


def test_p_values_are_valid_and_nan_is_the_worst() -> None:
    random = torch.Generator().manual_seed(1)
    p = torch.stack(
        [
            il2o.Conformal(torch.randn(49, generator=random), level=0.05).p_value(torch.randn(1, generator=random))
            for _ in range(3000)
        ]
    )
    for level in (0.02, 0.1, 0.5):
        assert float((p <= level).double().mean()) <= level + 4 * math.sqrt(level / len(p))
    assert float(il2o.Conformal(torch.zeros(49), level=0.05).p_value(torch.tensor([math.nan]))) == pytest.approx(1 / 50)


def test_failing_is_a_p_value_of_at_most_the_level() -> None:
    random = torch.Generator().manual_seed(2)
    rule = il2o.Conformal(torch.randn(199, generator=random), level=0.05)
    new = torch.randn(2000, generator=random)
    assert torch.equal(rule.label(new) == il2o.Label.FAIL, rule.p_value(new).double() <= 0.05 + 1e-9)


def closed_test(p: list[float], level: float) -> list[bool]:
    """Holm's procedure by the closure principle: reject where every intersection that contains the test is rejected."""
    sets = [s for r in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), r)]
    rejected = {s: min(p[i] for i in s) * len(s) <= level for s in sets}
    return [all(rejected[s] for s in sets if i in s) for i in range(len(p))]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5), st.sampled_from([0.017, 0.053, 0.21]))
def test_holm_is_the_closed_bonferroni_test(hundredths: list[int], level: float) -> None:
    p = [value / 100 for value in hundredths]
    tensor = torch.tensor([p], dtype=torch.float64)
    holm, bonferroni = il2o.adjusted(tensor)[0], il2o.adjusted(tensor, "bonferroni")[0]
    assert (holm <= level).tolist() == closed_test(p, level)
    assert bool((holm <= bonferroni).all())
    assert bool((holm >= tensor[0]).all())
    assert bonferroni.tolist() == pytest.approx([min(1.0, len(p) * value) for value in p])


@pytest.mark.parametrize("rule", ["bonferroni", "holm"])
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_joint_test_refuses_usual_samples_at_most_at_its_level(rule: str, shared: float) -> None:
    """Whatever the dependence: independent properties, and the same one three times."""
    random = torch.Generator().manual_seed(3)
    level, trials, new, shares = 0.1, 150, 20, []
    for _ in range(trials):
        common, own = torch.randn(99 + new, 1, generator=random), torch.randn(99 + new, 3, generator=random)
        values = shared * common + (1 - shared) * own
        certificates = il2o.conformal(
            [First(f"property {i}", i) for i in range(3)], il2o.Inference(x=values[:99]), level=0.05
        )
        p = il2o.p_values(certificates, il2o.Inference(x=values[99:]))
        shares.append((il2o.adjusted(p, rule) <= level).any(1).double().mean())  # pyright: ignore[reportArgumentType]
    refused, error = float(torch.stack(shares).mean()), float(torch.stack(shares).std()) / math.sqrt(trials)
    assert refused <= level + 4 * error
    assert shared or refused >= level / 2  # and not much less often, where they are independent


@pytest.mark.bad_input
def test_adjusted_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r'"bonferroni" or "holm"; got \'fisher\''):
        il2o.adjusted(torch.ones(1, 2), "fisher")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"p-values must lie in \[0, 1\]"):
        il2o.adjusted(torch.tensor([[1.2]]))


def test_conformal_certificates_survive_json_and_name_what_fails() -> None:
    data = il2o.Inference(x=torch.linspace(0, 1, 99)[:, None])
    made = il2o.conformal([First()], data, level=0.1, warn_level=0.2)
    [back] = il2o.certificates_from_json(il2o.certificates_to_json(made), [First()])
    assert isinstance(back.rule, il2o.Conformal)
    assert (back.rule.pass_limit, back.rule.warn_limit) == (made[0].rule.pass_limit, made[0].rule.warn_limit)
    assert back.rule.pass_limit < back.rule.warn_limit
    with pytest.raises(ValueError, match=r"cannot calibrate 'first': a level of 0\.001 needs at least 999"):
        il2o.conformal([First()], data, level=0.001)


def test_p_values_need_conformal_rules_and_see_what_did_not_converge() -> None:
    fixed = il2o.Certificate(First(), il2o.Threshold(1.0))
    with pytest.raises(TypeError, match=r"'first' needs a Conformal rule for a p-value; it has a Threshold"):
        il2o.p_values([fixed], il2o.Inference(x=torch.zeros(1, 1)))
    certificates = il2o.conformal([First()], il2o.Inference(x=torch.linspace(0, 1, 19)[:, None]))
    status = torch.tensor([int(il2o.Status.CONVERGED), int(il2o.Status.MAX_STEPS)])
    p = il2o.p_values(certificates, il2o.Inference(x=torch.zeros(2, 1), status=status))
    assert p[:, 0].tolist() == pytest.approx([1.0, 1 / 20])


@given(st.integers(0, 40), st.integers(1, 400), st.floats(0.005, 0.5))
def test_the_binomial_tail(failures: int, count: int, share: float) -> None:
    assert _tail(min(failures, count), count, share) == pytest.approx(
        float(binom.cdf(min(failures, count), count, share)), rel=1e-9, abs=1e-300
    )


def test_a_selective_limit_keeps_its_promise() -> None:
    """Scores in [0, 1] that are the probability of being wrong, so the true share below a limit is half of it."""
    random = torch.Generator().manual_seed(4)
    at_most, confidence, trials = 0.05, 0.9, 200
    broken, kept = 0, 0.0
    for _ in range(trials):
        values = torch.rand(1000, generator=random, dtype=torch.float64)
        wrong = torch.rand(1000, generator=random, dtype=torch.float64) < values
        try:
            found = il2o.selective_limit(values, wrong, at_most=at_most, confidence=confidence)
        except ValueError:
            continue
        broken += found.limit / 2 > at_most
        kept += found.coverage / trials
        below = values <= found.limit
        assert found.wrong == pytest.approx(float(wrong[below].double().mean()))
        assert found.coverage == pytest.approx(float(below.double().mean()))
    assert broken / trials <= 1 - confidence + 3 * math.sqrt(0.1 * 0.9 / trials)
    assert kept > 0.015  # of the tenth that could be sent


def test_a_selective_limit_sends_ties_together_and_never_nan() -> None:
    values = torch.cat([torch.zeros(400), torch.ones(300), torch.full((5,), math.nan)])
    wrong = torch.cat([torch.zeros(400), torch.ones(305)]).bool()
    found = il2o.selective_limit(values, wrong, at_most=0.01)
    assert (found.limit, found.coverage, found.wrong) == (0.0, 400 / 705, 0.0)


@pytest.mark.parametrize(
    ("count", "bad", "message"),
    [
        (200, 0, "needs at least 299 samples with a finite value; got 200"),
        (500, 500, "of the best 299 samples 299 are"),
    ],
)
def test_a_promise_that_cannot_be_made(count: int, bad: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        il2o.selective_limit(torch.arange(float(count)), torch.arange(count) < bad, at_most=0.01)
    with pytest.raises(ValueError, match=r"0 < at_most < 1; got at_most=1\.0"):
        il2o.selective_limit(torch.zeros(3), torch.zeros(3).bool(), at_most=1.0)


def test_coverage_and_quality() -> None:
    found = il2o.coverage(torch.tensor([True, False, True]), torch.tensor([1.0, 0.0, 0.5]))
    assert (found.samples, found.kept, found.quality_kept, found.quality_refused) == (3, 2, 0.75, 0.0)
    assert found.share == pytest.approx(2 / 3)
    assert found.quality_all == pytest.approx(0.5)
    assert math.isnan(il2o.coverage(torch.zeros(2).bool(), torch.ones(2)).quality_kept)
