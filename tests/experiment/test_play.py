"""`il2o play`: what is recorded is what the solver did, what is shown is what the model would have answered there."""

import dataclasses
import json
import os
import re

import pytest
import torch
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.applications.ct import ConvexPotential, ImplicitReconstructionTask
from implicit_l2o.applications.digits import DigitsTask
from implicit_l2o.applications.shortest_path import PathTask
from implicit_l2o.experiment.gradients import compare, cosine
from implicit_l2o.experiment.recording import begins_exact, record, replay, spaced
from implicit_l2o.training import AbstractTask, Edges, Pixels, Scene
from implicit_l2o.training.callbacks._implicit import implicit_modules


class Slow(AbstractTask):
    """The projection onto a simplex by a solver of choice; it takes many iterations."""

    def __init__(self, solver=None, backward=None, scale=2.0, step=0.25):
        simplex = il2o.AffineSet(torch.ones(1, 3), torch.ones(1))
        super().__init__(
            il2o.ImplicitLayer(
                encoder=nn.Linear(4, 3),
                build=lambda w: il2o.DavisYin(
                    il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=scale), g=il2o.Box(0.0, 1.0), h=simplex),
                    step=step,
                ),
                x0=lambda w: torch.ones_like(w),
                solver=solver,
                backward=backward,
                certificates=(il2o.Certificate(il2o.ConstraintViolation(), il2o.Threshold(1e-3, above=1e-1)),),
            )
        )
        self.eval()

    def loss(self, inference, batch):
        return inference.x.square().sum()

    def metrics(self):
        return {}


class Unconstrained(Slow):
    """`z - 0.25 (2 z + w)`, with the Jacobian `I / 2`."""

    def __init__(self):
        super().__init__()
        self.model.build = lambda w: il2o.ForwardBackward(
            il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=2.0)), step=0.25
        )


def seen(n=1):
    return torch.randn(n, 4)


def x_of(frames):
    return torch.cat([inference.x for inference in frames.inferences])


@pytest.mark.parametrize("kind", [il2o.KrasnoselskiiMann, il2o.Anderson, il2o.Halpern], ids=lambda kind: kind.__name__)
def test_a_frame_is_what_the_model_answers_when_it_stops_there(kind):
    task, d = Slow(solver=kind(il2o.Stopping(1e-6, 0.0, 400, check_every=7))), seen()
    recording = record(task, d, frames=9)
    frames = replay(task, d, recording)
    assert recording.steps[0] == 0
    assert len(recording.steps) > 5
    residual = torch.cat([inference.residual for inference in frames.inferences])
    compared = 0
    for k, step in enumerate(recording.steps[1:], start=1):
        task.model.solver = kind(il2o.Stopping(0.0, 0.0, step, check_every=1))
        with torch.no_grad():
            there = task.infer(d)
        if not bool((there.residual <= residual[k] * (1 + 1e-5)).all()):  # the loop may return an earlier, better one
            continue
        torch.testing.assert_close(x_of(frames)[k], there.x[0], atol=1e-6, rtol=1e-5)
        compared += 1
    assert compared >= 5


def paths():
    return PathTask(side=4), torch.randn(1, 5)


def digits():
    return DigitsTask(), torch.rand(1, 1, 8, 8)


def tomography():
    task = ImplicitReconstructionTask(regulariser=ConvexPotential((16, 16)), size=16, angles=8)
    return task, task.projector.apply(torch.rand(1, 1, 16, 16).round())


@pytest.mark.parametrize("make", [paths, digits, tomography], ids=lambda make: make.__name__)
def test_the_last_frame_is_the_answer_under_its_certificates(make):
    task, d = make()
    task.eval()
    with torch.no_grad():
        answer = task.infer(d)
    recording = record(task, d, frames=20)
    frames = replay(task, d, recording)
    assert recording.steps[-1] == int(answer.steps) > 3
    torch.testing.assert_close(x_of(frames)[-1:], answer.x, atol=1e-5, rtol=1e-4)
    mine = il2o.certify(task.all_certificates(), frames.inferences[-1])
    true = il2o.certify(task.all_certificates(), answer)
    assert mine.labels[-1].tolist() == true.labels[0].tolist()
    torch.testing.assert_close(mine.values[-1], true.values[0], atol=1e-4, rtol=2e-2)  # residuals are of rounding size
    assert bool(frames.solved[-1]) == bool(answer.valid)
    assert frames.solved[0].item() is False
    assert (frames.violation is None) == (make is digits)


