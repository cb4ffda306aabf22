"""Post-conditions: what is refused, what then happens, what is saved, and the audit log."""

import json
import math
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import implicit_l2o as il2o
from implicit_l2o.certificates.ensure import OnFail
from implicit_l2o.training import read_checkpoint, write_checkpoint

IN_RANGE = il2o.Certificate(il2o.ConstraintViolation(il2o.Box(0.0, 1.0), name="range"), il2o.Threshold(1e-6))
D = torch.tensor([[0.2], [0.9], [0.4]])  # doubled, the second leaves the range


def double(d: torch.Tensor) -> torch.Tensor:
    return 2.0 * d


def guarded(on_fail: OnFail, **options: object) -> il2o.Ensured:
    return il2o.ensure([IN_RANGE], on_fail=on_fail, **options)(double)  # type: ignore[arg-type]


def size(scale: float = 1.0) -> il2o.AbstractMeasure:
    return il2o.Sparsity(il2o.Matrix(scale * torch.eye(1)), order=1, name=f"size {scale:g}")


def test_raise_says_which_sample_and_carries_the_verdict() -> None:
    with pytest.raises(il2o.PostconditionError, match=r"double: 1 of 3 answers fail .* sample 1") as caught:
        guarded("raise")(D)
    assert caught.value.checked.kept.tolist() == [True, False, True]
    assert torch.equal(guarded("raise")(D[:1]), double(D[:1]))


def test_warn_answers_nevertheless() -> None:
    with pytest.warns(il2o.PostconditionWarning, match="1 of 3 answers fail"):
        assert torch.equal(guarded("warn")(D), double(D))


def test_abstain_gives_nan_and_the_coverage() -> None:
    checked = guarded("abstain").check(D)
    assert checked.x.isnan().flatten().tolist() == [False, True, False]
    assert checked.coverage == pytest.approx(2 / 3)
    assert torch.equal(checked.inference.x, double(D))
    assert il2o.coverage(checked.kept, torch.tensor([1.0, 0.0, 1.0])).quality_kept == 1.0


def test_a_fallback_sees_the_refused_samples_alone() -> None:
    seen = []

    def instead(d: torch.Tensor) -> torch.Tensor:
        seen.append(d)
        return d.clamp(0, 0.5)

    answer = guarded(instead)(D)
    assert torch.equal(torch.cat(seen), D[1:2])
    assert answer.flatten().tolist() == pytest.approx([0.4, 0.5, 0.8])


def test_a_fallback_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must answer the 1 refused samples, shape \(1, 1\); got \(3, 1\)"):
        guarded(lambda d: torch.zeros(3, 1))(D)


@pytest.mark.parametrize("form", ["function", "module", "layer", "solution", "inference"])
def test_any_model(form: str) -> None:
    layer = il2o.ImplicitLayer(
        nn.Identity(),
        lambda w: il2o.ForwardBackward(il2o.Problem(F=il2o.QuadraticCost(linear=-2 * w, diagonal=1.0))),
        torch.zeros_like,
        on_failure="ignore",
    )
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, 2.0)
    models = {
        "function": double,
        "module": linear,
        "layer": layer,
        "solution": lambda d: layer(d),
        "inference": lambda d: il2o.Inference(x=double(d)),
    }
    checked = il2o.ensure([IN_RANGE], on_fail="abstain")(models[form]).check(D)
    assert checked.kept.tolist() == [True, False, True]
    assert checked.inference.data is D
    assert (checked.inference.residual is not None) == (form in ("layer", "solution"))


def test_what_did_not_converge_is_refused() -> None:
    status = torch.tensor([int(il2o.Status.CONVERGED), int(il2o.Status.MAX_STEPS), int(il2o.Status.CONVERGED)])
    model = il2o.ensure(on_fail="abstain")(lambda d: il2o.Inference(x=d, status=status))
    assert model.check(D).kept.tolist() == [True, False, True]
    x = torch.tensor([[math.inf], [0.0]])
    assert il2o.ensure(on_fail="abstain")(lambda d: d).check(x).kept.tolist() == [False, True]


def test_strict_refuses_warnings() -> None:
    warns = il2o.Certificate(size(), il2o.Threshold(0.5, above=1.0))
    kept = [il2o.ensure([warns], on_fail="abstain", strict=s)(double).check(D).kept.tolist() for s in (False, True)]
    assert kept == [[True, False, True], [True, False, False]]


