"""The loop and the solvers: stopping, status, batch mates, precision, bad input."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import implicit_l2o as il2o
from cases import SOLVERS, SPLITTINGS, draw, spoil
from implicit_l2o.solvers import anderson, iterate

NAMES = [il2o.Status(i).name for i in range(6)]
TIGHT = il2o.Stopping(atol=1e-10, rtol=0.0, max_steps=4000)


def linear(n: int, gamma: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, n, dtype=torch.float64, generator=generator)
    b = torch.randn(n, dtype=torch.float64, generator=generator)
    return gamma * A / torch.linalg.matrix_norm(A, 2), b


class Recorder:
    """A map that remembers the largest entry it was given, and how often it was called."""

    def __init__(self, T) -> None:
        self.T, self.largest, self.calls = T, 0.0, 0

    def __call__(self, z: Tensor) -> Tensor:
        self.calls += 1
        self.largest = max(self.largest, float(z.abs().max()))
        return self.T(z)


@pytest.mark.parametrize("solver", SOLVERS)
@given(gamma=st.floats(0.05, 0.97), n=st.integers(1, 12), seed=st.integers(0, 100))
def test_finds_the_fixed_point_of_a_contraction_and_reports_its_residual(solver, gamma, n, seed) -> None:
    A, b = linear(n, gamma, seed=seed)
    point = iterate(lambda z: z @ A.T + b, torch.zeros(3, n, dtype=torch.float64), SOLVERS[solver](TIGHT))
    exact = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - A, b)
    assert point.converged.all()
    torch.testing.assert_close(point.z, exact.expand(3, n), atol=1e-10 / (1 - gamma) + 1e-12, rtol=0)
    assert (point.residual <= TIGHT.atol).all()
    torch.testing.assert_close(point.residual, (point.z @ A.T + b - point.z).norm(dim=-1), atol=1e-14, rtol=1e-3)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_batch_mates_change_nothing(splitting: str, solver: str) -> None:
    case = SPLITTINGS[splitting]
    w, total = spoil(*draw(9, 6), infeasible=case.constrained)
    stopping = il2o.Stopping(atol=1e-7, rtol=1e-7, max_steps=300)

    def solve(index: Tensor) -> il2o.Solution:
        return il2o.solve(
            case.make(w[index], total[index]),
            torch.zeros(len(index), 6, dtype=torch.float64),
            solver=SOLVERS[solver](stopping),
            on_failure="ignore",
        )

    everyone = torch.arange(9)
    whole = solve(everyone)
    order = torch.randperm(9)
    groups = [order, *everyone.split(4), *everyone.split(1)]
    for index in groups:
        part = solve(index)
        assert part.status.tolist() == whole.status[index].tolist()
        assert part.steps.tolist() == whole.steps[index].tolist()
        torch.testing.assert_close(part.x, whole.x[index], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_frozen_closure_gives_every_sample_what_it_gets_alone(solver: str) -> None:
    rate = torch.tensor([0.1, 0.9, 0.99, 0.5], dtype=torch.float64)[:, None]
    stopping = il2o.Stopping(atol=1e-9, rtol=0.0, max_steps=5000)
    whole = iterate(lambda z: rate * z + 1, torch.zeros(4, 2, dtype=torch.float64), SOLVERS[solver](stopping))
    for i in range(4):
        alone = iterate(
            lambda z, i=i: rate[i] * z + 1, torch.zeros(1, 2, dtype=torch.float64), SOLVERS[solver](stopping)
        )
        assert alone.steps[0] == whole.steps[i]
        torch.testing.assert_close(alone.z[0], whole.z[i], rtol=1e-12, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_diverging_sample_is_frozen_before_T_overflows(solver: str) -> None:
    growth = torch.tensor([0.5, 10.0, 0.5], dtype=torch.float32)[:, None]
    T = Recorder(lambda z: growth * z + 1)
    point = iterate(T, torch.zeros(3, 4), SOLVERS[solver](il2o.Stopping(1e-5, 0.0, 400)))
    assert point.status[0] == point.status[2] == il2o.Status.CONVERGED
    if solver != "anderson":  # it extrapolates to the repelling fixed point, which is one
        assert point.status[1] == il2o.Status.DIVERGED
    assert torch.isfinite(point.z).all()
    assert T.largest < 1e30


def test_a_sample_that_explodes_within_a_block_is_diverged_and_finite() -> None:
    T = Recorder(lambda z: z**3 + 2)
    point = iterate(T, torch.zeros(2, 1), il2o.KrasnoselskiiMann(il2o.Stopping(1e-5, 0.0, 100)))
    assert (point.status == il2o.Status.DIVERGED).all()
    assert torch.isfinite(point.z).all()


def test_nan_in_one_sample_leaves_the_others_and_returns_a_finite_iterate() -> None:
    def T(z: Tensor) -> Tensor:
        late = (z > 1.4) & (torch.arange(3)[:, None] == 1)  # sample 1 breaks after some steps
        return torch.where(late, torch.nan, 0.5 * z + 1)

    point = iterate(T, torch.zeros(3, 2), il2o.KrasnoselskiiMann())
    assert [NAMES[s] for s in point.status] == ["CONVERGED", "NONFINITE", "CONVERGED"]
    assert torch.isfinite(point.z).all()
    assert 1.4 < point.z[1, 0] < 2  # the last iterate before the break


def test_nan_in_the_start() -> None:
    z0 = torch.zeros(2, 2)
    z0[1, 0] = torch.inf
    point = iterate(lambda z: 0.5 * z + 1, z0, il2o.KrasnoselskiiMann())
    assert [NAMES[s] for s in point.status] == ["CONVERGED", "NONFINITE"]
    assert torch.isfinite(point.z).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_step_a_converged_start_and_an_empty_batch(solver: str) -> None:
    T = lambda z: 0.5 * z + 1  # noqa: E731
    once = iterate(T, torch.zeros(2, 3), SOLVERS[solver](il2o.Stopping(1e-9, 0.0, 1)))
    assert once.steps.tolist() == [1, 1]
    torch.testing.assert_close(once.z, torch.ones(2, 3))
    there = Recorder(T)
    done = iterate(there, torch.full((2, 3), 2.0), SOLVERS[solver](il2o.Stopping(1e-6, 0.0, 50)))
    assert done.converged.all()
    assert done.steps.tolist() == [1, 1]
    assert there.calls == 2  # the step and the check of the returned point
    empty = iterate(T, torch.zeros(0, 3), SOLVERS[solver](il2o.Stopping()))
    assert empty.z.shape == (0, 3)
    assert empty.status.shape == empty.residual.shape == empty.steps.shape == (0,)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4)])
def test_any_sample_shape(solver: str, shape: tuple[int, ...]) -> None:
    point = iterate(lambda z: 0.5 * z + 1, torch.zeros(3, *shape), SOLVERS[solver](il2o.Stopping()))
    assert point.converged.all()
    torch.testing.assert_close(point.z, torch.full((3, *shape), 2.0), atol=1e-3, rtol=0)


def test_a_tolerance_of_zero_runs_max_steps_without_a_warning() -> None:
    stopping = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=7)
    T = Recorder(lambda z: 0.5 * z + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        point = il2o.fixed_point(T, torch.zeros(1, 1), solver=il2o.KrasnoselskiiMann(stopping))
    assert point.steps.tolist() == [7]
    assert float(point.z) == pytest.approx(2 - 2**-6)
    assert NAMES[int(point.status)] == "MAX_STEPS"


def test_a_tolerance_below_the_dtype_is_reported_as_such() -> None:
    A, b = (t.float() for t in linear(30, 0.9))
    solver = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-12, rtol=0.0, max_steps=2000))
    with pytest.warns(il2o.ConvergenceWarning, match=r"PRECISION: .* rounding floor of float32"):
        point = il2o.fixed_point(lambda z: z @ A.T + b, torch.zeros(2, 30), solver=solver)
    assert point.precision.all()


def test_default_tolerances_follow_the_dtype() -> None:
    def residual(dtype: torch.dtype) -> float:
        A, b = (t.to(dtype) for t in linear(20, 0.95))
        return float(iterate(lambda z: z @ A.T + b, torch.zeros(1, 20, dtype=dtype), il2o.KrasnoselskiiMann()).residual)

    assert residual(torch.float64) < 1e-4
    assert residual(torch.float64) < 0.1 * residual(torch.float32) < 0.1 * 1e-2


def test_an_expansive_transient_does_not_count_as_converged() -> None:
    """Strongly non-normal: the residual is tiny at a point whose image has a large one."""
    A = torch.tensor([[0.5, 1e6], [0.0, 0.5]], dtype=torch.float64)
    z0 = torch.tensor([[0.0, 1e-9]], dtype=torch.float64)
    point = iterate(lambda z: z @ A.T, z0, il2o.KrasnoselskiiMann(il2o.Stopping(1e-8, 0.0, 500)))
    assert point.converged.all()
    assert float((point.z @ A.T - point.z).norm()) <= 1e-8


def test_the_best_iterate_is_returned_where_the_last_is_worse() -> None:
    calls = []

    def T(z: Tensor) -> Tensor:  # approaches 0, then is thrown far away, again and again
        calls.append(1)
        return torch.where(z.abs() < 0.1, z + 5.0, 0.5 * z)

    point = iterate(T, torch.full((1, 1), 3.0), il2o.KrasnoselskiiMann(il2o.Stopping(1e-9, 0.0, 39, check_every=1)))
    assert NAMES[int(point.status)] == "MAX_STEPS"
    assert float(point.residual) < 0.3


def test_trace_holds_the_residual_of_every_check_and_stops_with_the_sample() -> None:
    rate = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    stopping = il2o.Stopping(1e-6, 0.0, 500, trace=True)
    point = iterate(lambda z: rate * z + 1, torch.zeros(2, 1, dtype=torch.float64), il2o.KrasnoselskiiMann(stopping))
    assert point.trace is not None
    assert point.trace.shape[1] == 2
    fast, slow = point.trace.T
    assert torch.isfinite(slow).all()
    assert torch.isnan(fast[-1])
    assert (slow.diff() < 0).all()


def test_anderson_is_free_of_scale_and_beats_the_plain_iteration() -> None:
    A, b = linear(40, 0.99)
    steps = {}
    for scale in (1e-6, 1.0, 1e6):
        solver = il2o.Anderson(il2o.Stopping(atol=1e-9 * scale, rtol=0.0, max_steps=3000), memory=8)
        point = iterate(lambda z, s=scale: z @ A.T + s * b, torch.zeros(1, 40, dtype=torch.float64), solver)
        assert point.converged.all()
        steps[scale] = int(point.steps)
    plain = iterate(lambda z: z @ A.T + b, torch.zeros(1, 40, dtype=torch.float64), il2o.KrasnoselskiiMann(TIGHT))
    assert max(steps.values()) - min(steps.values()) <= 10
    assert max(steps.values()) < int(plain.steps)


def test_anderson_is_the_textbook_iteration() -> None:
    """Against the difference form with the differences in a plain list, newest first, and least squares by QR."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = 0.95 * matrix / torch.linalg.matrix_norm(matrix, 2)
    offset = torch.randn(1, 12, generator=generator, dtype=torch.float64)
    memory, steps = 3, 9
    seen: list[torch.Tensor] = []

    def T(z: torch.Tensor) -> torch.Tensor:
        seen.append(z.clone())
        return z @ matrix.T + offset

    never = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps)
    iterate(T, torch.zeros(1, 12, dtype=torch.float64), il2o.Anderson(never, memory=memory, growth=1e9, ridge=1e-15))

    z, images, residuals = torch.zeros(12, dtype=torch.float64), [], []
    for step in range(steps):
        assert torch.allclose(seen[step][0], z, rtol=1e-6, atol=1e-9), step
        image = matrix @ z + offset[0]
        images.insert(0, image)
        residuals.insert(0, image - z)
        count = min(memory, step)
        z = image
        if count:
            changes = torch.stack([residuals[k] - residuals[k + 1] for k in range(count)], dim=1)
            moves = torch.stack([images[k] - images[k + 1] for k in range(count)], dim=1)
            weights = torch.linalg.lstsq(changes, residuals[0][:, None], driver="gelsd").solution
            z = image - (moves @ weights)[:, 0]


