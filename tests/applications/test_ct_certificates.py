"""The certificates of a reconstruction on a small scanner, with a smooth total variation in the place of what is learned."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

import implicit_l2o as il2o
from implicit_l2o.applications.ct import certificates, charts, figures, findings, measures
from implicit_l2o.applications.ct.strangers import corrupted_sinograms, strange_phantoms
from implicit_l2o.data.ellipses import ellipse_phantoms
from implicit_l2o.physics import FilteredBackProjection, Geometry, PerBeamNoise, Projector

SIZE, DELTA = 16, 0.012
SCANNER = Projector(Geometry.uniform(SIZE, angles=8))
NOISE = PerBeamNoise(0.015)


@dataclass(frozen=True, eq=False)
class SmoothVariation(il2o.AbstractSmooth):
    """The sum of Huber's function over the differences of neighbours: convex, with a gradient, like a learned potential."""

    K: il2o.FiniteDifferences2D
    corner: float = 0.05

    @property
    def lipschitz(self):
        return self.K.norm_bound**2 / self.corner

    def apply(self, x):
        return self.K.adjoint((self.K.apply(x) / self.corner).clamp(-1, 1))

    def value(self, x):
        size = self.K.apply(x).abs()
        return torch.where(size < self.corner, size**2 / (2 * self.corner), size - self.corner / 2).flatten(1).sum(1)


POTENTIAL = SmoothVariation(il2o.FiniteDifferences2D((1, SIZE, SIZE)))


def force(x, d):
    return POTENTIAL.apply(x)


def value(x, d):
    return POTENTIAL.value(x)


def gap_bound(**options):
    return measures.SuboptimalityBound(SCANNER, DELTA, force, **options)


def reconstruct(d, delta=DELTA, max_steps=2000):
    """The image of least potential in the box and the ball, by Condat and Vu."""
    ball = il2o.L2Ball(delta * d.flatten(1).norm(dim=1), center=d)
    problem = il2o.Problem(F=POTENTIAL, g=certificates.UNIT_BOX, K=SCANNER, l=ball)
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=1e-3, max_steps=max_steps), relaxation=1.0)
    start = d.new_zeros(len(d), 1, SIZE, SIZE)
    solution = il2o.solve(il2o.CondatVu(problem, dual_step=100.0), start, solver=solver, on_failure="ignore")
    return il2o.Inference.of(solution, problem=problem, data=d)


def measure(images, seed=0):
    return NOISE(SCANNER.apply(images), torch.Generator().manual_seed(seed))


def sample(count, seed):
    images = ellipse_phantoms(count, size=SIZE, seed=seed)
    return images, measure(images, seed)


@cache
def smoke():
    """Certificates calibrated on 200 phantoms, and the inferences of 200 others."""
    learned = certificates.learned_measures(force, value=value)
    calibrated = il2o.calibrate(learned, reconstruct(sample(200, 1)[1]))
    fixed = certificates.fixed_certificates(SCANNER, DELTA, tolerance=1e-3, residual=2e-3)
    gap = il2o.Certificate(gap_bound(value=value), il2o.Threshold(0.05))
    images, d = sample(200, 2)
    return (*fixed, gap, *calibrated), images, d, reconstruct(d)


def fails(report, name):
    return report.labels[:, report.names.index(name)] == il2o.Label.FAIL


# --- the answers of the model ---


def test_what_the_model_promises_holds_of_every_image():
    rules, _, _, inference = smoke()
    report = il2o.certify(rules, inference)
    assert bool(report.converged.all())
    for name in (certificates.BOX, measures.FIDELITY, measures.INCONSISTENCY, measures.RESIDUAL, measures.GAP):
        assert not bool(fails(report, name).any()), name


def test_in_distribution_fail_rates_are_the_chosen_level():
    """Within what 200 test values may differ by: their number is beta-binomial, since the limit is one of 200 values."""
    rules, _, _, inference = smoke()
    report = il2o.certify(rules, inference)
    calibrated = [rule.name for rule in rules if isinstance(rule.rule, il2o.Calibration)]
    assert calibrated == [measures.REGULARISER, measures.POTENTIAL, certificates.VARIATION]
    beyond = 200 - 190  # calibration values above the limit
    expected = stats.betabinom(200, beyond + 1, 200 - beyond)
    for name in calibrated:
        count = int(fails(report, name).sum())
        assert expected.ppf(0.0005) <= count <= expected.ppf(0.9995), name


