"""What a hostile but expert user tries first; each test states a promise that was once broken."""

import math

import pytest
import torch
from torch import Tensor

import implicit_l2o as il2o

MODES = [il2o.JFB(), il2o.Neumann(3), il2o.Implicit(), il2o.Unrolled(60), il2o.Unrolled(60, checkpoint=7)]
each_mode = pytest.mark.parametrize("backward", MODES, ids=lambda mode: type(mode).__name__)


def quadratic_program(w: Tensor, b: Tensor, *, curvature: float | Tensor = 0.5) -> il2o.Problem:
    """Minimise `w.x + curvature |x|^2 / 2` over the box [0, 1] and `sum x = b`."""
    rows = torch.ones(1, w.shape[1], dtype=w.dtype)
    return il2o.Problem(
        F=il2o.QuadraticCost(linear=w, diagonal=curvature), g=il2o.Box(0.0, 1.0), h=il2o.AffineSet(rows, b)
    )


class TestMapsThatCheat:
    """A residual of zero must not come from a `T` that overwrites what it is compared with."""

    def test_a_map_that_works_in_place_is_refused(self) -> None:
        with pytest.raises(ValueError, match="T must not change its argument"):
            il2o.fixed_point(lambda z: z.mul_(0.5).add_(1.0), torch.zeros(2, 3))

    def test_a_map_that_returns_one_buffer_again_and_again_is_refused(self) -> None:
        buffer = torch.zeros(2, 3)
        with pytest.raises(ValueError, match="a buffer that it overwrites"):
            il2o.fixed_point(lambda z: buffer.copy_(0.5 * z + 1.0), torch.zeros(2, 3))

    def test_returning_the_input_or_a_view_of_it_is_fine(self) -> None:
        assert il2o.fixed_point(lambda z: z, torch.ones(2, 3)).converged.all()
        assert il2o.fixed_point(lambda z: z.flip(0).flip(0), torch.ones(2, 3)).converged.all()


class TestBadSamples:
    @each_mode
    def test_an_infeasible_sample_gives_no_gradient_through_z_either(self, backward: il2o.AbstractBackward) -> None:
        w = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        b = torch.tensor([[1.0], [50.0], [2.0]], dtype=torch.float64, requires_grad=True)
        solution = il2o.solve(
            il2o.DavisYin(quadratic_program(w, b)), torch.zeros_like(w), backward=backward, on_failure="ignore"
        )
        assert solution.status[1] == il2o.Status.INFEASIBLE
        (solution.z.square().sum() + solution.x.square().sum()).backward()
        assert w.grad is not None
        assert b.grad is not None
        assert (w.grad[1] == 0).all()
        assert (b.grad[1] == 0).all()
        assert (b.grad[[0, 2]] != 0).all()

    @each_mode
    def test_a_bad_mate_does_not_poison_the_weights_a_closure_shares(self, backward: il2o.AbstractBackward) -> None:
        generator = torch.Generator().manual_seed(0)
        weight = 0.2 * torch.randn(3, 3, dtype=torch.float64, generator=generator)
        bias = torch.randn(4, 3, dtype=torch.float64, generator=generator)

        def gradient(bias: Tensor) -> Tensor:
            W = weight.clone().requires_grad_()
            point = il2o.fixed_point(
                lambda z: (z @ W).tanh() + bias, torch.zeros_like(bias), backward=backward, on_failure="ignore"
            )
            return torch.autograd.grad(point.z.square().sum(), W)[0]

        spoiled = bias.clone()
        spoiled[1] = math.nan
        torch.testing.assert_close(gradient(spoiled), gradient(bias[[0, 2, 3]]), rtol=1e-12, atol=1e-12)

    def test_leaving_an_unstable_point_is_not_divergence(self) -> None:
        solver = il2o.KrasnoselskiiMann(il2o.Stopping(1e-12, 0.0))
        start = torch.zeros(1, 1, dtype=torch.float64)
        point = il2o.fixed_point(lambda z: torch.tanh(3 * z + 1e-10), start, solver=solver)
        assert point.converged.all()
        assert float(point.z) == pytest.approx(0.99, abs=0.01)