def test_the_constraint_is_met_more_and_more_and_the_label_turns():
    torch.manual_seed(1)
    task, d = Slow(), seen()
    frames = replay(task, d, record(task, d, frames=40))
    labels = torch.cat([il2o.certify(task.all_certificates(), part).labels for part in frames.inferences])[:, 0]
    assert labels[0] == il2o.Label.FAIL
    assert labels[-1] == il2o.Label.PASS
    assert frames.violation[0] > 0.5
    assert frames.violation[-1] < 1e-3


@pytest.mark.parametrize(("last", "count"), [(1, 5), (7, 60), (60, 60), (61, 60), (5000, 60), (5000, 2), (9, 1)])
def test_frames_are_spaced_from_the_first_to_the_last_iteration(last, count):
    steps = spaced(last, count)
    assert steps == sorted(set(steps))
    assert steps[-1] == last
    assert steps[0] == (1 if min(last, count) > 1 else last)
    assert min(last, 0.7 * count) <= len(steps) <= count


def test_a_long_solve_is_stored_in_few_frames():
    task, d = Slow(solver=il2o.KrasnoselskiiMann(il2o.Stopping(0.0, 0.0, 3000))), seen()
    recording = record(task, d, frames=30)
    assert recording.steps[-1] == 3000
    assert 20 <= len(recording.steps) <= 32
    assert len(recording.z) == len(recording.steps)
    assert not recording.sought


def test_nothing_of_the_task_is_changed_even_by_an_error():
    task, d = PathTask(side=3).eval(), torch.randn(1, 5)
    before = [(id(part), part.backward, part.solver, part.polish) for part in implicit_modules(task)]
    recording = record(task, d, frames=10)
    replay(task, d, recording)
    compare(task, task.scene(), (d, torch.zeros(1, 12)), (il2o.JFB(), il2o.Implicit()))
    with pytest.raises(RuntimeError):
        record(task, torch.randn(1, 6), frames=10)
    with pytest.raises((RuntimeError, ValueError)):
        replay(task, d, dataclasses.replace(recording, z=recording.z[:, :3]))
    assert [(id(part), part.backward, part.solver, part.polish) for part in implicit_modules(task)] == before
    assert all(parameter.grad is None for parameter in task.parameters())


def test_an_unrolled_model_is_recorded_step_by_step():
    task, d = Slow(backward=il2o.Unrolled(6)), seen()
    task.model.on_failure = "ignore"
    recording = record(task, d, frames=20)
    assert recording.steps == (0, 1, 2, 3, 4, 5, 6)
    torch.testing.assert_close(x_of(replay(task, d, recording))[-1:], task.infer(d).x, atol=1e-6, rtol=1e-5)


def test_an_exact_layer_iterates_from_its_usual_start():
    task, d = PathTask(side=3).eval(), torch.randn(1, 5)
    with torch.no_grad():
        usual = task.infer(d)
    task.flow.polish = True
    recording = record(task, d, frames=30)
    assert recording.steps[-1] == int(usual.steps) > 3
    torch.testing.assert_close(x_of(replay(task, d, recording))[-1:], usual.x, atol=1e-6, rtol=0)
    assert task.flow.polish
    assert begins_exact(task)


def test_a_solve_that_runs_out_of_steps_says_so():
    task, d = Slow(solver=il2o.KrasnoselskiiMann(il2o.Stopping(1e-9, 0.0, 5))), seen()
    recording = record(task, d, frames=30)
    assert il2o.Status(int(recording.point.status)) == il2o.Status.MAX_STEPS
    assert recording.steps[-1] == 5
    assert not replay(task, d, recording).solved.any()


