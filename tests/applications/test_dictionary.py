"""The implicit dictionary: against a linear program, its guarantees for any transform, its certificates, a small run."""

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

import implicit_l2o as il2o
from implicit_l2o.applications.dictionary import (
    DenseTask,
    DictionaryData,
    DictionaryTask,
    ImplicitDictionary,
    LeastSquares,
    LinearRegression,
    Sizes,
    SparseRecovery,
    comparison,
)
from implicit_l2o.applications.dictionary.certificates import RelativeSparsity
from implicit_l2o.applications.dictionary.comparison import compare_splittings
from implicit_l2o.applications.dictionary.data import complete, signals, world
from implicit_l2o.experiment import Options, run
from implicit_l2o.training import fit

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = Sizes(signal=20, atoms=4, measurements=8, density=0.3)
TIGHT = il2o.KrasnoselskiiMann(il2o.Stopping(atol=1e-12, rtol=0.0, max_steps=20_000), relaxation=1.8)


def small(seed: int = 0, backward: il2o.AbstractBackward | None = None) -> ImplicitDictionary:
    """A model in float64 whose `D` is no longer orthogonal."""
    model = ImplicitDictionary(world(SMALL, seed).A, seed=seed, solver=TIGHT, backward=backward).double()
    with torch.no_grad():
        model.D.add_(0.3 * torch.randn(20, 20, generator=torch.Generator().manual_seed(seed + 1)))
    return model


def measurements(count: int, seed: int = 0) -> Tensor:
    return (signals(SMALL, count, seed=seed, stream=9) @ world(SMALL, seed).A.mT).double()


def sparsest(K: np.ndarray, A: np.ndarray, d: np.ndarray) -> np.ndarray:
    """`argmin |K x|_1 s.t. A x = d` as a linear program in `(x, t)`, by HiGHS."""
    n = len(K)
    eye = np.eye(n)
    found = linprog(
        np.r_[np.zeros(n), np.ones(n)],
        A_ub=np.block([[K, -eye], [-K, -eye]]),
        b_ub=np.zeros(2 * n),
        A_eq=np.c_[A, np.zeros((len(A), n))],
        b_eq=d,
        bounds=[(None, None)] * n + [(0, None)] * n,
    )
    return found.x[:n]


# --- the data --------------------------------------------------------------------------------------------------------


def test_signals_are_sparse_in_the_dictionary() -> None:
    sizes = Sizes()
    M, A = world(sizes, seed=3)
    x = signals(sizes, 4000, seed=3, stream=0)
    s = torch.linalg.lstsq(M.double(), x.double().mT).solution.mT
    assert float((s.abs() > 1e-4).double().mean()) == pytest.approx(0.1, abs=0.005)
    assert float(s[s.abs() > 1e-4].std()) == pytest.approx(1.0, abs=0.03)
    assert float(x.square().mean()) == pytest.approx(5.0, rel=0.1)  # the published loss begins there
    torch.testing.assert_close(A.norm(dim=0), torch.ones(250))


def test_splits_share_no_signal_and_each_seed_has_its_own_problem() -> None:
    splits = DictionaryData(train=50, validation=50, test=50, seed=1).splits
    d, x = splits.train.tensors
    torch.testing.assert_close(d, x @ world(Sizes(), 1).A.mT)
    assert not torch.equal(splits.validation.tensors[1], splits.test.tensors[1])
    assert torch.equal(x, DictionaryData(train=50, validation=1, test=1, seed=1).splits.train.tensors[1])
    assert not torch.equal(x, DictionaryData(train=50, validation=1, test=1, seed=2).splits.train.tensors[1])


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_those_of_a_linear_program(seed: int) -> None:
    model, d = small(seed), measurements(6, seed)
    with torch.no_grad():
        x = model(d).x
    K, A = torch.linalg.inv(model.D.detach()).numpy(), model.A.numpy()
    for found, given_d in zip(x.numpy(), d.numpy(), strict=True):
        best = sparsest(K, A, given_d)
        assert np.abs(K @ found).sum() == pytest.approx(np.abs(K @ best).sum(), rel=1e-7, abs=1e-9)
        np.testing.assert_allclose(found, best, atol=1e-6)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0), steps=st.integers(1, 30))
