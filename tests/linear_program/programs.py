"""Twenty small linear programs written by hand, of the kinds that NETLIB is made of, with their optimal values."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import implicit_l2o as il2o

inf = float("inf")


@dataclass(frozen=True)
class Case:
    """`min c.x` over `lp`, whose minimum is `value`."""

    name: str
    c: list[float]
    value: float
    lp: dict[str, Any]

    @property
    def program(self) -> il2o.LinearProgram:
        return il2o.LinearProgram(**{k: _tensor(v) for k, v in self.lp.items()})

    @property
    def cost(self) -> Tensor:
        return torch.tensor([self.c], dtype=torch.float64)


def _tensor(value: Any) -> Any:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value


CASES = (
    Case("simplex", [3, 1, 2], 1, {"A_eq": [[1, 1, 1]], "b_eq": [1]}),
    Case("box alone", [1, -2, 0], -5, {"lower": [-1, 0, 0], "upper": [5, 2, 1]}),
    Case(
        "production (Dantzig: two products, three plants)",
        [-3, -5],
        -36,
        {"A_ub": [[1, 0], [0, 2], [3, 2]], "b_ub": [4, 12, 18]},
    ),
    Case(
        "diet: two foods, three nutrients",
        [0.6, 1.0],
        3.6,
        {"A_ub": [[-10, -4], [-5, -5], [-2, -6]], "b_ub": [-20, -20, -12], "upper": [1.0, 10.0]},
    ),
    Case(
        "transport 2 x 3, degenerate: a supply equals a demand",
        [2, 3, 1, 5, 4, 8],
        110,
        {
            "A_eq": [
                [1, 1, 1, 0, 0, 0],
                [0, 0, 0, 1, 1, 1],
                [1, 0, 0, 1, 0, 0],
                [0, 1, 0, 0, 1, 0],
                [0, 0, 1, 0, 0, 1],
            ],
            "b_eq": [20, 20, 10, 20, 10],
        },
    ),
    Case(
        "assignment 3 x 3",
        [4, 1, 3, 2, 0, 5, 3, 2, 2],
        5,
        {
            "A_eq": [
                [1, 1, 1, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 1, 1, 1, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 1, 1, 1],
                [1, 0, 0, 1, 0, 0, 1, 0, 0],
                [0, 1, 0, 0, 1, 0, 0, 1, 0],
                [0, 0, 1, 0, 0, 1, 0, 0, 1],
            ],
            "b_eq": [1, 1, 1, 1, 1, 1],
        },
    ),
    Case(
        "shortest path on four nodes",
        [1, 4, 2, 6, 3],
        6,
        {"A_eq": [[-1, -1, 0, 0, 0], [1, 0, -1, -1, 0], [0, 1, 1, 0, -1], [0, 0, 0, 1, 1]], "b_eq": [-1, 0, 0, 1]},
    ),
    Case(
        "maximum flow with capacities",
        [-1, -1, 0, 0, 0],
        -5,
        {"A_eq": [[1, 0, -1, -1, 0], [0, 1, 1, 0, -1]], "b_eq": [0, 0], "upper": [3, 2, 1, 2, 4]},
    ),
    Case(
        "Beale's cycling example",
        [-0.75, 150, -0.02, 6],
        -0.05,
        {"A_ub": [[0.25, -60, -0.04, 9], [0.5, -90, -0.02, 3], [0, 0, 1, 0]], "b_ub": [0, 0, 1]},
    ),
    Case(
        "Klee and Minty in three dimensions",
        [-4, -2, -1],
        -125,
        {"A_ub": [[1, 0, 0], [4, 1, 0], [8, 4, 1]], "b_ub": [5, 25, 125]},
    ),
    Case(
        "blending: cheapest mixture of three with one quality",
        [5, 3, 1],
        2.2,
        {"A_eq": [[1, 1, 1]], "b_eq": [1], "A_ub": [[-90, -70, -40]], "b_ub": [-58]},
    ),
    Case(
        "staff on five shifts, each works two",
        [1, 1, 1, 1, 1],
        10,
        {
            "A_ub": [[-1, 0, 0, 0, -1], [-1, -1, 0, 0, 0], [0, -1, -1, 0, 0], [0, 0, -1, -1, 0], [0, 0, 0, -1, -1]],
            "b_ub": [-4, -4, -4, -4, -4],
        },
    ),
    Case(
        "inventory of two periods",
        [1, 3, 0.5],
        14.5,
        {"A_eq": [[1, 0, -1], [0, 1, 1]], "b_eq": [4, 6], "upper": [9, 10, 10]},
    ),
    Case(
        "matrix game: rock, paper, scissors (value free)",
        [0, 0, 0, -1],
        0,
        {
            "A_eq": [[1, 1, 1, 0]],
            "b_eq": [1],
            "A_ub": [[0, -1, 1, 1], [1, 0, -1, 1], [-1, 1, 0, 1]],
            "b_ub": [0, 0, 0],
            "lower": [0, 0, 0, -inf],
        },
    ),
    Case(
        "least absolute deviations: the median of 1, 2, 7",
        [0, 1, 1, 1, 1, 1, 1],
        6,
        {
            "A_eq": [[1, 1, -1, 0, 0, 0, 0], [1, 0, 0, 1, -1, 0, 0], [1, 0, 0, 0, 0, 1, -1]],
            "b_eq": [1, 2, 7],
            "lower": [-inf, 0, 0, 0, 0, 0, 0],
        },
    ),
    Case(
        "Chebyshev centre of a triangle",
        [0, 0, -1],
        -1,
        {"A_ub": [[-1, 0, 1], [0, -1, 1], [0.6, 0.8, 1]], "b_ub": [0, 0, 2.4], "lower": [-inf, -inf, 0.0]},
    ),
    Case(
        "duplicate and redundant rows",
        [1, 2],
        1,
        {"A_eq": [[1, 1], [2, 2], [1, 1]], "b_eq": [1, 2, 1], "A_ub": [[1, 0], [1, 0]], "b_ub": [3, 3]},
    ),
    Case(
        "a fixed variable and a zero row",
        [1, 1, 5],
        11,
        {"A_eq": [[1, 1, 1], [0, 0, 0]], "b_eq": [3, 0], "lower": [0, 0, 2], "upper": [10, 10, 2]},
    ),
    Case(
        "many optima: a face",
        [1, 1, 1, 1],
        2,
        {"A_eq": [[1, 1, 1, 1]], "b_eq": [2], "upper": 1.0},
    ),
    Case(
        "set cover, fractional: the odd cycle",
        [1, 1, 1],
        1.5,
        {"A_ub": [[-1, -1, 0], [0, -1, -1], [-1, 0, -1]], "b_ub": [-1, -1, -1], "upper": 1.0},
    ),
)