def test_gradients_flow_through_what_was_kept() -> None:
    d = D.clone().requires_grad_()
    x = guarded(lambda part: 0 * part.detach())(d)
    x.sum().backward()
    assert d.grad is not None
    assert d.grad.flatten().tolist() == [2.0, 0.0, 2.0]


def calibration(count: int = 199) -> torch.Tensor:
    return torch.rand(count, 1, generator=torch.Generator().manual_seed(5))


def test_calibrated_once_saved_and_loaded_with_the_weights(tmp_path: Path) -> None:
    def fresh() -> il2o.Ensured:
        return il2o.ensure(measures=[size()], on_fail="abstain")(nn.Linear(1, 1, bias=False))

    model = fresh()
    with pytest.raises(RuntimeError, match=r"Linear: \['size 1'\] are not calibrated; call calibrate"):
        model(D)
    model.calibrate(calibration().split(50), level=0.1)
    write_checkpoint({"state_dict": model.state_dict()}, tmp_path / "model.ckpt")
    other = fresh()
    other.load_state_dict(read_checkpoint(tmp_path / "model.ckpt")["state_dict"])
    assert other.to_json() == model.to_json()
    d = torch.linspace(-3, 3, 41)[:, None]
    mine, theirs = model.check(d), other.check(d)
    assert torch.equal(mine.kept, theirs.kept)
    assert 0 < mine.coverage < 1
    assert torch.equal(mine.x.nan_to_num(), theirs.x.nan_to_num())


def test_an_uncalibrated_state_stays_uncalibrated() -> None:
    model = il2o.ensure(measures=[size()])(double)
    model.from_json(il2o.ensure(measures=[size()])(double).to_json())
    assert model.calibrated is None
    with pytest.raises(ValueError, match="the state of post-conditions has the fields"):
        model.from_json('{"other": 1}')
    calibrated = il2o.ensure(measures=[size()])(double)
    calibrated.calibrate([calibration()])
    with pytest.raises(ValueError, match="a file of certificates for these measures"):
        il2o.ensure(measures=[size(2.0)])(double).from_json(calibrated.to_json())


def test_plain_quantiles_beside_the_guarantee() -> None:
    rules = {}
    for plain in (True, False):
        model = il2o.ensure(measures=[size()])(double)
        model.calibrate([calibration(20)], level=0.05, plain=plain)
        rules[plain] = model.certificates[0].rule
    ordered = (2 * calibration(20)).flatten().sort().values
    assert rules[True].warn_limit == pytest.approx(float(ordered[18]))  # ceil(0.95 * 20)
    assert rules[False].warn_limit == pytest.approx(float(ordered[19]))  # ceil(0.95 * 21)