@pytest.mark.parametrize("p_fail", [0.01, 0.05, 0.2])
def test_the_level_is_met_on_synthetic_images(p_fail):
    """Over many calibrations: the mean rate is the rule's `fail_rate`, within the sampling error of 100 x 300 images."""
    generator = torch.Generator().manual_seed(7)
    count, repeats, fresh = 200, 100, 300
    size = measures.RegulariserResidual(lambda x, d: x)
    d = torch.zeros(count + fresh, 1, 1)
    rates, rule = [], None
    for _ in range(repeats):
        scale = torch.rand(count + fresh, 1, 1, 1, generator=generator).exp()
        x = scale * torch.randn(count + fresh, 1, 4, 4, generator=generator)
        [certificate] = il2o.calibrate(
            [size], il2o.Inference(x=x[:count], data=d[:count]), p_pass=1 - p_fail, p_fail=p_fail
        )
        rule = certificate.rule
        report = il2o.certify([certificate], il2o.Inference(x=x[count:], data=d[count:]))
        rates.append(float((report.labels == il2o.Label.FAIL).double().mean()))
    mean = sum(rates) / repeats
    # The variance of one rate: of the binomial, and of the limit, which is a quantile of `count` values.
    error = (p_fail * (1 - p_fail) * (1 / fresh + 1 / count) / repeats) ** 0.5
    assert abs(mean - rule.fail_rate) < 4 * error


def test_a_delta_too_small_ends_in_a_failing_certificate():
    """Not in silence: the noise is no sinogram, so nothing comes within a tenth of it, and that is proven."""
    d = smoke()[2][:20]
    noisy = d * (1 + 0.1 * torch.randn(d.shape, generator=torch.Generator().manual_seed(0)))
    tiny = 0.001
    inference = reconstruct(noisy, delta=tiny)
    rules = certificates.fixed_certificates(SCANNER, tiny, residual=2e-3)
    report = il2o.certify(rules, inference)
    assert bool((report.worst == il2o.Label.FAIL).all())
    by_value = findings.Examined(
        kind="", group="test", x=inference.x, d=noisy, report=report, solved=True
    ).fail_shares()
    assert by_value[measures.FIDELITY] == by_value[measures.INCONSISTENCY] == 1.0


# --- the demonstration ---


@cache
def demonstration():
    rules, images, d, _ = smoke()
    clipped = FilteredBackProjection(SCANNER)(d[:40]).clamp(0, 1)

    def infer(part):
        return reconstruct(part, max_steps=400)  # what has no answer runs to the end

    examined = findings.demonstrate(
        infer, rules, images=images[:40], data=d[:40], measure=measure, others={"FBP, clipped": clipped}, batch=40
    )
    return {part.kind: part for part in examined}, findings.table(examined)


def test_every_stranger_fails_what_its_kind_should():
    _, table = demonstration()
    for kind in ("dead detector bin", "scaled angle", "wrong noise", "metal insert"):
        assert table[kind]["fails"][measures.FIDELITY] >= 0.9, kind
        assert table[kind]["fails"][measures.INCONSISTENCY] >= 0.9, kind
    for kind in ("bars", "text", "metal insert"):
        assert table[kind]["fails"][measures.POTENTIAL] >= 0.8, kind
    assert table[findings.WRONG]["fails"][measures.FIDELITY] == 1.0
    assert table["FBP, clipped"]["fails"][measures.FIDELITY] == 1.0
    assert table[findings.TEST]["fails"][measures.FIDELITY] == 0.0
    assert table[findings.TEST]["fails"][findings.ANY] < 0.25


def test_the_answers_of_other_methods_are_asked_for_no_solve():
    parts, table = demonstration()
    assert measures.RESIDUAL not in parts["FBP, clipped"].report.names
    assert findings.SOLVE not in table["FBP, clipped"]["fails"]
    assert findings.SOLVE in table[findings.TEST]["fails"]
    assert {row["count"] for row in table.values()} == {40}


@pytest.mark.bad_input
def test_a_single_image_has_no_wrong_signal():
    rules, images, d, _ = smoke()
    with pytest.raises(ValueError, match="at least 2 test images; got 1"):
        findings.demonstrate(reconstruct, rules, images=images[:1], data=d[:1], measure=measure)


# --- the measures ---


