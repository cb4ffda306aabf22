"""Upper bounds on spectral norms that hold: by Gram iteration, for matrices and for zero-padded convolutions.

Delattre, Barthelemy, Araujo, Allauzen, "Efficient Bound of Lipschitz Constant for Convolutional Layers by Gram
Iteration" (ICML 2023): with `G_0 = W` and `G_{k+1} = G_k^H G_k` the largest singular value satisfies
`sigma(W)^(2^k) = sigma(G_k) <= |G_k|_F`, so `|G_k|_F^(1 / 2^k)` is an upper bound at every `k`, too large by a factor
of at most `rank^(1 / 2^(k+1))`.

Power iteration gives a *lower* bound, and `torch.nn.utils.parametrizations.spectral_norm` works on the kernel flattened
to a matrix, whose norm may be `sqrt(kh kw)` times below that of the convolution: neither proves that a layer is
nonexpansive.
"""

import functools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit_l2o import _batch

_TIES = 8  # frequencies of one size, among which the gradient of the largest is shared
_DIRECT = 49  # entries of a kernel up to which its transform is cheaper as a product with the matrix of all its waves
_MARGIN = 1e-3  # of a logarithm: many times the rounding of single precision in Gram iteration


def dense_norm_bound(weight: Float[Tensor, "m n"], *, iterations: int = 8) -> Float[Tensor, ""]:
    """An upper bound on the spectral norm of a matrix, differentiable in its entries.

    At most `min(m, n)^(1 / 2^(iterations + 1))` times the norm: 1.01 for 100 x 100 with 8 iterations. Computed in
    float64 and rounded up.

    Args:
        weight: the matrix, `(m, n)`.
        iterations: Gram products, at least 1; each doubles the exponent.

    Raises:
        ValueError: `weight` is not a non-empty matrix, or `iterations < 1`.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import dense_norm_bound
        >>> dense_norm_bound(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).item() >= 4.0
        True
    """
    if weight.ndim != 2 or weight.numel() == 0:
        raise ValueError(f"weight must be a non-empty matrix (m, n); got shape {tuple(weight.shape)}.")
    return _round_up(_gram_bound(weight.to(torch.float64), iterations), weight, weight.numel())


def conv2d_norm_bound(
    kernel: Float[Tensor, "out in kh kw"], shape: tuple[int, int], *, iterations: int = 8
) -> Float[Tensor, ""]:
    """An upper bound on the spectral norm of `conv2d(., kernel)` with zero padding, differentiable in the kernel.

    Proof: an image of at most `shape = (H, W)`, put on a torus of size `(H + kh - 1, W + kw - 1)`, does not wrap
    around, so the zero-padded convolution, whatever its padding and stride, is a submatrix of the circular one. The
    latter is block-diagonal in the Fourier basis, with one `out x in` block a frequency, and each block's norm is
    bounded by Gram iteration. The bound also holds for every smaller image, and for `conv_transpose2d`, the adjoint.

    Args:
        kernel: as `torch.nn.functional.conv2d` takes it, `(out, in, kh, kw)`; no groups, dilation 1.
        shape: largest height and width, pixels.
        iterations: Gram products, at least 1.

    Raises:
        ValueError: `kernel` is not a non-empty 4-dimensional tensor, `shape` is not positive, or `iterations < 1`.

    Example:
        >>> import torch
        >>> from implicit_l2o.networks import conv2d_norm_bound
        >>> mean = torch.full((1, 1, 3, 3), 1 / 9)        # averages 3 x 3 pixels: norm 1; flattened, it has norm 1/3
        >>> round(conv2d_norm_bound(mean, (16, 16)).item(), 3)
        1.0
    """
    if kernel.ndim != 4 or kernel.numel() == 0:
        raise ValueError(f"kernel must be non-empty (out, in, kh, kw); got shape {tuple(kernel.shape)}.")
    if min(shape) < 1:
        raise ValueError(f"shape must be a positive height and width; got {shape}.")
    torus = (shape[0] + kernel.shape[2] - 1, shape[1] + kernel.shape[3] - 1)
    blocks = _frequencies(kernel.to(torch.float64), torus)
    with torch.no_grad():
        largest = _largest(blocks, iterations)
    # The gradient of a maximum is that of the largest block, the mean of theirs where several are: the others need no graph.
    return _round_up(_gram_bound(blocks.index_select(0, largest), iterations).amax(), kernel, kernel.numel())


def _frequencies(kernel: Tensor, torus: tuple[int, int]) -> Tensor:
    """The blocks of the circular convolution, `(frequencies, out, in)`.

    A real kernel's frequencies come in conjugate pairs of equal norm: one of each pair is here.
    """
    if math.prod(kernel.shape[2:]) > _DIRECT:
        return torch.fft.rfft2(kernel, s=torus).permute(2, 3, 0, 1).flatten(0, 1)
    cosines, sines = (wave.to(kernel.device) for wave in _waves(torus, (kernel.shape[2], kernel.shape[3])))
    entries = kernel.permute(2, 3, 0, 1).flatten(2).flatten(0, 1)
    return torch.complex(cosines @ entries, -sines @ entries).unflatten(1, tuple(kernel.shape[:2]))