def test_every_answer_explains_its_measurement_however_early_the_solver_stops(
    seed: int, scale: float, steps: int
) -> None:
    stopping = il2o.Stopping(atol=0.0, rtol=0.0, max_steps=steps)
    model = ImplicitDictionary(world(SMALL, 0).A, seed=seed, solver=il2o.KrasnoselskiiMann(stopping))
    d = scale * torch.randn(3, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.D.mul_(scale).add_(0.1 * scale * torch.randn_like(model.D))
        x = model(d).x
    assert float(((x @ model.A.mT - d).norm(dim=1) / d.norm(dim=1)).max()) < 1e-4


def test_answers_scale_with_the_measurement_and_with_the_dictionary_not() -> None:
    model, d = small(), measurements(4)
    with torch.no_grad():
        x, steps = model(d).x, model(d).steps
        torch.testing.assert_close(model(100 * d).x, 100 * x, rtol=1e-6, atol=1e-6)
        model.D.mul_(7.0)
        torch.testing.assert_close(model(d).x, x, rtol=1e-6, atol=1e-6)
    assert steps is not None


def test_a_zero_measurement_gives_the_zero_signal_and_a_broken_one_fails_alone() -> None:
    model, d = small(), measurements(3)
    d[0] = 0.0
    with torch.no_grad():
        whole = model(d)
        assert whole.status is not None
        assert whole.status.tolist() == [il2o.Status.CONVERGED] * 3
        assert torch.equal(whole.x[0], torch.zeros(20, dtype=torch.float64))
        d[1] = torch.nan
        with pytest.warns(il2o.ConvergenceWarning, match="NONFINITE"):
            broken = model(d)
    assert broken.status is not None
    assert broken.status[1] == il2o.Status.NONFINITE
    torch.testing.assert_close(broken.x[[0, 2]], whole.x[[0, 2]])


def gradient(backward: il2o.AbstractBackward) -> Tensor:
    model = small(backward=backward)
    target = signals(SMALL, 6, seed=0, stream=9).double()
    (model(measurements(6)).x - target).square().mean().backward()
    assert model.D.grad is not None
    return model.D.grad.flatten()


def test_the_implicit_gradient_is_that_of_finite_differences() -> None:
    exact = gradient(il2o.Implicit(il2o.GMRES(rtol=1e-12)))
    model = small()
    target, d = signals(SMALL, 6, seed=0, stream=9).double(), measurements(6)
    direction = torch.randn(20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    losses = []
    with torch.no_grad():
        for sign in (1, -1):
            model.D.add_(sign * 1e-6 * direction)
            losses.append(float((model(d).x - target).square().mean()))
            model.D.sub_(sign * 1e-6 * direction)
    assert float(exact @ direction.flatten()) == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-3)


def test_jfb_and_neumann_descend() -> None:
    exact = gradient(il2o.Implicit(il2o.GMRES(rtol=1e-12)))
    near, nearer = (
        float(torch.nn.functional.cosine_similarity(gradient(mode), exact, dim=0))
        for mode in (il2o.JFB(), il2o.Neumann(20))
    )
    assert near > 0.2
    assert nearer > near


def test_conditioning_is_least_for_orthogonal_dictionaries() -> None:
    model = ImplicitDictionary(world(SMALL, 0).A, seed=0)
    with torch.no_grad():
        assert abs(float(model.conditioning())) < 1e-4
        model.D[:, 0] *= 0.1
        assert float(model.conditioning()) > 1


# --- certificates and baselines --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> DictionaryData:
    return DictionaryData(sizes=SMALL, train=600, validation=200, test=200, batch_size=50, seed=0)


def test_the_true_dictionary_recovers_and_regression_does_where_there_are_enough_measurements(
    data: DictionaryData,
) -> None:
    task = DictionaryTask(sizes=SMALL, seed=0)
    d, x = data.splits.test.tensors
    errors = {}
    for name, baseline in {
        "least": LeastSquares(),
        "regression": LinearRegression(),
        "plain": SparseRecovery("identity"),
        "whitening": SparseRecovery("whitening"),
        "true": SparseRecovery("true"),
    }.items():
        baseline.prepare(task, data, name=name, progress=False)
        answer = baseline.infer((d,))
        errors[name] = float((answer.x - x).square().mean())
        assert float((answer.x @ task.network.A.mT - d).abs().max()) < 1e-3
    assert errors["true"] < 0.5 * errors["least"]
    assert errors["regression"] < 1e-6
    assert errors["plain"] > errors["whitening"]


def test_the_completed_dictionary_keeps_the_atoms_and_is_invertible() -> None:
    M = world(Sizes(), 0).M
    whole = complete(M)
    assert torch.equal(whole[:, :50], M)
    assert float(torch.linalg.cond(whole)) < 4
    torch.testing.assert_close(M.mT @ whole[:, 50:], torch.zeros(50, 200), atol=2e-3, rtol=0.0)


def test_all_splittings_agree_on_the_objective() -> None:
    model = ImplicitDictionary(world(SMALL, 0).A, seed=0)  # orthogonal: an ill-conditioned K slows some down
    ways = compare_splittings(model, measurements(20).float(), rtol=1e-5)
    assert {"Douglas-Rachford", "Condat-Vu", "linearised ADMM"} <= set(ways)
    for name, way in ways.items():
        assert way["gap_median"] < 0.02, name
        assert way["infidelity"] < 1e-5, name


def test_relative_sparsity_of_a_zero_measurement() -> None:
    measure = RelativeSparsity(torch.eye(2))
    answers = il2o.Inference(x=torch.tensor([[0.0, 0.0], [1.0, 0.0]]), data=torch.zeros(2, 1))
    assert measure(answers).tolist() == [0.0, torch.inf]


# --- the experiment --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The shipped experiment on a small problem: its folder and results."""
    settings = yaml.safe_load((EXPERIMENTS / "dictionary.yaml").read_text())
    sizes = {"signal": 20, "atoms": 4, "measurements": 8, "density": 0.3}
    settings["model"]["init_args"] |= {"sizes": sizes}
    settings["data"]["init_args"] |= {"sizes": sizes, "train": 600, "validation": 100, "test": 200, "batch_size": 50}
    settings["trainer"]["max_epochs"] = 6
    for baseline in settings["baselines"].values():
        if "task" in baseline.get("init_args", {}):
            baseline["init_args"]["epochs"] = 1
            baseline["init_args"]["task"]["init_args"] |= {"sizes": sizes}
    place = tmp_path_factory.mktemp("dictionary")
    (place / "dictionary.yaml").write_text(yaml.safe_dump(settings))
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # In so few dimensions some signals take more than 400 steps; they are reported as such.
        warnings.simplefilter("ignore", il2o.ConvergenceWarning)
        warnings.filterwarnings("ignore", message=".* calibration samples did not converge and were left out")
        patch.setattr(comparison, "_CAP", 50)  # the splittings are compared in a test of their own
        folder, [results] = run(Options(config=[place / "dictionary.yaml"], folder=place / "run", progress=False))
    yield folder.path, results
    torch.set_num_threads(threads)
    os.environ.pop("PL_GLOBAL_SEED", None)


def test_a_small_run_learns_and_its_certificates_tell_the_kinds_apart(outcome: tuple[Path, dict[str, Any]]) -> None:
    folder, results = outcome
    assert results["status"] == "complete"
    test = results["test"]
    assert test["model"]["mse"] < 0.5 * min(test["least_squares"]["mse"], test["plain_l1"]["mse"])
    assert test["model"]["infidelity"] < 1e-5
    kinds = results["extra"]["kinds"]
    assert kinds["model"]["fidelity"]["failed"] == 0
    assert kinds["true"]["fidelity"]["failed"] == 0
    assert kinds["wrong signal"]["fidelity"]["failed"] > 0.9  # some signals are zero
    assert kinds["least squares"]["fidelity"]["failed"] == 0
    assert kinds["least squares"]["relative sparsity"]["failed"] > 0.5
    # Chosen level 5 %: of 200 test signals 16 or fewer fail with probability 96 %.
    assert kinds["model"]["relative sparsity"]["failed"] <= 0.1
    assert len(json.loads((folder / "results.json").read_text())["figures"]) == 3


@pytest.mark.bad_input
def test_bad_options() -> None:
    for options, message in (
        ({"atoms": 0}, "1 <= atoms <= signal = 250; got atoms=0"),
        ({"measurements": 251}, "1 <= measurements <= signal = 250; got measurements=251"),
        ({"density": 0.0}, "0 < density <= 1; got density=0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Sizes(**options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"threshold > 0; got threshold=0.0"):
        ImplicitDictionary(world(SMALL, 0).A, seed=0, threshold=0.0)
    with pytest.raises(ValueError, match="conditioning >= 0; got conditioning=-1"):
        DictionaryTask(conditioning=-1)
    with pytest.raises(ValueError, match="training_steps >= 1; got training_steps=0"):
        DictionaryTask(training_steps=0)
    with pytest.raises(ValueError, match="hidden >= 1; got hidden=0"):
        DenseTask(hidden=0)
    with pytest.raises(ValueError, match="at least one signal"):
        DictionaryData(train=0)
    with pytest.raises(ValueError, match=r"'identity', 'whitening' and 'true'; got transform='fourier'"):
        SparseRecovery("fourier")  # pyright: ignore[reportArgumentType]


def test_data_of_another_problem_are_refused(data: DictionaryData) -> None:
    with pytest.raises(ValueError, match="of another problem"):
        fit(DictionaryTask(sizes=SMALL, seed=1), data, epochs=1, progress=False)