def test_several_properties_are_tested_together() -> None:
    measures = [size(scale) for scale in (1.0, 2.0, 3.0)]
    data = torch.randn(399, 1, generator=torch.Generator().manual_seed(6))
    new = torch.randn(2000, 1, generator=torch.Generator().manual_seed(7))
    for joint in ("bonferroni", "holm"):
        model = il2o.ensure([IN_RANGE], measures=measures, on_fail="abstain", joint=joint, level=0.06)(lambda d: d)
        model.calibrate([data], level=0.05)
        checked = model.check(new)
        assert checked.p is not None
        assert checked.p.shape == (2000, 3)
        by_test = (checked.p <= 0.06).any(1)
        out_of_range = (new < 0) | (new > 1)
        assert torch.equal(checked.kept, ~(by_test | out_of_range[:, 0]))
        assert 0.01 < float(by_test.double().mean()) < 0.04  # the same property three times: a third of the level
    with pytest.raises(ValueError, match="joint='holm' needs certificates with Conformal rules"):
        guarded("abstain", joint="holm")(D)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_fail": "ignore"}, "'ignore'"),
        ({"on_fail": 3}, "on_fail must be .* got int"),
        ({"joint": "fisher"}, "joint must be .* got 'fisher'"),
        ({"level": 1.0}, "0 < level < 1; got level=1.0"),
        ({"measures": [il2o.ConstraintViolation(name="range")]}, "'range'"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        il2o.ensure([IN_RANGE], **options)(double)  # type: ignore[arg-type]


@pytest.mark.bad_input
def test_bad_models() -> None:
    with pytest.raises(TypeError, match="takes a module or a function; got int"):
        il2o.ensure()(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="returned a str; ensure checks tensors"):
        il2o.ensure(name="odd")(lambda d: "answer")(D)
    with pytest.raises(
        TypeError, match=r"returned torch.int64 of shape \(3,\); ensure checks batches of floating-point"
    ):
        il2o.ensure()(lambda d: torch.zeros(3, dtype=torch.int64))(D)


# The audit log.


def test_every_inference_is_logged(tmp_path: Path) -> None:
    log = il2o.AuditLog(tmp_path / "logs" / "audit.jsonl", durable=True)
    guarded("abstain", audit=log, name="toy")(D)
    with pytest.raises(il2o.PostconditionError):
        guarded("raise", audit=log)(D)
    with pytest.warns(il2o.PostconditionWarning):
        guarded("warn", audit=log)(D)
    lines = list(il2o.read_audit(log.path))
    assert [line["action"] for line in lines] == [
        *("answered", "abstained", "answered"),
        *("withheld", "raised", "withheld"),
        *("answered", "warned", "answered"),
    ]
    assert lines[1]["values"]["range"] == pytest.approx(0.8)
    assert lines[1]["limits"] == {"range": [1e-6, 1e-6]}
    assert (lines[1]["labels"], lines[1]["worst"]) == ({"range": "FAIL"}, "FAIL")
    assert (lines[1]["model"], lines[1]["sample"], lines[1]["converged"]) == ("toy", 1, True)


def test_values_that_are_not_finite_are_logged_as_text(tmp_path: Path) -> None:
    log = il2o.AuditLog(tmp_path / "audit.jsonl")
    guarded("abstain", audit=log)(torch.tensor([[math.nan]]))
    [line] = il2o.read_audit(log.path)
    assert line["values"] == {"range": "nan"}
    assert not line["converged"]


@pytest.mark.parametrize("cut", [1, 5, 200])
def test_what_a_kill_left_is_no_line(tmp_path: Path, cut: int) -> None:
    log = il2o.AuditLog(tmp_path / "audit.jsonl")
    model = guarded("abstain", audit=log)
    model(D)
    whole = Path(log.path).read_bytes()
    Path(log.path).write_bytes(whole + whole[:cut].rstrip(b"\n"))
    assert len(list(il2o.read_audit(log.path))) == 3
    model(D)
    lines = list(il2o.read_audit(log.path))
    assert len(lines) == 6
    assert all(line["model"] == "double" for line in lines)
    Path(log.path).write_bytes(b"x" * 200_000)  # a first line that was never finished
    model(D)
    assert len(list(il2o.read_audit(log.path))) == 3


def test_a_full_disk_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = il2o.AuditLog(tmp_path / "audit.jsonl")
    model = guarded("abstain", audit=log)
    model(D)
    before = Path(log.path).read_bytes()
    write, room = os.write, [100]

    def nearly_full(handle: int, content: bytes) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        written = write(handle, content[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(
        il2o.AuditError, match=r"No space left on device\. The file is as it was; the inference is not logged"
    ):
        model(D)
    monkeypatch.undo()
    assert Path(log.path).read_bytes() == before
    model(D)
    assert len(list(il2o.read_audit(log.path))) == 6


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(il2o.AuditError, match="Cannot write the audit log"):
        guarded("abstain", audit=il2o.AuditLog(tmp_path / "file" / "audit.jsonl"))(D)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"a": 1}\nnot json\n')
    lines = il2o.read_audit(path)
    assert next(lines) == {"a": 1}
    with pytest.raises(ValueError, match="line 2, is no JSON"):
        next(lines)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1, is a list, not an object"):
        list(il2o.read_audit(path))


def _write(path: str, name: str) -> None:
    report = il2o.certify([IN_RANGE], il2o.Inference(x=double(D)))
    for _ in range(20):
        il2o.AuditLog(path).write(report, ["answered"] * 3, model=name)


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = str(tmp_path / "audit.jsonl")
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=_write, args=(path, "other"))
    writer.start()
    _write(path, "this")
    writer.join()
    lines = list(il2o.read_audit(path))
    assert sorted(line["model"] for line in lines) == ["other"] * 60 + ["this"] * 60
    assert all(json.dumps(line) for line in lines)


def test_the_log_needs_an_action_a_sample(tmp_path: Path) -> None:
    report = il2o.certify([IN_RANGE], il2o.Inference(x=double(D)))
    with pytest.raises(ValueError, match="an action is needed for each of 3 samples; got 1"):
        il2o.AuditLog(tmp_path / "audit.jsonl").write(report, ["answered"], model="toy")
