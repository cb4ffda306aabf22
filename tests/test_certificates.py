import json
import math
import random
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import implicit_l2o as il2o
from implicit_l2o.certificates import (
    AbstractMeasure,
    BanachBound,
    BanachEstimate,
    Calibration,
    Certificate,
    CertificateReport,
    ConstraintViolation,
    DavisYinDistance,
    FixedPointResidual,
    Inference,
    Label,
    Objective,
    ProximalResidual,
    RelativeDataFidelity,
    Sparsity,
    Threshold,
    TotalVariation,
    calibrate,
    certificates_from_json,
    certificates_to_json,
    certify,
)

PASS, WARN, FAIL = int(Label.PASS), int(Label.WARN), int(Label.FAIL)


@dataclass(frozen=True, eq=False)
class FirstEntry(AbstractMeasure):
    """A measure whose values a test chooses."""

    name: str = field(default="first entry", kw_only=True)

    def __call__(self, inference):
        return inference.x[:, 0]


def inference_of(values, **fields):
    return Inference(x=torch.as_tensor(values, dtype=torch.float64)[:, None], **fields)


def labels_of(rule, values):
    return rule.label(torch.as_tensor(values, dtype=torch.float64)).tolist()


# --- rules ---


def test_threshold_is_a_closed_interval():
    assert labels_of(Threshold(1.0), [0.0, 1.0, 1.0 + 1e-12, math.inf, math.nan]) == [PASS, PASS, FAIL, FAIL, FAIL]
    assert labels_of(Threshold(1.0, above=2.0), [1.0, 1.5, 2.0, 2.5]) == [PASS, WARN, WARN, FAIL]


def test_threshold_meets_its_own_limit_in_float32():
    assert Threshold(1e-3).label(torch.tensor([1e-3])).tolist() == [PASS]


@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf])
def test_threshold_refuses_a_limit_that_is_not_finite(limit):
    with pytest.raises(ValueError, match="finite limit"):
        Threshold(limit)


def test_threshold_refuses_a_warning_below_the_limit():
    with pytest.raises(ValueError, match=r"limit=1.0 <= above < inf; got above=0.5"):
        Threshold(1.0, above=0.5)


def test_labels_follow_the_papers_cdf_wherever_nothing_ties():
    known = torch.rand(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    new = torch.rand(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 1.2
    rule = Calibration(known, p_pass=0.8, p_warn=0.15, p_fail=0.05)
    by_count = (known[None, :] <= new[:, None]).double().mean(1)
    assert torch.equal(rule.cdf(new), by_count)
    paper = torch.where(by_count < 0.8, PASS, torch.where(by_count < 0.95, WARN, FAIL))
    assert torch.equal(rule.label(new), paper)


def test_cdf_counts_ties_and_keeps_nan():
    rule = Calibration(torch.tensor([1.0, 2.0, 2.0, 3.0] * 5))
    share = rule.cdf(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, math.nan]))
    assert share[:5].tolist() == [0.0, 0.25, 0.75, 1.0, 1.0]
    assert math.isnan(share[5])


@settings(deadline=None, max_examples=50)  # the first example pays for imports
@given(
    n=st.integers(1, 300),
    percent_fail=st.integers(0, 60),
    percent_warn=st.integers(0, 39),
    seed=st.integers(0, 100),
)
def test_calibration_values_themselves_get_exactly_the_chosen_shares(n, percent_fail, percent_warn, seed):
    p_fail, p_warn = percent_fail / 100, percent_warn / 100
    p_pass = 1 - p_fail - p_warn
    tails = [share for share in (percent_fail, percent_fail + percent_warn) if share]
    known = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).double()
    if tails and n * min(tails) < 100:
        with pytest.raises(ValueError, match=f"needs at least {math.ceil(100 / min(tails))} calibration values"):
            Calibration(known, p_pass=p_pass, p_warn=p_warn, p_fail=p_fail)
        return
    rule = Calibration(known, p_pass=p_pass, p_warn=p_warn, p_fail=p_fail)
    labels = rule.label(known)
    # Integer arithmetic: the shares are whole per cents, whatever floating point makes of them.
    assert int((labels == FAIL).sum()) == n * percent_fail // 100
    assert int((labels >= WARN).sum()) == n * (percent_fail + percent_warn) // 100


