"""Every splitting with every solver and every backward mode, at several sizes, with a NaN and an infeasible sample."""

import warnings

import pytest
import torch

import implicit_l2o as il2o
from cases import BACKWARDS, INFEASIBLE_SAMPLE, NAN_SAMPLE, SOLVERS, SPLITTINGS, draw, spoil

STOPPING = il2o.Stopping(atol=1e-7, rtol=0.0, max_steps=1000)


@pytest.mark.parametrize("backward", BACKWARDS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
class TestPair:
    def test_one_sample(self, splitting: str, solver: str, backward: str) -> None:
        self.check(splitting, solver, backward, *draw(1, 5), spoiled=False)

    def test_a_large_batch_with_bad_samples(self, splitting: str, solver: str, backward: str) -> None:
        self.check(splitting, solver, backward, *draw(256, 5), spoiled=True)

    def test_many_variables_with_bad_samples(self, splitting: str, solver: str, backward: str) -> None:
        self.check(splitting, solver, backward, *draw(3, 20_000), spoiled=True)

    @staticmethod
    def check(
        splitting: str, solver: str, backward: str, w: torch.Tensor, total: torch.Tensor, *, spoiled: bool
    ) -> None:
        case = SPLITTINGS[splitting]
        good = torch.ones(len(w), dtype=torch.bool)
        if spoiled:
            w, total = spoil(w, total, infeasible=case.constrained)
            good[NAN_SAMPLE] = False
            good[INFEASIBLE_SAMPLE] = not case.constrained
        w.requires_grad_()
        total.requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if spoiled else "error", il2o.ConvergenceWarning)
            solution = il2o.solve(
                case.make(w, total),
                torch.zeros_like(w),
                solver=SOLVERS[solver](STOPPING),
                backward=BACKWARDS[backward],
            )
        assert (solution.status[good] == il2o.Status.CONVERGED).all()
        assert (solution.residual[good] <= STOPPING.atol).all()
        if spoiled:
            assert solution.status[NAN_SAMPLE] == il2o.Status.NONFINITE
            if case.constrained:
                assert solution.status[INFEASIBLE_SAMPLE] == il2o.Status.INFEASIBLE
        x = solution.x.detach()
        assert torch.isfinite(x).all()
        assert (case.feasible(x, w.detach(), total)[good] <= 1e-6 * len(x[0]) ** 0.5).all()
        if case.solution is not None:
            expected = case.solution(w.detach()[good], total.detach()[good])
            torch.testing.assert_close(x[good], expected, atol=1e-5, rtol=0)
        unique = case.solution is not None
        with warnings.catch_warnings():
            # Where any point of a set is a solution, the adjoint equation is singular and Implicit has to say so.
            warnings.simplefilter("error" if unique else "ignore", il2o.ConvergenceWarning)
            solution.x.square().sum().backward()
        assert w.grad is not None
        assert torch.isfinite(w.grad).all()
        assert (w.grad[~good] == 0).all()
        if unique:
            assert (w.grad[good].abs().amax(-1) > 0).any()
