"""Block-diagonalise a symmetric matrix by involutions that it commutes with. Serre, Linear Representations, section 2.6."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Block:
    """The vectors that every involution either keeps or negates, one combination of signs.

    Args:
        members: where the representatives of the orbits go under each element of the group, `(elements, k)`.
        coefficients: of an orbit's entries in its normalised vector, `(elements, k)`.
    """

    members: Int[Tensor, "elements k"]
    coefficients: Float[Tensor, "elements k"]

    def gather(self, y: Float[Tensor, "B m"]) -> Float[Tensor, "B k"]:
        """The coordinates of `y` in this block."""
        return (y[:, self.members] * self.coefficients.to(y.dtype)).sum(1)

    def scatter(self, coordinates: Float[Tensor, "B k"], rows: int) -> Float[Tensor, "B m"]:
        """The vector with these coordinates; the transpose of `gather`."""
        spread = coordinates[:, None] * self.coefficients.to(coordinates.dtype)
        return coordinates.new_zeros(coordinates.shape[0], rows).index_add_(
            1, self.members.flatten(), spread.flatten(1)
        )


def symmetric_blocks(involutions: Sequence[Int[Tensor, " m"]], rows: int) -> tuple[Block, ...]:
    """The invariant subspaces of commuting involutions of `rows` entries; together an orthonormal basis.

    Args:
        involutions: permutations, each its own inverse, which commute. None at all gives the whole space as one block.
        rows: `m`.

    Raises:
        ValueError: an entry is no permutation, is not its own inverse, or does not commute with another one.
    """
    identity = torch.arange(rows)
    for index, p in enumerate(involutions):
        if p.shape != (rows,) or not torch.equal(p.sort().values, identity) or not torch.equal(p[p], identity):
            raise ValueError(f"involution {index} must be a permutation of {rows} entries that is its own inverse.")
        if any(not torch.equal(p[q], q[p]) for q in involutions[:index]):
            raise ValueError(f"involution {index} does not commute with an earlier one.")
    group = [identity]
    for p in involutions:
        group += [p[element] for element in group]
    images = torch.stack(group)
    representatives = (images.min(0).values == identity).nonzero().squeeze(1)
    members = images[:, representatives]
    stabilisers = (members == representatives).sum(0)
    blocks = []
    for signs in itertools.product((1.0, -1.0), repeat=len(involutions)):
        character = torch.ones(1)
        for sign in signs:
            character = torch.cat([character, sign * character])
        # Where the character is not trivial on the stabiliser, an orbit has no such vector.
        present = ((members == representatives) * character[:, None]).sum(0) > 0
        coefficients = character[:, None] / (len(group) * stabilisers[present]).sqrt()
        if bool(present.any()):
            blocks.append(Block(members[:, present], coefficients.double()))
    return tuple(blocks)


def check_commutes(gram: Callable[[Tensor], Tensor], involutions: Sequence[Tensor], like: Tensor) -> None:
    """Raise a `ValueError` unless `gram`, `(B, m) -> (B, m)`, commutes with every involution on a fixed vector."""
    y = torch.linspace(-1, 1, len(involutions[0]), dtype=like.dtype, device=like.device).cos()[None]
    y = y * torch.arange(len(y[0]), dtype=like.dtype, device=like.device).mul(0.7).sin()
    image = gram(y)
    for index, p in enumerate(involutions):
        error = float((gram(y[:, p]) - image[:, p]).norm() / image.norm())
        if not error <= _TOLERANCE:
            raise ValueError(f"K K^T does not commute with involution {index}: relative error {error:.1e}.")
