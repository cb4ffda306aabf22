"""The optimiser and its learning rate."""

import math

import pytest
import torch
from torch import nn

from implicit_l2o.training import Optimization


def test_matrices_alone_decay():
    groups = Optimization(weight_decay=0.1).optimizer(nn.Linear(2, 3)).param_groups
    assert [(len(group["params"]), group["params"][0].ndim, group["weight_decay"]) for group in groups] == [
        (1, 2, 0.1),
        (1, 1, 0.0),
    ]


def test_the_second_moment_forgets():
    # A constant gradient after one that was a thousand times as large: a step is the rate over the root of the mean square.
    steps = {}
    for decay in (0.5, 0.999):
        weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        module = nn.Module()
        module.weight = weight
        optimizer = Optimization(learning_rate=1.0, second_moment=decay).optimizer(module)
        for k in range(200):
            weight.grad = torch.full_like(weight, 1000.0 if k == 0 else 1.0)
            before = float(weight.detach())
            optimizer.step()
        steps[decay] = before - float(weight.detach())
    assert steps[0.5] == pytest.approx(1.0, rel=1e-3)
    assert steps[0.999] == pytest.approx(
        math.sqrt((1 - 0.999**200) / (1e6 * 0.999**199 * 1e-3 + 1 - 0.999**199)), rel=2e-3
    )


@pytest.mark.parametrize(("power", "kept"), [(0.0, 0.8), (1.0, 0.9), (2.0, 0.95)])
def test_the_weight_decay_falls_with_the_rate(power, kept):
    # Half the rate, no gradient: what is left of a matrix is 1 - rate decay (1/2)^power = 1 - 0.5 * 0.4 * (1/2)^power.
    module = nn.Linear(1, 1)
    optimization = Optimization(learning_rate=1.0, weight_decay=0.4, decay_power=power, schedule="constant")
    optimizer = optimization.optimizer(module)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    optimizer.step()
    assert float(module.weight.detach()) == pytest.approx(kept)
    assert float(module.bias.detach()) == 1.0


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("learning_rate", 0.0),
        ("weight_decay", -1.0),
        ("warmup_steps", -1),
        ("second_moment", 1.0),
        ("second_moment", -0.1),
        ("decay_power", -1.0),
        ("decay_power", math.inf),
    ],
)
def test_bad_values_are_refused(option, value):
    with pytest.raises(ValueError, match=rf"{option}.*got.*{value}"):
        Optimization(**{option: value})
