"""The small soak: no splitting and no solver calls a wrong answer right; and the judge does call wrong answers wrong."""

import dataclasses

import pytest
import torch
from benchmarks.soak.__main__ import batches, run
from benchmarks.soak.check import judge
from benchmarks.soak.methods import METHODS, Method
from benchmarks.soak.problems import KINDS, SOLVABLE, draw

import implicit_l2o as il2o

each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@each_method
def test_no_answer_is_wrong(method: Method) -> None:
    with torch.no_grad():
        *_, result = run(240, 60, 7, (method,), max_steps=250)
    assert result["problems"] == 240
    assert result["solves"] == 720
    assert not result["wrong"]
    assert sum(row["CONVERGED"] for row in result["rows"]) > 100
    takes_cost = method.name != "DouglasRachford"
    assert not takes_cost or "CONVERGED" not in result["kinds"]["not a number"]


@each_method
def test_the_judge_sees_what_is_wrong(method: Method) -> None:
    batch = draw(80, 6, 2, 3, doubled_row=False, scaled_rows=False)
    stopping = il2o.Stopping(atol=1e-9, rtol=0.0, max_steps=1)
    splitting = method.build(batch, torch.float64)
    with torch.no_grad():
        short = il2o.solve(
            splitting, torch.ones_like(batch.x), solver=il2o.KrasnoselskiiMann(stopping), on_failure="ignore"
        )
        claimed = dataclasses.replace(short, status=torch.full_like(short.status, int(il2o.Status.CONVERGED)))
        wrong = judge(batch, method, splitting, claimed).wrong
    plain = (batch.kind < SOLVABLE) & (batch.unit == 1.0)
    assert wrong[plain].double().mean() > 0.8  # one step from afar solves next to nothing
    broken = batch.kind == KINDS.index("not a number")
    assert wrong[broken].all() or method.name == "DouglasRachford"
    assert not judge(batch, method, splitting, short).wrong[~short.converged].any()


def test_the_solutions_solve_the_problems() -> None:
    for batch, _, _ in batches(200, 100, 1):
        good = batch.kind < SOLVABLE
        slope = (batch.Q @ batch.x[..., None])[..., 0] + batch.linear(equations=True, game=False) + batch.nu @ batch.A
        below, above = batch.x <= batch.lower, batch.x >= batch.upper
        force = batch.cost / batch.unit
        scaled = (slope / force[:, None])[good]
        below, above = below[good], above[good]
        assert (scaled[~below] < 1e-12).all()
        assert (scaled[~above] > -1e-12).all()
        assert (
            (batch.x @ batch.A.mT - batch.b)[good].abs().amax(1) <= 1e-12 * batch.unit[good] * batch.A.abs().sum()
        ).all()
