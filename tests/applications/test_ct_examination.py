"""An implicit reconstruction under its certificates, before any training: what it promises holds for all weights."""

from functools import cache

import pytest
import torch

import implicit_l2o as il2o
from implicit_l2o.applications.ct import examination, findings, measures, properties
from implicit_l2o.applications.ct.base import scanner
from implicit_l2o.applications.ct.model import ImplicitReconstruction
from implicit_l2o.applications.ct.regularisers import AveragedNetwork, ConvexPotential
from implicit_l2o.data.ellipses import ellipse_phantoms
from implicit_l2o.physics import PerBeamNoise
from implicit_l2o.training import Samples

SIZE, ANGLES, TEST, TRAINING = 16, 8, 6, 30


def network_of(kind, max_steps=150):
    torch.manual_seed(0)
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=1e-4, max_steps=max_steps))
    return ImplicitReconstruction(scanner(SIZE, ANGLES), kind((SIZE, SIZE)), solver=solver).requires_grad_(False)


def sample(count, seed):
    images = ellipse_phantoms(count, size=SIZE, seed=seed)
    return PerBeamNoise(0.015)(scanner(SIZE, ANGLES).apply(images), torch.Generator().manual_seed(seed)), images


@cache
def examined():
    network = network_of(ConvexPotential)
    calibrated = il2o.calibrate(properties.measures_of(network), network(sample(TRAINING, 1)[0]))
    certificates = (*properties.certificates_of(network), *calibrated)
    d, images = sample(TEST, 2)
    inference = network(d)
    report = il2o.certify(certificates, inference)
    samples = Samples(
        answer=inference.x,
        values=report.values,
        labels=report.labels,
        worst=report.worst,
        names=report.names,
        batch=(d, images),
    )
    return network, report, examination.examine(network, certificates, samples, count=4)


@pytest.mark.parametrize("kind", [ConvexPotential, AveragedNetwork])
def test_untrained_weights_keep_the_promises(kind):
    network = network_of(kind)
    report = il2o.certify(properties.certificates_of(network), network(sample(TEST, 2)[0]))
    assert bool(report.trusted.all()), report.table()
    assert (measures.GAP in report.names) == (kind is ConvexPotential)


def test_all_tiers_have_a_value_of_what_is_learned():
    d, images = sample(2, 0)
    for kind in (ConvexPotential, AveragedNetwork):
        for measure in properties.measures_of(network_of(kind)):
            assert torch.isfinite(measure(il2o.Inference(x=images, data=d))).all()


def test_the_findings_name_the_radius_and_every_kind():
    network, _, parts = examined()
    found = examination.findings_of(network, parts)
    assert found["delta"] == pytest.approx(0.0098)
    assert {"test images", "bars", "text", "metal insert", "dead detector bin"} <= set(found["kinds"])
    assert found["kinds"]["dead detector bin"]["fails"][measures.INCONSISTENCY] == 1.0
    assert found["kinds"][findings.TEST]["fails"][measures.FIDELITY] == 0.0
    assert found["kinds"][findings.WRONG]["fails"][measures.GAP] == 1.0  # judged without a solve


def test_the_report_gets_its_figures():
    network, _, parts = examined()
    drawn = examination.figures_of(network, parts, steps=20)
    assert list(drawn) == [
        "What the certificates catch",
        "A test image pixel by pixel",
        "Text pixel by pixel",
        "Convergence",
    ]
    assert all(caption for _, caption in drawn.values())


def test_a_trace_is_of_the_models_own_solver():
    """Its last entry is the residual after as many iterations, one of which the returned point is ahead."""
    network = network_of(ConvexPotential)
    d, _ = sample(2, 0)
    network.solver = il2o.Anderson(il2o.Stopping(atol=0.0, rtol=1e-5))
    accelerated = examination.residual_trace(network, d, steps=20)
    network.solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=1e-5))
    trace = examination.residual_trace(network, d, steps=20)
    assert trace.shape == accelerated.shape == (4, 2)
    assert bool((trace[-1] < trace[0]).all())
    assert bool((accelerated[-1] < trace[-1]).all())
    image, z = network.first(d)
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=19))
    before = network.solve(d, network.condition(d, image), z, solver=solver)
    size = network.scanner.graph.lift(before.x).flatten(1).norm(dim=1)
    torch.testing.assert_close(trace[-1], before.residual / size, rtol=0.02, atol=0.0)
