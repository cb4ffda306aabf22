"""The README's code runs as it stands, and the contract snippet in it means what the README says."""

import pytest
import torch

import implicit_l2o as il2o
import pages

README = pages.ROOT / "README.md"

# Public names that downstream code relies on: it stands in the README word for word.
CONTRACT = """\
import torch, implicit_l2o as il2o
w = torch.randn(32, 5, requires_grad=True)                  # learned costs, one row a sample
problem = il2o.Problem(
    F=il2o.QuadraticCost(linear=w, diagonal=0.5),           # w.x + 0.25 |x|^2
    g=il2o.Box(lower=0.0),                                  # x >= 0, exactly: the readout
    h=il2o.AffineSet(torch.ones(1, 5), torch.ones(1)),      # sum x = 1, at convergence
)
solution = il2o.solve(
    il2o.DavisYin(problem), x0=torch.zeros(32, 5),
    solver=il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-6, rtol=0.0, max_steps=2000)),
    backward=il2o.JFB(),
)
solution.x, solution.status, solution.residual, solution.steps   # (32, 5), (32,), (32,), (32,)
solution.x.square().sum().backward()                             # w.grad holds the JFB gradient
fp = il2o.fixed_point(lambda z: 0.7 * z.tanh() + w, torch.zeros(32, 5), backward=il2o.Implicit())
"""


def test_every_block_runs() -> None:
    assert pages.run(README)


def test_the_contract_stands_in_the_readme() -> None:
    assert CONTRACT in [code for _, code in pages.python_blocks(README)]


@pytest.fixture
def contract() -> dict:
    names: dict = {}
    exec(CONTRACT, names)
    return names


def test_the_contract_solves_the_problem(contract: dict) -> None:
    """Shapes, feasibility, and the answer: the projection of `-2 w` onto the simplex, by sorting."""
    solution, w = contract["solution"], contract["w"].detach()
    assert solution.x.shape == (32, 5)
    for each in (solution.status, solution.residual, solution.steps):
        assert each.shape == (32,)
    assert (solution.status == il2o.Status.CONVERGED).all()
    assert (solution.residual <= 1e-6).all()
    assert (solution.x >= 0).all()
    torch.testing.assert_close(solution.x.sum(-1), torch.ones(32), atol=1e-5, rtol=0.0)
    sizes = (-2 * w).sort(dim=-1, descending=True).values
    shifts = (sizes.cumsum(-1) - 1) / torch.arange(1, 6)
    last = (sizes > shifts).sum(-1, keepdim=True) - 1
    torch.testing.assert_close(solution.x, (-2 * w - shifts.gather(-1, last)).clamp(min=0), atol=1e-4, rtol=0.0)


def test_the_contract_gives_the_jfb_gradient(contract: dict) -> None:
    """`w.grad` is that of one more application of `T`, written out, at the solution."""
    solution, w = contract["solution"], contract["w"].detach().requires_grad_()
    step = il2o.DavisYin(contract["problem"]).step_size
    # T(z) and its argument agree to the tolerance, so the argument may be taken at the returned point.
    z = solution.z.detach()
    x = z.clamp(min=0)
    reflected = 2 * x - z - step * (w + 0.5 * x)
    projected = reflected - (reflected.sum(-1, keepdim=True) - 1) / 5
    (z - x + projected).clamp(min=0).square().sum().backward()
    torch.testing.assert_close(contract["w"].grad, w.grad, atol=1e-4, rtol=0.0)
    assert contract["w"].grad.norm() > 0.1


def test_the_contract_finds_a_fixed_point_with_its_exact_gradient(contract: dict) -> None:
    """`fp.z = 0.7 tanh(fp.z) + w`, so `dz/dw = 1 / (1 - 0.7 (1 - tanh(z)^2))`, entry by entry."""
    z, w = contract["fp"].z, contract["w"]
    torch.testing.assert_close(z, 0.7 * z.tanh() + w, atol=1e-3, rtol=0.0)
    (gradient,) = torch.autograd.grad(z.sum(), w)
    torch.testing.assert_close(gradient, 1 / (1 - 0.7 * (1 - z.detach().tanh().square())), atol=1e-3, rtol=1e-3)
