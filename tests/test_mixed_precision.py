"""Under autocast the encoder runs in 16 bits; the solve, its residual, its constraints and its gradient do not."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import implicit_l2o as il2o
from implicit_l2o.applications.digits.model import ImplicitClassifier
from implicit_l2o.training import quiet

SIMPLEX = il2o.AffineSet(torch.ones(1, 6), torch.ones(1))
MIX = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-6, rtol=0.0, max_steps=5000))
MODES = [il2o.JFB(), il2o.Neumann(3), il2o.Implicit(il2o.GMRES(rtol=1e-6)), il2o.Unrolled(60)]
DEVICES = [("cpu", torch.bfloat16)] + [("cuda", dtype) for dtype in (torch.float16, torch.bfloat16)]


@pytest.fixture(params=DEVICES, ids=lambda pair: f"{pair[0]}-{str(pair[1])[6:]}")
def place(request: pytest.FixtureRequest) -> tuple[str, torch.dtype]:
    if request.param[0] == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def build(w: Tensor) -> il2o.DavisYin:
    """Products in `T`, in its readout's way and in `build`: all of them would be rounded under autocast."""
    mix = MIX.to(w.device)
    cost = il2o.QuadraticCost(matrix=mix @ torch.diag(torch.linspace(1, 3, 6, device=w.device)) @ mix.T, linear=w @ mix)
    affine = il2o.AffineSet(torch.ones(1, 6, device=w.device), torch.ones(1, device=w.device))
    return il2o.DavisYin(il2o.Problem(F=cost, g=affine, h=il2o.Box(lower=0.0)))


def layer(device: str = "cpu", encoder: nn.Module | None = None, **options: Any) -> il2o.ImplicitLayer:
    torch.manual_seed(0)
    encoder = nn.Linear(4, 6) if encoder is None else encoder
    return il2o.ImplicitLayer(encoder, build, torch.zeros_like, solver=TIGHT, **options).to(device)


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


class Fit(pl.LightningModule):
    """The smallest training; keeps what it saw in the last step."""

    def __init__(self, model: il2o.ImplicitLayer) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.inference = self.model.inference(batch[0])
        self.theta = self.model.encoder(batch[0])
        return (self.inference.x - batch[1]).square().sum(-1).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_trainer_in_mixed_precision_solves_in_float32() -> None:
    task = Fit(layer(on_failure="raise"))
    before = [parameter.detach().clone() for parameter in task.parameters()]
    data = TensorDataset(torch.randn(16, 4), torch.softmax(torch.randn(16, 6), -1))
    with quiet():
        pl.Trainer(
            accelerator="cpu",
            precision="bf16-mixed",
            max_steps=3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(task, DataLoader(data, batch_size=8))
    inference = task.inference
    assert task.theta.dtype == torch.bfloat16
    assert inference.z is not None
    assert inference.z.dtype == inference.x.dtype == torch.float32
    assert inference.residual is not None
    assert (inference.residual <= 1e-6).all()  # bfloat16 rounds to 4e-3
    assert (il2o.ConstraintViolation()(inference) <= 1e-5).all()
    assert all(parameter.dtype == torch.float32 for parameter in task.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, task.parameters(), strict=True))


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: type(mode).__name__)
def test_the_gradient_is_that_of_full_precision_from_the_same_parameters(
    mode: il2o.AbstractBackward, place: tuple[str, torch.dtype]
) -> None:
    device, dtype = place
    model = layer(device, nn.Identity(), backward=mode)
    theta = torch.randn(5, 6).to(device, dtype)
    cotangent = torch.randn(5, 6, device=device)

    def run(w: Tensor) -> tuple[il2o.Solution, Tensor]:
        w = w.clone().requires_grad_()
        solution = model(w)
        (solution.x * cotangent).sum().backward()
        assert w.grad is not None
        return solution, w.grad

    full, expected = run(theta.float())
    with torch.autocast(device, dtype=dtype):
        solution, got = run(theta)
    torch.testing.assert_close(solution.x, full.x, rtol=0.0, atol=0.0)
    # The gradient of a parameter of 16 bits has 16 bits: that is its one rounding.
    torch.testing.assert_close(got, expected.to(dtype), rtol=0.0, atol=0.0 if device == "cpu" else 1e-3)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: type(mode).__name__)
def test_a_backward_inside_autocast_is_the_one_outside(
    mode: il2o.AbstractBackward, place: tuple[str, torch.dtype]
) -> None:
    device, dtype = place
    A = (0.5 * MIX).to(device).requires_grad_()
    b = torch.randn(5, 6, device=device, requires_grad=True)
    z0 = torch.zeros(5, 6, device=device)

    def run() -> il2o.FixedPoint:
        return il2o.fixed_point(lambda z: torch.tanh(z @ A) + b, z0, solver=TIGHT, backward=mode)

    expected = torch.autograd.grad(run().z.square().sum(), (A, b))
    with torch.autocast(device, dtype=dtype):
        got = torch.autograd.grad(run().z.square().sum(), (A, b))
        assert torch.is_autocast_enabled(device)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: type(mode).__name__)