def test_gradients_by_two_modes():
    """`J = I / 2`: JFB gives half of the gradient."""
    task, batch = Unconstrained(), (seen(), torch.zeros(1, 3))
    jfb, exact = compare(task, Scene(), batch, (il2o.JFB(), il2o.Implicit()))
    assert (jfb.name, exact.name) == ("JFB", "Implicit")
    assert exact.solved
    assert cosine(jfb.value, exact.value) == pytest.approx(1.0, abs=1e-5)
    assert jfb.norm / exact.norm == pytest.approx(0.5, rel=1e-3)
    weight, bias = task.model.encoder.weight, task.model.encoder.bias  # x = -(W d + b) / 2
    torch.testing.assert_close(exact.value, weight.T @ (weight @ batch[0][0] + bias) / 4, atol=1e-3, rtol=1e-3)


def test_the_gradient_in_the_parameters_that_a_scene_names():
    task, d = PathTask(side=3).eval(), torch.randn(1, 5)
    scene = task.scene()
    batch = (d, torch.zeros(1, 12))
    (mine,) = compare(task, scene, batch, (il2o.Implicit(),))
    w = task.network(d).detach().double().requires_grad_()
    layer = il2o.LPLayer(task.program, gamma=1.0, tolerance=1e-10, backward=il2o.Implicit())
    (true,) = torch.autograd.grad(layer(w).x.square().sum() / 2, w)
    assert mine.value.shape == (12,)
    torch.testing.assert_close(mine.value.double(), true[0], atol=2e-3, rtol=1e-2)


def test_an_adjoint_equation_that_is_not_solved_is_said():
    task = Slow(step=0.1)
    batch = (seen(), torch.zeros(1, 3))
    (gradient,) = compare(task, Scene(), batch, (il2o.Implicit(il2o.GMRES(rtol=1e-12, max_steps=1)),))
    assert not gradient.solved


