"""What no training saw: phantoms of other kinds, and sinograms that went wrong; the same for the same seed."""

import torch
from jaxtyping import Float
from torch import Tensor

from implicit_l2o.data.ellipses import ellipse_phantoms

_METAL = (
    4.0  # times the largest attenuation of the range: iron is about that much above bone at the energies of a scanner
)
_GAIN = 1.25  # of the detector at the angle that is scaled
_NOISE = 0.1  # relative standard deviation of a beam, where the models expect some per cent

# Capital letters as rows of five cells, the leftmost the highest bit.
_GLYPHS = {
    "A": (0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001),
    "C": (0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110),
    "E": (0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111),
    "F": (0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000),
    "H": (0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001),
    "K": (0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001),
    "L": (0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111),
    "N": (0b10001, 0b11001, 0b11001, 0b10101, 0b10011, 0b10011, 0b10001),
    "O": (0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110),
    "R": (0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001),
    "T": (0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100),
    "X": (0b10001, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001, 0b10001),
}
_ROWS, _COLUMNS = 7, 5


def strange_phantoms(count: int, *, size: int, seed: int = 0) -> dict[str, Float[Tensor, "count 1 size size"]]:
    """Phantoms unlike ellipses: `"bars"`, `"text"`, and ellipses with a `"metal insert"`.

    The insert attenuates four times as much as the densest ellipse, so the true image is outside the box [0, 1]: a
    reconstruction inside it cannot explain the measurement.

    Args:
        count: of each kind.
        size: pixels along a side, at least 16.
        seed: of the kinds, and of the ellipses around the metal.

    Raises:
        ValueError: `size` below 16, `count` below 1.

    Example:
        >>> from implicit_l2o.applications.ct.strangers import strange_phantoms
        >>> {kind: float(images.max()) for kind, images in strange_phantoms(2, size=32).items()}
        {'bars': 1.0, 'text': 1.0, 'metal insert': 4.0}
    """
    if size < 16 or count < 1:
        raise ValueError(f"strange_phantoms needs size >= 16 and count >= 1; got size={size}, count={count}.")
    generator = torch.Generator().manual_seed(seed)
    images = ellipse_phantoms(count, size=size, seed=seed)
    return {
        "bars": torch.stack([_bars(size, generator) for _ in range(count)])[:, None],
        "text": torch.stack([_text(size, generator) for _ in range(count)])[:, None],
        "metal insert": torch.stack([_with_metal(image[0], generator) for image in images])[:, None],
    }


def corrupted_sinograms(
    d: Float[Tensor, "B angles bins"], *, seed: int = 0
) -> dict[str, Float[Tensor, "B angles bins"]]:
    """Measurements that went wrong: a `"dead detector bin"`, a `"scaled angle"`, `"wrong noise"`.

    One bin among the middle half of the detector reads 0 at all angles; one angle reads a quarter too much; every beam has
    a relative noise of 10 % on top of its own.

    Args:
        d: good ones.
        seed: of the bin, the angle and the noise; they differ by sample.

    Example:
        >>> import torch
        >>> from implicit_l2o.applications.ct.strangers import corrupted_sinograms
        >>> list(corrupted_sinograms(torch.ones(2, 6, 8)))
        ['dead detector bin', 'scaled angle', 'wrong noise']
    """
    generator = torch.Generator().manual_seed(seed)
    batch, angles, bins = d.shape
    sample = torch.arange(batch)
    dead, scaled = d.clone(), d.clone()
    bin_ = torch.randint(bins // 4, bins - bins // 4, (batch,), generator=generator)
    angle = torch.randint(angles, (batch,), generator=generator)
    dead[sample, :, bin_] = 0.0
    scaled[sample, angle] *= _GAIN
    noise = torch.randn(d.shape, generator=generator, dtype=torch.float64).to(d)
    return {"dead detector bin": dead, "scaled angle": scaled, "wrong noise": d * (1 + _NOISE * noise)}


def _bars(size: int, generator: torch.Generator) -> Tensor:
    """Groups of parallel bars, of widths from one pixel up, along a random axis, as on a resolution phantom."""
    image = torch.zeros(size, size)
    position = size // 8
    width = int(torch.randint(1, 3, (), generator=generator))
    while position + 5 * width <= size - size // 8:
        for bar in range(3):
            left = position + 2 * bar * width
            image[size // 8 : size - size // 8, left : left + width] = 1.0
        position, width = position + 7 * width, width + 1
    return image.T.contiguous() if int(torch.randint(2, (), generator=generator)) else image


def _text(size: int, generator: torch.Generator) -> Tensor:
    """Lines of random capitals that fill three quarters of the image."""
    letters = [torch.tensor([[row >> bit & 1 for bit in (4, 3, 2, 1, 0)] for row in g]) for g in _GLYPHS.values()]
    image = torch.zeros(size, size)
    scale = max(1, size // 48)
    tall, wide = scale * _ROWS, scale * _COLUMNS
    margin = size // 8
    for top in range(margin, size - margin - tall + 1, tall + 2 * scale):
        for left in range(margin, size - margin - wide + 1, wide + scale):
            glyph = letters[int(torch.randint(len(letters), (), generator=generator))]
            image[top : top + tall, left : left + wide] = glyph.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    return image


def _with_metal(image: Tensor, generator: torch.Generator) -> Tensor:
    """A disc of metal, of a twentieth of the side in radius, somewhere in the middle half."""
    size = len(image)
    row, column = (size * (0.25 + 0.5 * torch.rand(2, generator=generator))).tolist()
    at = torch.arange(size) + 0.5
    inside = (at[:, None] - row).square() + (at - column).square() <= max(1.0, size / 20) ** 2
    return torch.where(inside, _METAL, image)