def test_a_replayed_block_starts_from_the_history_that_it_had() -> None:
    """Anderson overwrites its history; a sample that breaks inside a block changes nothing for its mates."""
    slope = torch.linspace(0.5, 0.97, 40, dtype=torch.float64)
    calls = 0

    def T(z: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        image = slope * z.sin() + 1.0
        if len(z) == 3 and (calls in (8, 9, 10) or calls >= 13):  # the replay begins with call 11, which is step 6
            image[2] = torch.nan
        return image

    z0 = torch.zeros(3, 40, dtype=torch.float64)
    solver = il2o.Anderson(il2o.Stopping(atol=1e-9, rtol=0.0, max_steps=300))
    together, alone = iterate(T, z0, solver), iterate(T, z0[:2], solver)
    assert together.status[2] == il2o.Status.NONFINITE
    assert together.steps[2] == 8  # the history of five has gone round
    assert torch.equal(together.steps[:2], alone.steps)
    assert torch.equal(together.z[:2], alone.z)


def kinked(z: Tensor) -> Tensor:
    """Not smooth, so that accelerated steps are rejected again and again; of images with two channels."""
    offsets = torch.linspace(-2, 2, 18, dtype=z.dtype).reshape(2, 3, 3)
    return -0.95 * (z.flip(1, 3) + offsets).abs()


@pytest.mark.parametrize("relaxation", [1.0, 0.7])
def test_anderson_is_the_same_where_no_number_may_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, relaxation: float
) -> None:
    """On an accelerator, and in an export, every choice is a `torch.where`."""
    z0 = torch.linspace(-3, 3, 72, dtype=torch.float64).reshape(4, 2, 3, 3)
    solver = il2o.Anderson(TIGHT, relaxation=relaxation)
    looked = iterate(kinked, z0, solver)
    monkeypatch.setattr(anderson, "_may_ask", lambda _: False)
    blind = iterate(kinked, z0, solver)
    assert looked.converged.all()
    assert torch.equal(looked.steps, blind.steps)
    assert torch.equal(looked.z, blind.z)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_order_of_an_image_in_memory_changes_nothing(solver: str) -> None:
    z0 = torch.linspace(-3, 3, 72, dtype=torch.float64).reshape(4, 2, 3, 3)
    last = z0.contiguous(memory_format=torch.channels_last)
    assert last.stride() != z0.stride()
    rows, columns = (iterate(kinked, start, SOLVERS[solver](TIGHT)) for start in (z0, last))
    assert torch.equal(rows.status, columns.status)
    torch.testing.assert_close(rows.z, columns.z, rtol=1e-8, atol=1e-8)