def test_whole_numbers_have_no_gradient():
    task = Slow()
    gradients = compare(task, Scene(), (torch.ones(1, 4, dtype=torch.int64), torch.zeros(1, 3)), (il2o.JFB(),))
    assert [one.value for one in gradients] == [None]


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_pixels_stand_where_they_belong(channels):
    values = torch.arange(2.0 * channels * 6).reshape(2, channels, 2, 3)
    picture = Pixels(2, 3, channels=channels)
    layout, shown = picture.layout(), picture.arrange(values)
    colours = 3 if channels == 3 else 1
    assert shown.shape == (2, layout["height"] * layout["width"] * colours)
    assert layout["colours"] == (channels == 3)
    if channels == 3:
        assert shown[1].reshape(2, 3, 3)[1, 2].tolist() == values[1, :, 1, 2].tolist()
    else:
        across = layout["width"] // 3
        grid = shown[1].reshape(layout["height"], layout["width"])
        for c in range(channels):
            row, column = 2 * (c // across), 3 * (c % across)
            assert grid[row : row + 2, column : column + 3].tolist() == values[1, c].tolist()


def test_a_large_image_is_averaged():
    picture = Pixels(400, 300)
    assert (picture.layout()["height"], picture.layout()["width"]) == (134, 100)
    assert picture.arrange(torch.full((1, 1, 400, 300), 0.25)) == pytest.approx(0.25)
    assert picture.arrange(torch.arange(400.0).repeat_interleave(300)[None])[0][::100] == pytest.approx(
        [*range(1, 398, 3), 399]
    )


@pytest.mark.bad_input
def test_pictures_that_do_not_fit():
    with pytest.raises(ValueError, match=r"finite lines of shape \(E, 2, 2\); got shape \(3, 2\)"):
        Edges(torch.zeros(3, 2).numpy())


# The command.


@pytest.fixture
def run(il2o, project):
    assert il2o("run", "tiny.yaml", "--trainer.max_epochs", "1").code == 0
    return project / "runs" / "tiny"


def content(page):
    return json.loads(re.search(r'id="player-data">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def test_the_page_has_the_examples_of_the_report(il2o, run):
    done = il2o("play", run)
    assert (done.code, done.err, done.out.strip()) == (0, "", str(run / "player.html"))
    found = content(run / "player.html")
    examples = json.loads((run / "results.json").read_text())["examples"]
    wanted = list(dict.fromkeys(one["index"] for one in examples)) or [0, 1, 2]
    assert [one["index"] for one in found["samples"]] == wanted
    assert [one["name"] for one in found["properties"]] == ["constraint violation", "size"]
    stored = json.loads((run / "certificates.json").read_text())["samples"]
    for one in found["samples"]:
        last = [("PASS", "WARN", "FAIL")[int(codes[-1])] for codes in one["labels"]]
        assert last == [stored["labels"][name][one["index"]] for name in ("constraint violation", "size")]
        assert one["steps"][-1] == stored["steps"][one["index"]]
    again = (run / "player.html").read_bytes()
    il2o("play", run)
    assert (run / "player.html").read_bytes() == again


def test_options(il2o, run, project):
    modes = ("{class_path: implicit_l2o.Neumann, init_args: {k: 3}}", "implicit_l2o.JFB")
    done = il2o("play", run, "--samples", "4,0,4", "--frames", "2", "--backward", *modes, "--out", "deep/page.html")
    assert (done.code, done.err) == (0, "")
    found = content(project / "deep" / "page.html")
    assert [one["index"] for one in found["samples"]] == [4, 0]
    assert [mode["name"] for mode in found["samples"][0]["gradients"]] == ["Neumann(3)", "JFB"]
    assert max(len(one["steps"]) for one in found["samples"]) <= 3
    assert not (run / "player.html").exists()


def test_what_cannot_be_played(il2o, run, project):
    (project / "several" / "seed_3").mkdir(parents=True)
    (project / "several" / "summary.json").write_text("{}")
    for arguments, message in (
        (["absent"], "absent is no folder of a run."),
        ([project], f"{project} holds no trained model: config.yaml is missing"),
        (["several"], f"several holds several seeds; name one of them, such as {os.path.join('several', 'seed_3')}."),
        ([run, "--samples", "0,20"], "there is no test sample 20: they are numbered from 0 to 19."),
        ([run, "--samples=-1"], "there is no test sample -1: they are numbered from 0 to 19."),
        ([run, "--frames", "1"], "frames must be between 2 and 500; got 1."),
        ([run, "--backward", "implicit_l2o.JFB", "implicit_l2o.Nothing"], "backward: 'implicit_l2o.Nothing' names no"),
        ([run, "--out", "runs"], "runs is a folder; name an HTML file."),
    ):
        refused = il2o("play", *arguments)
        assert refused.code == 2, arguments
        assert refused.err.startswith(f"il2o play: {message}"), refused.err
        assert len(refused.err.splitlines()) == 1
    wrong = il2o("play", run, "--samples", "a,b")
    assert (wrong.code, wrong.out) == (2, "")
    assert "whole numbers separated by commas are needed; got 'a,b'" in wrong.err
    assert not (run / "player.html").exists()


def test_a_model_that_solves_nothing(il2o, project):
    (project / "signs.yaml").write_text("model: tiny.Signs\ndata: tiny.Labelled\ntrainer: {max_epochs: 1}\n")
    assert il2o("run", "signs.yaml").code == 0
    refused = il2o("play", "runs/signs")
    assert refused.code == 2
    assert "runs/signs has nothing to play: Signs answers without a layer that solves" in refused.err


def test_data_that_are_gone(il2o, project):
    import numpy as np

    np.savez(project / "points.npz", d=np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32))
    assert il2o("run", "tiny.yaml", "--trainer.max_epochs", "1", "--data.file", "points.npz").code == 0
    (project / "points.npz").unlink()
    refused = il2o("play", "runs/tiny")
    assert refused.code == 2
    assert refused.err.startswith("il2o play: data.init_args.file: cannot read")
    assert "points.npz" in refused.err