def test_ranks_are_exact_where_floating_point_is_not():
    assert 0.55 * 100 > 55  # why ranks are computed with fractions
    rule = Calibration(torch.arange(1.0, 101.0), p_pass=0.55, p_warn=0.0, p_fail=0.45)
    assert rule.pass_limit == rule.warn_limit == 55.0


def test_a_property_that_is_always_zero_passes_when_it_is_zero_again():
    rule = Calibration(torch.zeros(50))
    assert labels_of(rule, [0.0, 1e-9]) == [PASS, FAIL]
    assert labels_of(Calibration(torch.zeros(50), resolution=1e-6), [0.0, 1e-9, 1e-3]) == [PASS, PASS, FAIL]


def test_a_value_at_the_calibration_maximum_fails_only_where_a_larger_share_fails():
    known = torch.arange(1.0, 41.0)
    assert labels_of(Calibration(known), [38.0, 38.5, 39.0, 40.0, 41.0]) == [PASS, FAIL, FAIL, FAIL, FAIL]
    never = Calibration(known, p_pass=1.0, p_warn=0.0, p_fail=0.0)
    assert labels_of(never, [40.0, 40.5]) == [PASS, FAIL]
    warn = Calibration(known, p_pass=0.95, p_warn=0.05, p_fail=0.0)
    assert labels_of(warn, [38.0, 39.0, 40.0, 40.5]) == [PASS, WARN, WARN, FAIL]


def test_discrete_values_never_fail_more_than_the_chosen_share():
    known = torch.randint(0, 4, (1000,), generator=torch.Generator().manual_seed(3)).double()
    for p_fail in (0.05, 0.2, 0.5):
        rule = Calibration(known, p_pass=1 - p_fail, p_warn=0.0, p_fail=p_fail)
        assert (rule.label(known) == FAIL).double().mean() <= p_fail


def test_calibration_refuses_shares_that_do_not_sum_to_one_and_names_them():
    with pytest.raises(ValueError, match=r"got p_pass=0.9, p_warn=0.0, p_fail=0.05, sum 0.95"):
        Calibration(torch.zeros(100), p_pass=0.9)
    with pytest.raises(ValueError, match=r"p_warn >= 0"):
        Calibration(torch.zeros(100), p_pass=1.05, p_warn=-0.1, p_fail=0.05)
    with pytest.raises(ValueError, match=r"0 < p_pass <= 1"):
        Calibration(torch.zeros(100), p_pass=0.0, p_warn=0.5, p_fail=0.5)
    with pytest.raises(ValueError, match="got p_pass=nan"):
        Calibration(torch.zeros(100), p_pass=math.nan)


def test_calibration_counts_values_that_are_not_finite():
    values = torch.zeros(100)
    values[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    with pytest.raises(ValueError, match="3 of 100 calibration values are NaN or infinite"):
        Calibration(values)


@pytest.mark.parametrize("n", [0, 1, 19])
def test_calibration_names_the_number_of_values_it_needs(n):
    with pytest.raises(ValueError, match=rf"share of 0.05 above a limit needs at least 20 .* got {n}"):
        Calibration(torch.zeros(n))
    assert labels_of(Calibration(torch.arange(20.0)), [18.0, 19.0]) == [PASS, FAIL]


def test_calibration_needs_one_value_even_if_nothing_may_fail():
    with pytest.raises(ValueError, match="needs at least 1 "):
        Calibration(torch.zeros(0), p_pass=1.0, p_fail=0.0)


def test_calibration_refuses_a_negative_resolution():
    with pytest.raises(ValueError, match="got resolution=-1"):
        Calibration(torch.zeros(100), resolution=-1.0)


def test_calibration_neither_changes_nor_aliases_its_values():
    known = torch.tensor([3.0, 1.0, 2.0] * 10)
    copy = known.clone()
    rule = Calibration(known)
    assert torch.equal(known, copy)
    known.fill_(100.0)
    assert rule.pass_limit == 3.0


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(0, 10), min_size=20, max_size=60), new=st.lists(st.floats(0, 12), min_size=2))
def test_labels_partition_and_are_monotone_in_the_value(values, new):
    rule = Calibration(torch.tensor(values, dtype=torch.float64), p_pass=0.8, p_warn=0.1, p_fail=0.1)
    ordered = sorted(new)
    labels = labels_of(rule, ordered)
    assert set(labels) <= {PASS, WARN, FAIL}
    assert labels == sorted(labels)
    for value, label in zip(ordered, labels, strict=True):
        assert label == (PASS if value <= rule.pass_limit else WARN if value <= rule.warn_limit else FAIL)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_calibration_values_does_not_matter(seed):
    values = [round(random.Random(seed).gauss(0, 1), 1) for _ in range(40)]
    shuffled = random.Random(seed + 1).sample(values, len(values))
    new = torch.linspace(-3, 3, 61, dtype=torch.float64)
    one, two = (Calibration(torch.tensor(v, dtype=torch.float64)) for v in (values, shuffled))
    assert torch.equal(one.label(new), two.label(new))