@functools.lru_cache(maxsize=64)
def _waves(torus: tuple[int, int], kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cosines and sines, `(frequencies, entries of a kernel)`."""
    with torch.inference_mode(False):  # they are kept, and a training cannot use tensors made in inference mode
        rows, columns = (
            torch.outer(torch.arange(count, dtype=torch.float64), torch.arange(k, dtype=torch.float64)) / size
            for count, k, size in zip((torus[0], torus[1] // 2 + 1), kernel, torus, strict=True)
        )
        turns = rows[:, None, :, None] + columns[None, :, None, :]
        angles = 2 * torch.pi * turns.flatten(2).flatten(0, 1)
        return angles.cos(), angles.sin()


def _largest(blocks: Tensor, iterations: int) -> Int[Tensor, " few"]:
    """Which blocks have the largest bound, at most `_TIES`; the largest of all is among them."""
    candidates = torch.arange(len(blocks), device=blocks.device)
    if not _batch.exporting():
        candidates = _contenders(blocks, iterations)
    if len(candidates) <= _TIES:
        return candidates
    return candidates[_gram_bound(blocks[candidates], iterations).topk(_TIES).indices]


def _contenders(blocks: Tensor, iterations: int) -> Int[Tensor, " few"]:
    """The blocks that single precision cannot tell from the one with the largest bound.

    Every product bounds the norms from both sides: `sigma(G_k) <= |G_k|_F`, and `|G_k|_F^2 <= sigma(G_k) tr(G_k)`, where
    `tr(G_k) = |G_{k-1}|_F^2` is 1 after rescaling. Blocks whose upper bound is below another's lower bound are left out of
    the further products; after three or four of these few are left.
    """
    index = torch.arange(len(blocks), device=blocks.device)
    scale = torch.view_as_real(blocks).abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
    gram = (blocks / scale).to(torch.complex64)
    gram = gram if gram.shape[-1] <= gram.shape[-2] else gram.mH
    rank, tiny = gram.shape[-1], torch.finfo(torch.float32).tiny
    log_scale = torch.zeros(len(index), device=blocks.device)
    for k in range(iterations):
        size = _size(gram).clamp_min(tiny)
        upper = log_scale + size.log() / 2**k
        lower = upper - math.log(rank) / 2 if k == 0 else log_scale + 2 * size.log() / 2**k
        keep = ~(upper < lower.amax() - _MARGIN)  # NaN stays
        kept = keep.nonzero().squeeze(-1)
        index, gram, size, log_scale = index[kept], gram[kept], size[kept], upper[kept]
        if len(index) <= 2:
            break
        gram = gram * size.reciprocal()[:, None, None]
        gram = (gram.mH if k == 0 else gram) @ gram  # from the first product on it is its own adjoint
    return index


def _gram_bound(matrix: Tensor, iterations: int) -> Tensor:
    """`|G_k|_F^(1 / 2^k)` for a batch of matrices `(..., m, n)`, rescaled at each product against overflow."""
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1; got {iterations}.")
    tiny = torch.finfo(torch.float64).tiny  # keeps the zero matrix, whose norm is 0, away from log(0)
    gram = matrix if matrix.shape[-1] <= matrix.shape[-2] else matrix.mH
    log_bound = torch.zeros(matrix.shape[:-2], dtype=torch.float64, device=matrix.device)
    for k in range(iterations):
        size = _size(gram).clamp_min(tiny)
        log_bound = log_bound + size.log() / 2**k
        gram = gram * size.reciprocal()[..., None, None]
        gram = (gram.mH if k == 0 else gram) @ gram  # from the first product on it is its own adjoint
    return (log_bound + _size(gram).clamp_min(tiny).log() / 2**iterations).exp()


def _size(matrix: Tensor) -> Tensor:
    """The Frobenius norm of each matrix; of complex ones by their parts, which is several times faster than by moduli."""
    parts = torch.view_as_real(matrix.resolve_conj()) if matrix.is_complex() else matrix.unsqueeze(-1)
    return torch.linalg.vector_norm(parts, dim=(-3, -2, -1))


def _round_up(bound: Tensor, like: Tensor, entries: int) -> Tensor:
    """Back to the dtype of `like`, inflated by the worst case of all rounding so that it stays an upper bound."""
    slack = 4 * torch.finfo(like.dtype).eps + 4 * entries * torch.finfo(torch.float64).eps
    return (bound * (1 + slack)).to(like.dtype)