def test_anderson_falls_back_where_acceleration_fails() -> None:
    """Not smooth: mixing across kinks misleads, the safeguard must still converge."""
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(16, 8, dtype=torch.float64, generator=generator)
    T = lambda z: -0.95 * (z + b).abs()  # noqa: E731
    point = iterate(T, torch.zeros(16, 8, dtype=torch.float64), il2o.Anderson(TIGHT))
    assert point.converged.all()


def test_halpern_solves_a_rotation_that_picard_circles() -> None:
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    T = lambda z: (z - 1) @ turn + 1  # noqa: E731
    z0 = torch.zeros(1, 2, dtype=torch.float64)
    assert iterate(T, z0, il2o.Halpern(il2o.Stopping(1e-6, 0.0, 2000))).converged.all()
    assert not iterate(T, z0, il2o.KrasnoselskiiMann(il2o.Stopping(1e-6, 0.0, 2000))).converged.any()


def test_bfloat16_converges_to_its_own_tolerance() -> None:
    point = iterate(lambda z: 0.5 * z + 1, torch.zeros(2, 3, dtype=torch.bfloat16), il2o.KrasnoselskiiMann())
    assert point.z.dtype == torch.bfloat16
    assert point.converged.all()


@pytest.mark.bad_input
class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"atol": -1.0}, r"finite atol >= 0 .* got atol=-1.0"),
            ({"rtol": float("nan")}, r"finite rtol >= 0"),
            ({"max_steps": 0}, r"integer max_steps >= 1; got max_steps=0"),
            ({"check_every": 0}, r"integer check_every >= 1"),
        ],
    )
    def test_stopping(self, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            il2o.Stopping(**options)

    def test_unknown_options_are_errors(self) -> None:
        with pytest.raises(TypeError, match="max_itre"):
            il2o.Stopping(max_itre=3)
        with pytest.raises(TypeError, match="damping"):
            il2o.KrasnoselskiiMann(damping=0.5)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: il2o.KrasnoselskiiMann(relaxation=2.0), r"0 < relaxation < 2; got relaxation=2.0"),
            (lambda: il2o.Anderson(memory=0), r"memory >= 1; got memory=0"),
            (lambda: il2o.Anderson(ridge=0.0), r"ridge > 0"),
            (lambda: il2o.Anderson(growth=0.5), r"growth >= 1"),
            (lambda: il2o.Halpern(restart=1.0), r"0 < restart < 1"),
        ],
    )
    def test_solver_options(self, make, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()

    def test_a_map_that_changes_shape_or_dtype(self) -> None:
        with pytest.raises(ValueError, match=r"T must return a tensor like its input, \(2, 3\).*got \(2, 1\)"):
            iterate(lambda z: z[:, :1], torch.zeros(2, 3), il2o.KrasnoselskiiMann())
        with pytest.raises(ValueError, match=r"float64"):
            iterate(lambda z: z.double(), torch.zeros(2, 3), il2o.KrasnoselskiiMann())

    def test_a_start_that_is_not_a_batch_of_floats(self) -> None:
        with pytest.raises(TypeError, match=r"z0 must be one of float64, float32, bfloat16; got torch.int64"):
            iterate(lambda z: z, torch.zeros(2, 3, dtype=torch.int64), il2o.KrasnoselskiiMann())
        with pytest.raises(ValueError, match="batch dimension"):
            iterate(lambda z: z, torch.tensor(1.0), il2o.KrasnoselskiiMann())


@pytest.mark.parametrize("solver", [il2o.KrasnoselskiiMann, il2o.Anderson, il2o.Halpern])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_has_no_fixed_point_never_converges(solver: type, dtype: torch.dtype) -> None:
    """`T` moves on by a vector for ever: after `1 / rtol` steps the residual is that share of the iterate."""
    step = torch.ones(2, 3, dtype=dtype)
    stopping = il2o.Stopping(atol=1e-6, rtol=1e-2, max_steps=3000)
    point = iterate(lambda z: z + step, torch.zeros(2, 3, dtype=dtype), solver(stopping))
    assert not point.converged.any()


def test_a_long_way_at_constant_speed_is_walked_to_its_end() -> None:
    """Steps of 1 towards 5000: the relative tolerance is met on the way, where nothing is solved."""
    stopping = il2o.Stopping(atol=1e-6, rtol=1e-3, max_steps=20_000)
    T = lambda z: (z + 1.0).clamp(max=5000.0)  # noqa: E731
    point = iterate(T, torch.zeros(1, 1, dtype=torch.float64), il2o.KrasnoselskiiMann(stopping))
    assert point.converged.all()
    assert float(point.z) == 5000.0


def test_slow_convergence_is_not_taken_for_running_away() -> None:
    """A residual that falls like one over the steps, from a start far below the answer."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    T = lambda z: (z - 100.0) @ turn + 100.0  # noqa: E731
    stopping = il2o.Stopping(atol=0.0, rtol=1e-2, max_steps=3000)
    point = iterate(T, torch.zeros(1, 2, dtype=torch.float64), il2o.Halpern(stopping))
    assert point.converged.all()
    assert int(point.steps) < 600