# --- the fail rate on new data ---


@pytest.mark.parametrize("sample", [torch.rand, torch.randn], ids=["uniform", "normal"])
@pytest.mark.parametrize("p_fail", [0.05, 0.2])
def test_in_distribution_fail_rate_is_the_chosen_one(sample, p_fail):
    n_known, n_new, seeds = 500, 2000, 20
    rates = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        known = sample(n_known, 1, generator=generator, dtype=torch.float64)
        new = sample(n_new, 1, generator=generator, dtype=torch.float64)
        certificates = calibrate([FirstEntry()], Inference(x=known), p_pass=1 - p_fail, p_fail=p_fail)
        report = certify(certificates, Inference(x=new))
        count = report.counts()["first entry"][Label.FAIL]
        # The limit is the k-th of n_known values, so that the probability of exceeding it is Beta distributed.
        k = round((1 - p_fail) * n_known)
        law = stats.betabinom(n_new, n_known + 1 - k, k)
        assert law.ppf(1e-5) <= count <= law.ppf(1 - 1e-5)
        rates.append(count / n_new)
        assert certificates[0].rule.fail_rate == pytest.approx(law.mean() / n_new, rel=1e-12)
    deviation = law.std() / n_new / math.sqrt(seeds)
    assert abs(sum(rates) / seeds - law.mean() / n_new) <= 4 * deviation
    assert abs(sum(rates) / seeds - p_fail) <= 4 * deviation + 1 / n_known


# --- certify ---


def test_a_sample_that_did_not_converge_fails_every_certificate():
    status = torch.tensor([int(s) for s in il2o.Status])
    inference = inference_of([0.0] * len(status), status=status, residual=torch.zeros(len(status)).double())
    report = certify([Certificate(FirstEntry(), Threshold(1.0)), Certificate(Sparsity(), Threshold(9.0))], inference)
    converged = status == il2o.Status.CONVERGED
    assert torch.equal(report.trusted, converged)
    assert torch.equal((report.labels == FAIL).all(1), ~converged)
    assert "did not converge" in report.table()
    assert "did not converge" in report.table(int(il2o.Status.MAX_STEPS))
    assert torch.equal(certify([], inference).trusted, converged)
    assert torch.equal(certify([], inference).worst == FAIL, ~converged)


def test_an_answer_that_is_not_finite_fails_even_measures_that_overlook_it():
    x = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [math.inf, 0.0]])
    assert Sparsity()(Inference(x=x)).tolist() == [1.0, 0.0, 1.0]  # NaN > 0 is false: the count overlooks it
    report = certify([Certificate(Sparsity(), Threshold(2.0))], Inference(x=x))
    assert report.labels[:, 0].tolist() == [PASS, FAIL, FAIL]
    assert report.values[:, 0].isnan().tolist() == [False, True, True]


def test_a_nan_value_fails_alone():
    data = torch.tensor([[1.0], [math.nan], [1.0]])
    measure = RelativeDataFidelity(il2o.Matrix(torch.eye(1)))
    report = certify([Certificate(measure, Threshold(0.1))], Inference(x=torch.ones(3, 1), data=data))
    assert report.labels[:, 0].tolist() == [PASS, FAIL, PASS]