def test_the_excess_is_the_fidelity_beyond_delta():
    _, _, d, inference = smoke()
    plain = il2o.RelativeDataFidelity(SCANNER)(inference)
    for delta in (0.0, 0.01, 0.1):
        expected = (plain - delta).clamp_min(0)
        torch.testing.assert_close(measures.FidelityExcess(SCANNER, delta)(inference), expected)
    by_sample = torch.linspace(0, 0.02, len(d))
    learned = measures.FidelityExcess(SCANNER, lambda _: by_sample)(inference)
    torch.testing.assert_close(learned, (plain - by_sample).clamp_min(0))


def test_the_gap_shrinks_as_the_solve_goes_on():
    d = smoke()[2][:10]
    early, late = (reconstruct(d, max_steps=steps) for steps in (60, 600))
    for bound in (gap_bound(), gap_bound(value=value)):
        assert bool((bound(late) < bound(early)).all())
        assert float(bound(late).max()) < 0.02


def test_the_dual_variable_as_multiplier_gives_the_same_gap():
    _, _, d, inference = smoke()

    def dual(answers):
        return answers.z[:, SIZE * SIZE :].reshape(d.shape)

    plain, given = (gap_bound(value=value, multiplier=multiplier)(inference) for multiplier in (None, dual))
    assert float((plain - given).abs().max()) < 0.02
    answers = il2o.Inference(x=inference.x, data=d)  # of which no solve is known
    torch.testing.assert_close(gap_bound(value=value, multiplier=dual)(answers), plain)


def test_maps_are_zero_where_nothing_fails():
    _, _, d, inference = smoke()
    maps = certificates.certificate_maps(inference.x, d, SCANNER, force)
    assert all(values.shape == inference.x.shape and bool((values >= 0).all()) for values in maps.values())
    assert float(maps[certificates.BOX].max()) == 0.0
    shifted = certificates.certificate_maps(inference.x + 1.0, d, SCANNER)
    torch.testing.assert_close(
        shifted[certificates.BOX], inference.x
    )  # values of [0, 1] are as far out as they are large