class TestAdjoint:
    """A singular adjoint equation without a solution must not be called solved."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("restart", [5, 30])
    def test_a_singular_equation_is_not_solved_by_a_huge_vector(self, dtype: torch.dtype, restart: int) -> None:
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(40, 5, 5, dtype=torch.float64, generator=generator)).Q
        eigenvalues = 0.2 + torch.rand(40, 5, dtype=torch.float64, generator=generator)
        eigenvalues[:, 0] = 0.0
        A = ((basis * eigenvalues[:, None]) @ basis.mT).to(dtype)
        b = torch.randn(40, 5, dtype=torch.float64, generator=generator).to(dtype)
        solve = il2o.GMRES(restart=restart).solve(lambda u: (A @ u[..., None])[..., 0], b)
        assert not solve.converged.any()

    def test_implicit_falls_back_to_jfb_there(self) -> None:
        rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0))).Q
        J = rotation @ torch.diag(torch.tensor([1.0, 0.5, 0.3, 0.2, 0.1])) @ rotation.mT
        b = torch.zeros(1, 5, requires_grad=True)
        point = il2o.fixed_point(lambda z: z @ J + b, torch.zeros(1, 5), backward=il2o.Implicit())
        with pytest.warns(il2o.ConvergenceWarning, match="JFB"):
            point.z.sum().backward()
        torch.testing.assert_close(b.grad, torch.ones(1, 5))


class TestShapes:
    @each_mode
    @pytest.mark.parametrize("solver", [il2o.KrasnoselskiiMann(relaxation=1.2), il2o.Anderson(), il2o.Halpern()])
    def test_an_empty_batch_with_curvature_per_sample(
        self, backward: il2o.AbstractBackward, solver: il2o.AbstractFixedPointSolver
    ) -> None:
        w = torch.zeros(0, 5, requires_grad=True)
        problem = quadratic_program(w, torch.ones(0, 1), curvature=torch.ones(0, 5))
        solution = il2o.solve(il2o.DavisYin(problem), torch.zeros(0, 5), solver=solver, backward=backward)
        assert solution.x.shape == (0, 5)
        assert solution.status.shape == (0,)

    def test_a_vector_parameter_for_a_batch_of_scalars_is_ambiguous(self) -> None:
        w = torch.tensor([1.0, -3.0, 2.0])
        problem = il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(0.0, 1.0))
        with pytest.raises(ValueError, match=r"batch of scalars.*x of shape \(B, 1\)"):
            il2o.solve(il2o.ForwardBackward(problem), torch.zeros(3))

    @pytest.mark.parametrize("splitting", [il2o.CondatVu, il2o.LinearizedADMM])
    def test_no_curvature_and_no_coupling_still_has_a_step(self, splitting: type[il2o.AbstractSplitting]) -> None:
        flat = il2o.QuadraticCost(linear=torch.zeros(2, 3), diagonal=torch.zeros(2, 3))
        problem = il2o.Problem(F=flat, g=il2o.Box(0.0, 1.0), K=il2o.Matrix(torch.zeros(1, 3)), l=il2o.L1Norm())
        assert il2o.solve(splitting(problem), torch.ones(2, 3)).converged.all()  # pyright: ignore[reportCallIssue]


class TestMessages:
    PROBLEM = il2o.Problem(F=il2o.QuadraticCost(linear=torch.ones(3), diagonal=1.0), g=il2o.Box(0.0, 1.0))

    @pytest.mark.parametrize("backward", [il2o.JFB(), il2o.Unrolled(1)], ids=lambda mode: type(mode).__name__)
    def test_a_map_that_returns_something_else(self, backward: il2o.AbstractBackward) -> None:
        with pytest.raises(ValueError, match=r"T must return a tensor like its input.*got \(2,\)"):
            il2o.fixed_point(lambda z: z.sum(-1), torch.zeros(2, 3), backward=backward)

    def test_a_step_of_the_wrong_shape_or_dtype(self) -> None:
        x0 = torch.zeros(2, 3)
        with pytest.raises(ValueError, match=r"step as a number or one a sample, \(B,\); got shape \(2, 3\)"):
            il2o.ForwardBackward(self.PROBLEM, step=torch.ones(2, 3))
        with pytest.raises(ValueError, match=r"step_size has shape .5,.: .* must be 1 or B=2"):
            il2o.solve(il2o.ForwardBackward(self.PROBLEM, step=torch.ones(5)), x0)
        with pytest.raises(ValueError, match=r"step_size is torch.float64 but x is torch.float32"):
            il2o.solve(il2o.ForwardBackward(self.PROBLEM, step=torch.ones(2, dtype=torch.float64)), x0)


class TestConvergedMeansSolved:
    """Nearly linear costs make the automatic step, and so `z`, huge; the answer `x` stays in the unit box."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("curvature", [1e-3, 1e-4, 1e-6, 1e-8])
    @pytest.mark.parametrize("stopping", [il2o.Stopping(), il2o.Stopping(atol=1e-4, rtol=0.0)])
    def test_a_converged_sample_satisfies_its_constraint(
        self, dtype: torch.dtype, curvature: float, stopping: il2o.Stopping
    ) -> None:
        w = torch.randn(50, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))
        problem = quadratic_program(w, torch.ones(1, dtype=dtype), curvature=curvature)
        splitting = il2o.DavisYin(problem)
        solution = il2o.solve(
            splitting, torch.zeros_like(w), solver=il2o.KrasnoselskiiMann(stopping), on_failure="ignore"
        )
        distance = (solution.x.sum(-1) - 1.0).abs() / 8**0.5
        # Twice the tolerance: the residual itself is known to the rounding of z.
        assert (distance <= 2 * solution.tolerance)[solution.converged].all()
        sound = solution.x.norm(dim=-1)
        atol, rtol = stopping.tolerances(dtype)
        torch.testing.assert_close(solution.tolerance, atol + rtol * sound)

    def test_a_residual_of_zero_by_rounding_is_not_convergence(self) -> None:
        point = il2o.fixed_point(
            lambda z: z + 1.0,
            torch.full((1, 1), 1e8),
            solver=il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-4, rtol=0.0, max_steps=10)),
            on_failure="ignore",
        )
        assert float(point.residual) == 0.0
        assert point.status.tolist() == [il2o.Status.MAX_STEPS]
        assert point.precision.all()