def test_report_counts_worst_and_trusted():
    certificates = [
        Certificate(FirstEntry(), Threshold(1.0, above=2.0)),
        Certificate(Sparsity(), Threshold(0.0, above=5.0)),
    ]
    report = certify(certificates, inference_of([0.0, 1.5, 3.0]))
    assert report.names == ("first entry", "sparsity")
    assert report.labels.tolist() == [[PASS, PASS], [WARN, WARN], [FAIL, WARN]]
    assert report.worst.tolist() == [PASS, WARN, FAIL]
    assert report.trusted.tolist() == [True, False, False]
    assert report.counts()["sparsity"] == {Label.PASS: 1, Label.WARN: 2, Label.FAIL: 0}
    summary, one = report.table(), report.table(2)
    assert "first entry     1     1     1        1        2" in summary
    assert summary.endswith("1 of 3 samples are trusted.")
    assert "FAIL" in one
    assert one.endswith("sample 2: FAIL.")
    assert report.table(-1) == one
    with pytest.raises(IndexError, match="samples 0 to 2; got sample=3"):
        report.table(3)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 200))
def test_permuting_the_batch_permutes_the_report(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(17, 3, generator=generator, dtype=torch.float64)
    status = torch.randint(1, 3, (17,), generator=generator)
    order = torch.randperm(17, generator=generator)
    certificates = [Certificate(FirstEntry(), Threshold(0.3, above=0.6)), Certificate(Sparsity(order=1), Threshold(2))]
    report = certify(certificates, Inference(x=x, status=status))
    permuted = certify(certificates, Inference(x=x[order], status=status[order]))
    assert torch.equal(permuted.labels, report.labels[order])
    assert torch.equal(permuted.values, report.values[order])
    assert torch.equal(permuted.trusted, report.trusted[order])


def test_an_empty_batch_gives_an_empty_report():
    report = certify([Certificate(FirstEntry(), Threshold(1.0))], Inference(x=torch.zeros(0, 1)))
    assert report.values.shape == (0, 1)
    assert report.trusted.shape == (0,)
    assert "0 of 0 samples are trusted." in report.table()
    assert CertificateReport.from_json(report.to_json()).values.shape == (0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_report_json_round_trip(dtype):
    x = torch.tensor([[0.1], [1 / 3], [math.nan], [math.inf], [1e-300]], dtype=dtype)
    status = torch.tensor([1, 1, 1, 3, 1])
    certificates = [Certificate(FirstEntry(), Threshold(0.2, above=0.4)), Certificate(Sparsity(), Threshold(1))]
    report = certify(certificates, Inference(x=x, status=status))
    text = report.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = CertificateReport.from_json(text)
    assert back.names == report.names
    assert back.limits == report.limits
    assert torch.equal(back.labels, report.labels)
    assert torch.equal(back.converged, report.converged)
    assert back.values.dtype == dtype
    assert torch.equal(back.values.nan_to_num(-1.0), report.values.nan_to_num(-1.0))
    assert back.table() == report.table()
    assert back.to_json() == text


def test_report_json_refuses_other_fields():
    report = json.loads(certify([], inference_of([0.0])).to_json())
    with pytest.raises(ValueError, match=r"has the fields \['converged', 'dtype', 'properties'\]"):
        CertificateReport.from_json(json.dumps(report | {"extra": 1}))
    wrong = report | {"properties": [{"name": "a", "limits": [0, 0], "values": [0.0], "labels": ["GOOD"]}]}
    with pytest.raises(ValueError, match=r"one of \['PASS', 'WARN', 'FAIL'\]; got 'GOOD'"):
        CertificateReport.from_json(json.dumps(wrong))


def test_certify_refuses_names_that_occur_twice_and_values_of_the_wrong_shape():
    twice = [Certificate(Sparsity(), Threshold(1.0)), Certificate(Sparsity(order=1), Threshold(1.0))]
    with pytest.raises(ValueError, match=r"\['sparsity'\] occur twice"):
        certify(twice, inference_of([0.0]))

    @dataclass(frozen=True, eq=False)
    class Scalar(AbstractMeasure):
        name: str = "scalar"

        def __call__(self, inference):
            return inference.x.sum()

    with pytest.raises(ValueError, match=r"'scalar' must return one value a sample, shape \(2,\); got \(\)"):
        certify([Certificate(Scalar(), Threshold(1.0))], inference_of([0.0, 1.0]))


def test_certify_leaves_no_graph():
    x = torch.ones(2, 3, requires_grad=True)
    report = certify([Certificate(Sparsity(order=1), Threshold(1.0))], Inference(x=x * 2))
    assert not report.values.requires_grad


# --- calibrate ---


def test_calibrate_over_batches_equals_calibrate_at_once():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measures = [FirstEntry(), Sparsity(order=1)]
    once = calibrate(measures, Inference(x=x))
    batched = calibrate(measures, (Inference(x=part) for part in x.split(32)))
    assert [c.name for c in batched] == ["first entry", "sparsity"]
    for one, two in zip(once, batched, strict=True):
        assert torch.equal(one.rule.values, two.rule.values)


def test_calibrate_leaves_out_what_did_not_converge_and_says_so():
    status = torch.ones(60, dtype=torch.int64)
    status[:20] = int(il2o.Status.MAX_STEPS)
    values = torch.cat([torch.full((20,), 100.0), torch.arange(40.0)])
    with pytest.warns(UserWarning, match="20 of 60 calibration samples did not converge and were left out"):
        [certificate] = calibrate([FirstEntry()], inference_of(values, status=status))
    assert len(certificate.rule.values) == 40
    assert certificate.rule.values.max() == 39


def test_calibrate_counts_nan_and_names_the_property():
    with pytest.raises(ValueError, match="cannot calibrate 'first entry': 2 of 30 calibration values are NaN"):
        calibrate([FirstEntry()], inference_of([math.nan, math.nan, *range(28)]))
    with pytest.raises(ValueError, match=r"cannot calibrate 'first entry': a share of 0.05 .* got 0"):
        calibrate([FirstEntry()], [])


def test_calibrate_warns_of_a_property_that_never_varies():
    with pytest.warns(UserWarning, match="all 30 calibration values of 'first entry' equal 0: .* Set resolution"):
        calibrate([FirstEntry()], inference_of([0.0] * 30))
    [certificate] = calibrate([FirstEntry()], inference_of([0.0] * 30), resolution=1e-6)
    assert labels_of(certificate.rule, [1e-7, 1e-5]) == [PASS, FAIL]


def test_certificates_json_round_trip():
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    certificates = (
        *calibrate([FirstEntry()], Inference(x=x), p_pass=0.8, p_warn=0.1, p_fail=0.1, resolution=1e-9),
        Certificate(Sparsity(), Threshold(1.0, above=2.0)),
    )
    text = certificates_to_json(certificates)
    back = certificates_from_json(text, [Sparsity(), FirstEntry()])
    assert [c.name for c in back] == ["sparsity", "first entry"]
    new = Inference(x=torch.randn(200, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    assert torch.equal(certify(certificates, new).labels, certify(back[::-1], new).labels)
    assert certificates_to_json(back[::-1]) == text


def test_certificates_json_refuses_other_measures_and_rules():
    text = certificates_to_json([Certificate(Sparsity(), Threshold(1.0))])
    with pytest.raises(ValueError, match=r"fields \['first entry'\]; got \['sparsity'\]"):
        certificates_from_json(text, [FirstEntry()])
    with pytest.raises(ValueError, match="a calibration has the fields"):
        certificates_from_json('{"sparsity": {"quantile": 3}}', [Sparsity()])


# --- measures ---


@pytest.mark.bad_input
def test_inference_refuses_batches_that_differ():
    with pytest.raises(ValueError, match=r"Inference.residual has shape \(2,\); .* B=3"):
        Inference(x=torch.zeros(3, 1), residual=torch.zeros(2))


@pytest.mark.parametrize("measure", [FixedPointResidual(), BanachBound(0.5), BanachEstimate(0.5)])
def test_measures_of_a_solve_need_a_solve(measure):
    with pytest.raises(ValueError, match="needs the residual"):
        measure(Inference(x=torch.zeros(1, 1)))


@pytest.mark.parametrize("measure", [ConstraintViolation(), Objective(), DavisYinDistance()])
def test_measures_of_a_problem_need_a_problem(measure):
    with pytest.raises(ValueError, match=r"needs the problem; use Inference\.of"):
        measure(Inference(x=torch.zeros(1, 1)))


def test_constraint_violation_is_the_largest_distance():
    problem = il2o.Problem(g=il2o.Box(lower=0.0), h=il2o.Box(upper=1.0))
    x = torch.tensor([[0.5, 0.5], [-3.0, -4.0], [2.0, -0.5]])
    assert ConstraintViolation()(Inference(x=x, problem=problem)).tolist() == [0.0, 5.0, 1.0]
    assert ConstraintViolation(il2o.Box(upper=1.0))(Inference(x=x, problem=problem)).tolist() == [0.0, 0.0, 1.0]


def test_relative_data_fidelity_and_its_zero_measurement():
    A = il2o.Matrix(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[1.0, 3.0], [0.0, 0.0], [1.0, 0.0]])
    d = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert RelativeDataFidelity(A)(Inference(x=x, data=d)).tolist() == [1.5, 0.0, math.inf]
    packed = RelativeDataFidelity(A, measurement=lambda data: data["y"])
    assert packed(Inference(x=x, data={"y": d})).tolist() == [1.5, 0.0, math.inf]
    with pytest.raises(TypeError, match="data of type dict"):
        RelativeDataFidelity(A)(Inference(x=x, data={"y": d}))
    with pytest.raises(ValueError, match=r"A x has shape \(3, 2\) but d \(3, 3\)"):
        RelativeDataFidelity(A)(Inference(x=x, data=torch.zeros(3, 3)))


def test_sparsity():
    x = torch.tensor([[0.0, -2.0, 0.1], [0.0, 0.0, 0.0]])
    K = il2o.Matrix(torch.tensor([[1.0, 1.0, 0.0]]))
    assert Sparsity()(Inference(x=x)).tolist() == [2.0, 0.0]
    assert Sparsity(tolerance=0.1)(Inference(x=x)).tolist() == [1.0, 0.0]
    assert Sparsity(order=1)(Inference(x=x)).tolist() == pytest.approx([2.1, 0.0])
    assert Sparsity(K, order=1)(Inference(x=x)).tolist() == [2.0, 0.0]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 2}, "got order=2"),
        ({"tolerance": -1.0}, "got tolerance=-1.0"),
        ({"order": 1, "tolerance": 0.1}, "order 0 only"),
    ],
)
def test_sparsity_refuses_other_options(options, message):
    with pytest.raises(ValueError, match=message):
        Sparsity(**options)