def test_the_map_of_a_dead_bin_lies_along_its_rays():
    """The ray sum of the unexplained measurement is largest where the detector lied."""
    images, d = sample(1, 3)
    dead = d.clone()
    dead[:, 2, d.shape[-1] // 2] = 0.0
    unexplained = certificates.certificate_maps(images, dead, SCANNER)[measures.FIDELITY]
    seen = SCANNER.apply(unexplained)[0, 2]
    assert abs(int(seen.argmax()) - d.shape[-1] // 2) <= 1


@pytest.mark.bad_input
@pytest.mark.parametrize("kind", [measures.FidelityExcess, measures.Inconsistency])
@pytest.mark.parametrize("delta", [-0.1, float("nan"), float("inf")])
def test_a_delta_out_of_range_is_refused(kind: Callable, delta: float):
    with pytest.raises(ValueError, match=f"0 <= delta < inf; got delta={delta}"):
        kind(SCANNER, delta)


@pytest.mark.bad_input
def test_without_a_sinogram_nothing_is_measured():
    answers = il2o.Inference(x=torch.zeros(1, 1, SIZE, SIZE))
    for measure_ in (measures.FidelityExcess(SCANNER, 0.1), measures.Inconsistency(SCANNER, 0.1)):
        with pytest.raises(TypeError, match="NoneType"):
            measure_(answers)


# --- strangers ---


def test_strangers_are_the_same_for_a_seed_and_differ_by_sample():
    for first, again, other in zip(*(strange_phantoms(3, size=32, seed=s).values() for s in (0, 0, 1)), strict=True):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert first.shape == (3, 1, 32, 32)
        assert not torch.equal(first[0], first[1]) or not torch.equal(first[1], first[2])


def test_a_corruption_changes_what_it_says_and_nothing_else():
    d = torch.rand(3, 8, 12) + 1
    bad = corrupted_sinograms(d, seed=0)
    dead, scaled = bad["dead detector bin"], bad["scaled angle"]
    assert ((dead == 0).all(1).sum(1) == 1).all()
    assert ((dead != d).any(1).sum(1) == 1).all()
    assert ((scaled != d).any(2).sum(1) == 1).all()
    assert float((bad["wrong noise"] / d - 1).std()) == pytest.approx(0.1, rel=0.2)


@pytest.mark.bad_input
@pytest.mark.parametrize(("count", "size"), [(0, 32), (2, 8)])
def test_strangers_that_cannot_be_drawn_are_refused(count, size):
    with pytest.raises(ValueError, match=f"got size={size}, count={count}"):
        strange_phantoms(count, size=size)


def test_nothing_warns_of_what_the_report_says():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        demonstration()


# --- figures ---


def test_the_figures_say_what_the_certificates_found():
    _, images, d, inference = smoke()
    parts, _ = demonstration()
    report = parts[findings.TEST].report
    passing = int(report.trusted.nonzero()[0])
    assert str(figures.Verdict.of(report, passing)) == "PASS"
    failing = parts["metal insert"].report
    assert figures.Verdict.of(failing, 0).label == il2o.Label.FAIL
    misfit = SCANNER.apply(inference.x) - d
    for width, panels in ((4.6, 4), (9.0, 4)):
        figure = Figure(figsize=(width, 3.0))
        figures.reconstruction(figure, inference.x[0], truth=images[0], misfit=misfit[0], relative=0.012)
        assert len([ax for ax in figure.axes if ax.get_title()]) == panels
    alone = Figure()
    figures.reconstruction(alone, inference.x[0])
    assert [ax.get_title() for ax in alone.axes] == ["reconstruction"]
    answers = {
        kind: figures.Answer(
            part.x[0], SCANNER.apply(part.x)[0] - part.d[0], "25 dB", figures.Verdict.of(part.report, 0)
        )
        for kind, part in parts.items()
        if part.group in ("test", "method")
    }
    side = figures.side_by_side(images[0], answers)
    assert [ax.get_title() for ax in side.axes[:3]] == ["truth\n", "test images\n25 dB", "FBP, clipped\n25 dB"]
    chart, caption = charts.fail_shares(list(parts.values()))
    assert [label.get_text() for label in chart.axes[0].get_yticklabels()] == list(parts)
    assert "Blue" in caption
    for drawn in (side, chart):
        drawn.savefig(io.BytesIO())  # nothing warns of a glyph or a layout


def test_the_convergence_says_how_many_reach_the_tolerance():
    trace = torch.logspace(0, -4, 50)[:, None] * torch.tensor([1.0, 1.0, 1e3])
    figure, caption = charts.convergence(trace, 1e-3)
    assert "2 of 3 test inferences reach the tolerance within 50 iterations, the median one after 38" in caption
    figure.savefig(io.BytesIO())


def test_a_zoom_lies_inside_the_image():
    for seed in range(5):
        image = torch.rand(1, 17, 23, generator=torch.Generator().manual_seed(seed))
        row, column, side = figures.busiest(image)
        assert 0 <= row <= 17 - side
        assert 0 <= column <= 23 - side


# --- what a model has learned ---


class Shrinking:
    """Potentials `|x - first image|^2 / 2`: what is learned depends on the measurement."""

    def first(self, d):
        return SCANNER.adjoint(d), d

    def condition(self, d, x):
        return il2o.QuadraticCost(linear=-x, diagonal=1.0)


def test_the_learned_force_is_that_of_the_measurement():
    images, d = sample(4, 0)
    learned = certificates.Learned(Shrinking())
    torch.testing.assert_close(learned.force(images, d), images - SCANNER.adjoint(d))
    other = certificates.certificate_maps(images, d.flip(0), SCANNER, learned.force)[measures.REGULARISER]
    torch.testing.assert_close(other, (images - SCANNER.adjoint(d).flip(0)).abs())
    assert learned.value(images, d).shape == (4,)


def test_a_network_has_its_work_in_the_place_of_a_potential():
    """Of a linear force it is `<x, F(x)> / 2`, also where that turns; of a gradient the difference of the values."""

    @dataclass(frozen=True, eq=False)
    class Map(il2o.AbstractMonotone):
        of: Callable
        lipschitz = cocoercivity = None

        def apply(self, x):
            return self.of(x)

    images, d = sample(4, 0)
    model = Shrinking()
    model.condition = lambda d, x: Map(lambda y: y + 0.5 * y.mT)
    turned = 0.5 * (images * (images + 0.5 * images.mT)).flatten(1).sum(1)
    torch.testing.assert_close(certificates.Learned(model).value(images, d), turned)
    model.condition = lambda d, x: Map(POTENTIAL.apply)
    torch.testing.assert_close(
        certificates.Learned(model).value(images, d), POTENTIAL.value(images), rtol=0.1, atol=0.0
    )
