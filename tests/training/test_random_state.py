"""The random states: what is drawn after a restore is what was drawn after the save."""

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from implicit_l2o.training import RandomState, random_state, read_checkpoint, restore_random_state, write_checkpoint


@pytest.fixture(autouse=True)
def _states() -> Iterator[None]:
    """The tests leave the generators as they were."""
    state = random_state()
    yield
    restore_random_state(state)


def draws() -> list[float]:
    """From every generator; normal numbers come in pairs, of which the second is kept for later."""
    normal = np.random.standard_normal, np.random.random
    return [
        *(random.random(), random.gauss(0, 1)),
        *(float(draw()) for draw in normal),
        *torch.rand(3).tolist(),
        torch.randn(()).item(),
    ]


@pytest.mark.parametrize("before", [0, 1, 2])
def test_what_is_drawn_is_drawn_again(before: int) -> None:
    for _ in range(before):  # an odd number leaves the second of a pair
        random.gauss(0, 1)
        np.random.standard_normal()  # noqa: NPY002
    state = random_state()
    first = draws()
    assert draws() != first
    restore_random_state(state)
    assert draws() == first


def test_a_checkpoint_holds_it(tmp_path: Path) -> None:
    state = random_state()
    first = draws()
    write_checkpoint({"random_state": [state]}, tmp_path / "a.ckpt")
    draws()
    restore_random_state(read_checkpoint(tmp_path / "a.ckpt")["random_state"][0])
    assert draws() == first


def test_to_ask_changes_nothing() -> None:
    state = random_state()
    first = draws()
    restore_random_state(state)
    random_state()
    assert draws() == first


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_states_of_cuda_devices() -> None:
    torch.cuda.init()
    state = random_state()
    first = [torch.rand(3, device=f"cuda:{i}").tolist() for i in range(torch.cuda.device_count())]
    restore_random_state(state)
    assert [torch.rand(3, device=f"cuda:{i}").tolist() for i in range(torch.cuda.device_count())] == first


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are CUDA devices")
def test_states_of_cuda_devices_that_are_missing_here_are_left_out() -> None:
    state = random_state()
    assert state["cuda"] == []
    first = draws()
    restore_random_state({**state, "cuda": [torch.zeros(16, dtype=torch.uint8)]})
    assert draws() == first


# What the callback does within a training is seen in test_resume.py; here is what is left.


@pytest.mark.bad_input
def test_another_number_of_processes_is_warned_of() -> None:
    callback, checkpoint = RandomState(), {"random_state": [random_state()] * 2}
    trainer = cast(
        Any,
        SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), world_size=1, global_rank=0, is_global_zero=True),
    )
    module = cast(pl.LightningModule, None)
    with pytest.warns(UserWarning, match="of 2 processes, this run has 1"):
        callback.on_load_checkpoint(trainer, module, checkpoint)
    with pytest.warns(UserWarning, match="of 0 processes"):
        callback.on_load_checkpoint(trainer, module, {})
    trainer.state.fn = TrainerFn.TESTING
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_load_checkpoint(trainer, module, checkpoint)