def test_total_variation_against_a_loop():
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat, round_ = [0.0, 0.0], [0.0, 0.0]
    for b in range(2):
        for c in range(3):
            for i in range(5):
                for j in range(4):
                    down = float(x[b, c, i + 1, j] - x[b, c, i, j]) if i < 4 else 0.0
                    right = float(x[b, c, i, j + 1] - x[b, c, i, j]) if j < 3 else 0.0
                    flat[b] += abs(down) + abs(right)
                    round_[b] += math.hypot(down, right)
    assert TotalVariation()(Inference(x=x)).tolist() == pytest.approx(flat)
    assert TotalVariation(isotropic=True)(Inference(x=x)).tolist() == pytest.approx(round_)
    assert TotalVariation()(Inference(x=x.sum(1))).shape == (2,)
    with pytest.raises(ValueError, match=r"needs images .* got shape \(1, 3\)"):
        TotalVariation()(Inference(x=torch.zeros(1, 3)))


def test_proximal_residual_vanishes_exactly_at_the_minimiser():
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    assert ProximalResidual(il2o.L1Norm(), step=0.5)(Inference(x=x)).tolist() == [0.0, 0.5]
    with pytest.raises(ValueError, match="0 < step < inf; got step=0"):
        ProximalResidual(il2o.L1Norm(), step=0.0)


