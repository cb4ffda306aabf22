"""The implicit dictionary `x(d) = argmin |K x|_1 s.t. A x = d` with a learned transform `K`.

Source: Heaton and Wu Fung, Explainable AI via Learning to Optimize (Scientific Reports, 2023). The published iteration is a
linearised ADMM over `x`; here the variable is `y = K x`, which makes both steps exact and needs a third of the products.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

import implicit_l2o as il2o

TOLERANCE = 1e-3  # relative, on |T(z) - z|
MAX_STEPS = 400  # the published cap
THRESHOLD = 0.5  # the step, in units of the mean size of the least-squares coefficients


class ImplicitDictionary(nn.Module):
    """Recovers `x` from `d = A x` as the signal that explains `d` exactly and is sparsest under the learned `K`.

    `K` is learned through its inverse, the dictionary `D`: with `y = K x`,

        `y(d) = argmin |y|_1  s.t.  (A D) y = d,   x = D y`,

    solved by Douglas-Rachford with `g` the affine set, so that every answer explains `d` up to rounding, whenever it stops.
    `T` is firmly nonexpansive for every `D` and every step: any relaxation below 2 is within the theorem's range. The step
    of a sample is a multiple of the mean size of its least-squares coefficients, so that `x(c d) = c x(d)` in as many steps.

    Args:
        A: measurement matrix, of full row rank.
        seed: of the random orthogonal matrix that `D` starts as; PyTorch's own random state is left as it was.
        solver: None takes the relaxed iteration to a relative residual of 1e-3, at most 400 steps.
        backward: None takes `JFB()`.
        threshold: the step, in the unit above; positive.

    Raises:
        ValueError: the threshold is not positive.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.dictionary.data import Sizes, world
        >>> from implicit_l2o.applications.dictionary.model import ImplicitDictionary
        >>> A = world(Sizes(), seed=0).A
        >>> model = ImplicitDictionary(A, seed=0)
        >>> sum(parameter.numel() for parameter in model.parameters())
        62500
        >>> d = torch.randn(2, 250) @ A.mT
        >>> bool(torch.allclose(model(d).x @ A.mT, d, atol=1e-5))
        True
    """

    A: Tensor

    def __init__(
        self,
        A: Float[Tensor, "measurements signal"],
        *,
        seed: int,
        solver: il2o.AbstractFixedPointSolver | None = None,
        backward: il2o.AbstractBackward | None = None,
        threshold: float = THRESHOLD,
    ) -> None:
        super().__init__()
        if not threshold > 0:
            raise ValueError(f"ImplicitDictionary needs threshold > 0; got threshold={threshold}.")
        self.register_buffer("A", A.clone())
        size = A.shape[1]
        noise = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
        self.D = nn.Parameter(torch.linalg.qr(noise).Q)
        self.solver = standard_solver() if solver is None else solver
        self.backward = backward
        self.threshold = threshold

    def splitting(self, d: Float[Tensor, "B measurements"]) -> tuple[il2o.DouglasRachford, Float[Tensor, "B signal"]]:
        """The splitting over `y`, and its start, the least-squares coefficients."""
        coefficients = il2o.AffineSet(self.A @ self.D, d)
        start = coefficients.project(d.new_zeros(len(d), self.D.shape[1])).detach()
        # Where d = 0 the solution is 0 for every step, and a step must be positive; where d is broken the solver says so.
        step = (self.threshold * start.abs().mean(dim=1)).nan_to_num(1.0, 1.0).clamp_min(torch.finfo(d.dtype).tiny)
        return il2o.DouglasRachford(il2o.Problem(g=coefficients, h=il2o.L1Norm()), step=step), start

    def forward(
        self, d: Float[Tensor, "B measurements"], solver: il2o.AbstractFixedPointSolver | None = None
    ) -> il2o.Inference:
        """The signals `x` with the fixed points `z` that they were read from; gradients by the backward mode.

        Args:
            d: measurements.
            solver: None takes the model's own.
        """
        splitting, start = self.splitting(d)
        solution = il2o.solve(splitting, start, solver=solver or self.solver, backward=self.backward)
        return il2o.Inference(
            x=solution.x @ self.D.mT,
            z=solution.z,
            status=solution.status,
            residual=solution.residual,
            steps=solution.steps,
            data=d,
        )

    @property
    @torch.no_grad()
    def K(self) -> Float[Tensor, "signal signal"]:
        """The learned transform `D^{-1}`."""
        return torch.linalg.inv(self.D.double()).to(self.D.dtype)

    def conditioning(self) -> Float[Tensor, ""]:
        """`|D|_F^2 / 2 - log |det D| - n / 2`: 0 for an orthogonal `D`, large for an ill-conditioned or a scaled one.

        Source: Ravishankar and Bresler, Learning Sparsifying Transforms, IEEE Transactions on Signal Processing 61 (2013).
        """
        return 0.5 * self.D.square().sum() - torch.linalg.slogdet(self.D).logabsdet - 0.5 * self.D.shape[0]


def standard_solver() -> il2o.KrasnoselskiiMann:
    """Relaxed by 1.8, to a relative residual of 1e-3, at most 400 steps."""
    return il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=TOLERANCE, max_steps=MAX_STEPS), relaxation=1.8)


def fixed_steps(steps: int) -> il2o.KrasnoselskiiMann:
    """Exactly so many relaxed steps: a tolerance of zero asks for them, without a warning."""
    return il2o.KrasnoselskiiMann(il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps), relaxation=1.8)