def test_a_layers_backward_inside_autocast_is_the_one_outside(mode: il2o.AbstractBackward) -> None:
    """The readout and the encoder, too: the whole pass from `x` on."""
    model, d = layer(backward=mode), torch.randn(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gradients(model(d).x.square().sum(), model)
        loss = model(d).x.square().sum()
    outside = gradients(loss, model)
    torch.testing.assert_close(inside, outside, rtol=1e-5, atol=1e-6)
    full = gradients(model(d).x.square().sum(), model)
    torch.testing.assert_close(outside, full, rtol=0.1, atol=0.1)  # the encoder alone is rounded


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own, on the first use
def test_forward_mode_still_passes() -> None:
    A = 0.5 * torch.eye(3)
    quiet_solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1.0))

    def unrolled(b: Tensor) -> Tensor:
        return il2o.fixed_point(
            lambda z: z @ A + b, torch.zeros(2, 3), solver=quiet_solver, backward=il2o.Unrolled(2)
        ).z

    b = torch.ones(2, 3, requires_grad=True)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(b, torch.ones(2, 3))
        tangent = torch.autograd.forward_ad.unpack_dual(unrolled(dual)).tangent
    torch.testing.assert_close(tangent, torch.full((2, 3), 1.5))


def test_passes_inside_autocast_leave_nothing_on_the_parameters() -> None:
    """Hooks on what outlives the graph would pile up, and reach later passes."""
    A = torch.eye(3, requires_grad=True)
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            il2o.fixed_point(lambda z: 0.3 * z @ A + 1.0, torch.zeros(2, 3)).z.sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (grad,) = torch.autograd.grad((torch.ones(2, 3) @ A).sum(), A)
    assert grad.dtype == torch.float32
    assert A.grad is not None


@dataclass(frozen=True)
class Weights:
    cost: Tensor
    scale: float
    name: str = "cost"


class Structured(nn.Module):
    """Gives the parameters in a structure."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.pack = pack

    def forward(self, d: Tensor) -> Any:
        return self.pack(self.linear(d))


@pytest.mark.parametrize(
    ("pack", "read"),
    [
        (lambda w: {"cost": w, "index": torch.arange(6)}, lambda theta: theta["cost"]),
        (lambda w: (w, [w, "text"]), lambda theta: theta[1][0]),
        (lambda w: Weights(w, 2.0), lambda theta: theta.cost),
    ],
    ids=["dict", "tuple", "dataclass"],
)
def test_structures_of_parameters_are_made_float32(
    pack: Callable[[Tensor], Any], read: Callable[[Any], Tensor]
) -> None:
    seen = []
    model = il2o.ImplicitLayer(
        Structured(pack),
        lambda theta: seen.append(theta) or build(read(theta)),
        lambda theta: torch.zeros_like(read(theta)),
        solver=TIGHT,
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        solution = model(torch.randn(3, 4))
    assert read(seen[0]).dtype == solution.z.dtype == torch.float32
    assert solution.converged.all()
    if isinstance(seen[0], dict):
        assert seen[0]["index"].dtype == torch.int64


def test_without_autocast_the_dtype_is_the_parameters_own() -> None:
    model = il2o.ImplicitLayer(
        nn.Linear(4, 6, dtype=torch.bfloat16),
        lambda w: il2o.ForwardBackward(
            il2o.Problem(F=il2o.QuadraticCost(linear=w, diagonal=1.0), g=il2o.Box(0.0, 1.0))
        ),
        torch.zeros_like,
    )
    assert model(torch.randn(3, 4).bfloat16()).x.dtype == torch.bfloat16


def test_the_classifier_solves_in_float32() -> None:
    net = ImplicitClassifier(seed=0, solver=TIGHT)
    images = torch.rand(6, 1, 8, 8)
    twin = copy.deepcopy(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = net(images)
        expected = twin.Q(images)
    assert expected.dtype == torch.bfloat16
    assert prediction.z is not None
    assert prediction.z.dtype == prediction.x.dtype == torch.float32
    assert prediction.residual is not None
    assert prediction.valid.all()
    assert (prediction.residual <= 1e-6).all()
    full = twin(images)
    torch.testing.assert_close(prediction.z, full.z, rtol=0.1, atol=0.1)  # the encoder alone is rounded
    prediction.x.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)