# --- bounds on real solves ---


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), steps=st.sampled_from([1, 3, 10, 100]), n=st.integers(3, 12))
def test_davis_yin_distance_bounds_the_distance_at_any_step(seed, steps, n):
    generator = torch.Generator().manual_seed(seed)
    m = max(1, n // 3)
    A = torch.randn(m, n, generator=generator, dtype=torch.float64)
    inside = torch.rand(4, n, generator=generator, dtype=torch.float64)
    problem = il2o.Problem(
        F=il2o.QuadraticCost(linear=torch.randn(4, n, generator=generator, dtype=torch.float64), diagonal=1.0),
        g=il2o.Box(lower=0.0, upper=1.0),
        h=il2o.AffineSet(A, inside @ A.T),
    )
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps), relaxation=1.3)
    x0 = torch.randn(4, n, generator=generator, dtype=torch.float64)
    solution = il2o.solve(il2o.DavisYin(problem), x0, solver=solver, on_failure="ignore")
    bound = DavisYinDistance()(Inference.of(solution, problem=problem))
    assert torch.equal(bound, solution.residual)
    # An independent distance to {x : A x = b}: the least-norm correction.
    gap = solution.x.detach() @ A.T - inside @ A.T
    distance = torch.linalg.lstsq(A, gap.T).solution.norm(dim=0)
    assert (distance <= bound + 1e-12 * (1 + solution.z.norm(dim=1))).all()
    assert (problem.g.violation(solution.x) == 0).all()


