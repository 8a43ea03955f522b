"""Frozen random convolution features: what pictures look like, with nothing to download.

Papers: Lee et al. 2022, "Demystifying randomly initialized networks for evaluating generative
models" (arXiv 2208.09218): untrained features rank generators much as trained ones do; Portilla and
Simoncelli 2000, "A parametric texture model based on joint statistics of complex wavelet
coefficients": a picture is described by the mean and the energy of filter responses at every scale.

The net "noisewise-1" never changes; another net would get another version. Its weights come from a
counter (splitmix64, Steele et al. 2014) and exact integer arithmetic, so they are the same numbers
on every machine and with every release of torch and NumPy, and no random state is touched.
Plain means of deep responses are nearly blind to fine noise and speckle; the local energies of the
first filters, most of which see no constant, are not. That is why both are here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Extractor = Callable[[Tensor], Tensor]
"""Maps pictures, float [n, c, h, w] in [-1, 1], to features, float [n, d]; any callable will do."""

VERSION = "noisewise-1"

_SEED = 0x6E6F697365776973  # "noisewis" in ASCII
_SIZE = 32
_NUM_FIRST, _NUM_SECOND = 16, 24  # filters of the two layers at each scale
_FIRST_KERNEL, _SECOND_KERNEL = 5, 3
_GRIDS = (4, 4, 2)  # cells a side that means are taken over, finest scale first
_ENERGY_GRID = 2
_BATCH = 128
# luminance, red - blue, green - magenta: grey pictures have luminance alone
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))


class RandomConvFeatures:
    """Features of pictures in a frozen random convolution net, "noisewise-1".

    Pictures of any size are resampled to `size` (bicubic, antialiased), turned into luminance, two
    colour differences and opacity, and looked at in three octaves (`size`, /2, /4). At each octave
    two layers ``h1 = w1 * x`` (5x5) and ``h2 = w2 * relu(h1)`` (3x3) give, for each filter,
    ``mean(relu(h))`` over 4x4 cells (2x2 in the last octave), where things are, and
    ``sqrt(mean(h^2))`` over 2x2 cells, how much is going on. Two thirds of the first filters have
    no response to a constant. Grey pictures count as colour pictures without colour, three
    channels as opaque.

    Attributes:
        name: version of the net, and the size where it is not 32.
        size: side in pixels that pictures are resampled to.
        num_features: d, the length of a picture's feature vector (1,920).

    Source: Lee et al. 2022, section 3 (random features); Portilla and Simoncelli 2000 (energies).

    Example:
        >>> features = RandomConvFeatures()
        >>> features(torch.zeros(2, 3, 28, 28)).shape
        torch.Size([2, 1920])
    """

    def __init__(self, size: int = _SIZE) -> None:
        """Make the net.

        Args:
            size: side in pixels, a multiple of 8, at least 16. Take 64 or more to see the finest
                detail of large pictures; distances at different sizes do not compare.

        Raises:
            ValueError: if size is too small or no multiple of 8.
        """
        if size < 16 or size % 8:
            raise ValueError(f"size is {size}: take a multiple of 8, at least 16.")
        self.size = size
        self.name = VERSION if size == _SIZE else f"{VERSION}@{size}"
        self._layers = [
            (torch.from_numpy(first), torch.from_numpy(second)) for first, second in _weights()
        ]
        cells = sum((_NUM_FIRST + _NUM_SECOND) * (g * g + _ENERGY_GRID**2) for g in _GRIDS)
        self.num_features = cells

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of pictures; no gradient is kept.

        Args:
            images: float [n, c, h, w] in [-1, 1], c 1 (grey), 3 (RGB) or 4 (RGBA), h and w >= 8.

        Returns:
            float32 [n, 1920] on the device of the pictures.

        Raises:
            ValueError: if the shape or dtype is another.

        Example:
            >>> grey = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
            >>> features = RandomConvFeatures()
            >>> torch.equal(features(grey), features(grey.expand(2, 3, 16, 16)))
            True
        """
        check_images(images, "images")
        if images.shape[1] not in (1, 3, 4):
            raise ValueError(
                f"Pictures have {images.shape[1]} channels: give 1 (grey), 3 (RGB) or 4 (RGBA), "
                "or an extractor of your own."
            )
        layers = [(a.to(images.device), b.to(images.device)) for a, b in self._layers]
        with (
            torch.no_grad(),
            torch.autocast(images.device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            parts = [_batch(part.float(), self.size, layers) for part in images.split(_BATCH)]
        return torch.cat(parts)

    def __repr__(self) -> str:
        """The name that results carry."""
        return f"RandomConvFeatures({self.name!r})"


def weights_sha256() -> str:
    """Return the SHA-256 of the net's weights (float32, little-endian, in order of the layers).

    Example:
        >>> weights_sha256()[:16]
        'ab7ac86ec77300cb'
    """
    digest = hashlib.sha256()
    for pair in _weights():
        for weight in pair:
            digest.update(weight.astype("<f4").tobytes())
    return digest.hexdigest()


def extractor_name(extractor: Extractor) -> str:
    """Return the name that a distance carries: `.name`, else the function's or the class's own.

    Example:
        >>> extractor_name(RandomConvFeatures())
        'noisewise-1'
    """
    for found in (getattr(extractor, "name", None), getattr(extractor, "__name__", None)):
        if isinstance(found, str):
            return found
    return type(extractor).__name__


def extract(images: Tensor, extractor: Extractor, batch_size: int = 256) -> Tensor:
    """Return the features of pictures, taken batch by batch, as float32 on the CPU.

    Args:
        images: float [n, c, h, w] in [-1, 1].
        extractor: maps a batch of pictures to features [n, d].
        batch_size: pictures a call.

    Returns:
        float32 [n, d].

    Raises:
        ValueError: if the extractor returns another shape, or numbers that are not finite.

    Example:
        >>> extract(torch.zeros(3, 1, 8, 8), lambda images: images.flatten(1)).shape
        torch.Size([3, 64])
    """
    check_images(images, "images")
    with torch.no_grad():
        found = [extractor(part).detach().float().cpu() for part in images.split(batch_size)]
    features = torch.cat(found)
    if features.ndim != 2 or len(features) != len(images):
        raise ValueError(
            f"The extractor gave {list(features.shape)} for {len(images)} pictures: "
            "it must return one row of features a picture."
        )
    if not features.isfinite().all():
        raise ValueError("Features are not finite: look for NaN or infinity in the pictures.")
    return features


def check_images(images: Tensor, name: str) -> None:
    """Refuse what is not a stack of float pictures.

    Raises:
        ValueError: if images is not float [n >= 1, c, h >= 8, w >= 8].
    """
    if images.ndim != 4 or len(images) == 0 or min(images.shape[2:]) < 8:
        raise ValueError(
            f"{name} has shape {list(images.shape)}: "
            "give [n, channels, height, width] with sides of at least 8."
        )
    if not images.is_floating_point():
        raise ValueError(f"{name} is {images.dtype}: give floats in [-1, 1], uint8 / 127.5 - 1.")


def _batch(images: Tensor, size: int, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Features [n, d] of one batch."""
    x = _opponent(_resampled(images, size))
    found: list[Tensor] = []
    for octave, (first, second) in enumerate(layers):
        if octave:
            x = F.avg_pool2d(x, 2)
        h1 = _convolved(x, first)
        h2 = _convolved(F.relu(h1), second, stride=2 if octave == 0 else 1)
        for h in (h1, h2):
            found.append(F.adaptive_avg_pool2d(F.relu(h), _GRIDS[octave]).flatten(1))
            energy = F.adaptive_avg_pool2d(h * h, _ENERGY_GRID)
            found.append(energy.flatten(1).clamp_min(0).sqrt())
    return torch.cat(found, 1)


def _convolved(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    margin = weight.shape[-1] // 2
    return F.conv2d(F.pad(x, (margin,) * 4, mode="reflect"), weight, stride=stride)


def _resampled(images: Tensor, size: int) -> Tensor:
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(
        images, size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )


def _opponent(images: Tensor) -> Tensor:
    """Luminance, two colour differences, opacity: [n, 4, h, w] from 1, 3 or 4 channels."""
    n, channels, height, width = images.shape
    colours = images.expand(-1, 3, -1, -1) if channels == 1 else images[:, :3]
    colour = torch.einsum("oc,nchw->nohw", images.new_tensor(_OPPONENT), colours)
    opacity = images[:, 3:] if channels == 4 else images.new_ones(n, 1, height, width)
    return torch.cat([colour, opacity], 1)


def _weights() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The two filter banks of each octave, float32 [out, in, k, k], each filter of norm 1."""
    start = 0
    for _ in _GRIDS:
        banks = []
        shapes = (
            (_NUM_FIRST, 4, _FIRST_KERNEL, 2 * _NUM_FIRST // 3),
            (_NUM_SECOND, _NUM_FIRST, _SECOND_KERNEL, _NUM_SECOND // 2),
        )
        for outputs, inputs, kernel, num_balanced in shapes:
            shape = (outputs, inputs, kernel, kernel)
            banks.append(_filters(_whole_normals(start, int(np.prod(shape))), shape, num_balanced))
            start += int(np.prod(shape))
        yield banks[0], banks[1]


def _filters(values: np.ndarray, shape: tuple[int, ...], num_balanced: int) -> np.ndarray:
    """Filters of norm 1; the first `num_balanced` sum to 0 over each input channel's window.

    Everything is a whole number until the last division, so that no order of summation and no
    library can change a bit: the sums of squares stay below 2^53.
    """
    values = values.reshape(shape)
    window = shape[2] * shape[3]
    balanced = values * window - values.sum((2, 3), keepdims=True)
    whole = np.concatenate([balanced[:num_balanced], values[num_balanced:]])
    squares = (whole * whole).sum((1, 2, 3), keepdims=True)
    assert squares.max() < 2**53
    return (whole / np.sqrt(squares.astype(np.float64))).astype(np.float32)


def _whole_normals(start: int, count: int) -> np.ndarray:
    """Numbers start, start + 1, ... of a fixed stream: sums of four 12-bit uniforms, about normal.

    int64 [count] in [-8190, 8190]. Source: splitmix64 (Steele, Lea and Flood 2014) of a counter.
    """
    counter = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z = np.uint64(_SEED) + counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    parts = [(z >> np.uint64(shift)) & np.uint64(4095) for shift in (4, 20, 36, 52)]
    return np.stack(parts).astype(np.int64).sum(0) - 2 * 4095
