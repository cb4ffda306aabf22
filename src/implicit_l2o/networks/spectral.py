"""Upper bounds on spectral norms that hold: by Gram iteration, for matrices and for zero-padded convolutions.

Delattre, Barthelemy, Araujo, Allauzen, "Efficient Bound of Lipschitz Constant for Convolutional Layers by Gram
Iteration" (ICML 2023): with `G_0 = W` and `G_{k+1} = G_k^H G_k` the largest singular value satisfies
`sigma(W)^(2^k) = sigma(G_k) <= |G_k|_F`, so `|G_k|_F^(1 / 2^k)` is an upper bound at every `k`, too large by a factor
of at most `rank^(1 / 2^(k+1))`.

Power iteration gives a *lower* bound, and `torch.nn.utils.parametrizations.spectral_norm` works on the kernel flattened
to a matrix, whose norm may be `sqrt(kh kw)` times below that of the convolution: neither proves that a layer is
nonexpansive.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_TIES = 8  # frequencies of one size, among which the gradient of the largest is shared


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
    # A real kernel's frequencies come in conjugate pairs of equal norm: rfft2 keeps one of each pair.
    response = torch.fft.rfft2(kernel.to(torch.float64), s=torus)
    blocks = response.permute(2, 3, 0, 1).flatten(0, 1)
    with torch.no_grad():
        largest = _gram_bound(blocks, iterations).topk(min(_TIES, len(blocks))).indices
    # The gradient of a maximum is that of the largest block, the mean of theirs where several are: the others need no graph.
    return _round_up(_gram_bound(blocks.index_select(0, largest), iterations).amax(), kernel, kernel.numel())


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
        gram = gram.mH @ gram
    return (log_bound + _size(gram).clamp_min(tiny).log() / 2**iterations).exp()


def _size(matrix: Tensor) -> Tensor:
    """The Frobenius norm of each matrix; of complex ones by their parts, which is several times faster than by moduli."""
    parts = torch.view_as_real(matrix.resolve_conj()) if matrix.is_complex() else matrix.unsqueeze(-1)
    return torch.linalg.vector_norm(parts, dim=(-3, -2, -1))


def _round_up(bound: Tensor, like: Tensor, entries: int) -> Tensor:
    """Back to the dtype of `like`, inflated by the worst case of all rounding so that it stays an upper bound."""
    slack = 4 * torch.finfo(like.dtype).eps + 4 * entries * torch.finfo(torch.float64).eps
    return (bound * (1 + slack)).to(like.dtype)