def test_davis_yin_distance_is_for_sets_and_for_davis_yin_alone():
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="needs a set as the problem's h; got L1Norm"):
        DavisYinDistance()(Inference(x=x, residual=torch.zeros(1), problem=il2o.Problem(h=il2o.L1Norm())))
    problem = il2o.Problem(h=il2o.Box(lower=0.0))
    with pytest.raises(ValueError, match="this solve was another"):
        DavisYinDistance()(Inference(x=x, z=torch.zeros(1, 5), residual=torch.zeros(1), problem=problem))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.0, 0.95), steps=st.sampled_from([1, 2, 5, 20]))
def test_banach_bound_holds_on_contractions(seed, gamma, steps):
    generator = torch.Generator().manual_seed(seed)
    n = 6
    W = torch.randn(n, n, generator=generator, dtype=torch.float64)
    W = gamma * W / torch.linalg.matrix_norm(W, 2)
    b = torch.randn(3, n, generator=generator, dtype=torch.float64)

    def T(z):
        return torch.tanh(z @ W.T + b)  # tanh is nonexpansive, so T is a gamma-contraction

    def solve(max_steps):
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=max_steps))
        with torch.no_grad():
            return il2o.fixed_point(T, torch.zeros_like(b), solver=solver)

    point, exact = solve(steps), solve(800)
    bound = BanachBound(gamma)(Inference.of(point))
    assert (torch.linalg.vector_norm(point.z - exact.z, dim=1) <= bound + 1e-12).all()


def test_banach_bound_is_tight_for_a_uniform_contraction():
    b = torch.ones(1, 3, dtype=torch.float64)
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=7))
    point = il2o.fixed_point(lambda z: 0.9 * z + b, torch.zeros_like(b), solver=solver)
    distance = torch.linalg.vector_norm(point.z - 10 * b, dim=1)
    torch.testing.assert_close(BanachBound(0.9)(Inference.of(point)), distance, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("gamma", [1.0, 1.5, -0.1, math.nan])
@pytest.mark.parametrize("kind", [BanachBound, BanachEstimate])
def test_banach_refuses_factors_that_do_not_contract(kind, gamma):
    with pytest.raises(ValueError, match=rf"{kind.__name__} needs .* 0 <= gamma < 1; got gamma={gamma}"):
        kind(gamma)


def test_an_estimate_is_called_one():
    assert "bound" in BanachBound(0.5).name
    assert "estimate" not in BanachBound(0.5).name
    assert "estimate" in BanachEstimate(0.5).name
    assert "bound" not in BanachEstimate(0.5).name
    with pytest.raises(ValueError, match="must contain the word 'estimate'"):
        BanachEstimate(0.5, name="error bound")


def test_a_solve_end_to_end():
    c = torch.tensor([[-1.0, 2.0], [3.0, math.nan], [0.5, 0.5]], dtype=torch.float64)
    problem = il2o.Problem(
        F=il2o.QuadraticCost(linear=c, diagonal=1.0),
        g=il2o.Box(lower=0.0),
        h=il2o.AffineSet(torch.ones(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64)),
    )
    solution = il2o.solve(il2o.DavisYin(problem), torch.zeros(3, 2, dtype=torch.float64), on_failure="ignore")
    certificates = [
        Certificate(ConstraintViolation(), Threshold(1e-3)),
        Certificate(FixedPointResidual(), Threshold(1e-3)),
        Certificate(DavisYinDistance(), Threshold(1e-3)),
        Certificate(Objective(), Threshold(10.0)),
    ]
    report = certify(certificates, Inference.of(solution, problem=problem, data=c))
    assert report.trusted.tolist() == [True, False, True]
    assert (report.labels[1] == FAIL).all()
