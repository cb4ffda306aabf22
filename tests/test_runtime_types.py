"""The run-time check of shapes and types is on in the tests, and works with the package's frozen dataclasses."""

import pytest
import torch
from jaxtyping import TypeCheckError

import runtime_types
from implicit_l2o import _batch
from implicit_l2o._solution import FixedPoint, Status


def test_a_wrong_shape_or_dtype_in_a_call_is_found() -> None:
    with pytest.raises(TypeCheckError):
        _batch.dot(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(TypeCheckError):
        _batch.norm(torch.ones(2, 3, dtype=torch.int64))


def test_a_wrong_shape_in_a_field_is_found() -> None:
    point = {"z": torch.ones(2, 3), "last": torch.ones(2, 3), "status": torch.full((2,), int(Status.CONVERGED))}
    numbers = {"residual": torch.zeros(2), "steps": torch.zeros(2, dtype=torch.int64)}
    assert FixedPoint(**point, **numbers, tolerance=torch.ones(2)).converged.all()
    with pytest.raises(TypeCheckError):
        FixedPoint(**point, **numbers, tolerance=torch.ones(5))


@pytest.mark.bad_input
def test_the_check_is_off_where_bad_input_is_the_subject() -> None:
    with pytest.raises(RuntimeError, match="must match the size"):  # torch's own error
        _batch.dot(torch.ones(2, 3), torch.ones(2, 4))


def test_a_long_test_is_checked_at_its_beginning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_types, "CHECKS_PER_TEST", 10)
    runtime_types.begin_test(check=True)
    with pytest.raises(TypeCheckError):
        _batch.norm(torch.ones(2, 3, dtype=torch.int64))
    for _ in range(10):
        _batch.norm(torch.ones(2, 3))
    with pytest.raises(RuntimeError):  # torch's own error
        _batch.norm(torch.ones(2, 3, dtype=torch.int64))
