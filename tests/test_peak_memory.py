"""Peak memory on the CPU against what the tensors must hold."""

import pytest
import torch

from implicit_l2o.training import peak_memory

KB = 1000  # a tensor of 250 float32


def test_temporaries_are_released() -> None:
    x = torch.zeros(250)

    def chain() -> None:
        y = x + 1
        for _ in range(10):
            y = y * 2  # the old and the new one live together

    assert peak_memory(chain) == 2 * KB


def test_views_and_in_place_results_are_free() -> None:
    x = torch.zeros(250)
    assert peak_memory(lambda: x.add_(1).reshape(5, 50)[2:].T) == 0


def test_what_autograd_saves_counts_until_it_is_freed() -> None:
    w = torch.ones(250, requires_grad=True)

    def step(depth: int) -> None:
        y = w
        for _ in range(depth):
            y = y.exp()  # saves its result
        y.sum().backward()
        w.grad = None

    slope = (peak_memory(lambda: step(20)) - peak_memory(lambda: step(10))) / 10
    assert slope == KB


def test_what_lived_before_does_not_count() -> None:
    kept = [torch.zeros(250)]
    assert peak_memory(kept.clear) == 0
    assert peak_memory(lambda: torch.zeros(250)) == KB


def test_sparse_tensors() -> None:
    eye = torch.eye(50).to_sparse_coo()
    assert peak_memory(lambda: eye @ torch.ones(50, 5)) >= 2 * KB


def test_an_error_passes_through() -> None:
    with pytest.raises(RuntimeError, match="size"):
        peak_memory(lambda: torch.zeros(2) + torch.zeros(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda() -> None:
    x = torch.zeros(1 << 20, device="cuda")
    assert peak_memory(lambda: (x + 1) * 2, device="cuda") == 2 * x.nbytes
