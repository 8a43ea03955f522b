"""Features of pictures from a frozen random convolution net; nothing is downloaded.

Papers: Lee et al. 2022, "Demystifying randomly initialized networks for evaluating generative
models" (arXiv 2208.09218): untrained features rank generators much like trained ones; Portilla and
Simoncelli 2000, "A parametric texture model based on joint statistics of complex wavelet
coefficients": mean and energy of filter responses at every scale describe a picture.

The net "noisewise-1" never changes; a different net gets a new version name. Its weights come from
a counter (splitmix64, Steele et al. 2014) and exact integer arithmetic, so they are the same on
every machine and with every release of torch and NumPy, and no random state is used or changed.
Means of deep responses hardly react to fine noise and speckle. The local energies of the first
filters do, since most of these filters ignore constant areas. Therefore both are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Extractor = Callable[[Tensor], Tensor]
"""Any callable from pictures, float [n, c, h, w] in [-1, 1], to features, float [n, d]."""

VERSION = "noisewise-1"

_SEED = 0x6E6F697365776973  # "noisewis" in ASCII
_SIZE = 32
_NUM_FIRST, _NUM_SECOND = 16, 24  # filters of the two layers at each scale
_FIRST_KERNEL, _SECOND_KERNEL = 5, 3
_GRIDS = (4, 4, 2)  # cells per side for the means, finest scale first
_ENERGY_GRID = 2
_BATCH = 128
# luminance, red - blue, green - magenta: grey pictures have only luminance
_OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.0, 0.0, -1.0), (-0.5, 1.0, -0.5))


class RandomConvFeatures:
    """Features of pictures in a frozen random convolution net, "noisewise-1".

    Pictures of any size are resampled to `size` (bicubic, antialiased), converted to luminance, two
    colour differences and opacity, and processed at three scales (`size`, /2, /4). At each scale
    two layers ``h1 = w1 * x`` (5x5) and ``h2 = w2 * relu(h1)`` (3x3) give for each filter:
    ``mean(relu(h))`` over 4x4 cells (2x2 at the last scale), for the layout, and
    ``sqrt(mean(h^2))`` over 2x2 cells, for the amount of detail. Two thirds of the first filters
    give 0 on a constant. Grey pictures are read as colour pictures without colour, and pictures
    with three channels as opaque.

    Attributes:
        name: version of the net, with the size if it is not 32.
        size: side to which pictures are resampled, in pixels.
        num_features: d, the length of a feature vector (1,920).

    Source: Lee et al. 2022, section 3 (random features); Portilla and Simoncelli 2000 (energies).

    Example:
        >>> features = RandomConvFeatures()
        >>> features(torch.zeros(2, 3, 28, 28)).shape
        torch.Size([2, 1920])
    """

    def __init__(self, size: int = _SIZE) -> None:
        """Make the net.

        Args:
            size: side in pixels, a multiple of 8, at least 16. Use 64 or more to include the finest
                detail of large pictures. Distances at different sizes cannot be compared.

        Raises:
            ValueError: if size is below 16 or not a multiple of 8.
        """
        if size < 16 or size % 8:
            raise ValueError(f"size is {size}: give a multiple of 8, at least 16.")
        self.size = size
        self.name = VERSION if size == _SIZE else f"{VERSION}@{size}"
        self._layers = [
            (torch.from_numpy(first), torch.from_numpy(second)) for first, second in _weights()
        ]
        cells = sum((_NUM_FIRST + _NUM_SECOND) * (g * g + _ENERGY_GRID**2) for g in _GRIDS)
        self.num_features = cells

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of pictures, without gradient.

        Args:
            images: float [n, c, h, w] in [-1, 1], c 1 (grey), 3 (RGB) or 4 (RGBA), h and w >= 8.

        Returns:
            float32 [n, 1920] on the device of the pictures.

        Raises:
            ValueError: if shape, dtype or number of channels do not fit.

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
                "or use another extractor."
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
        """Return a text with the name that results show."""
        return f"RandomConvFeatures({self.name!r})"


def weights_sha256() -> str:
    """Return the SHA-256 of the weights (float32, little-endian, in the order of the layers).

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
    """Return the name of an extractor: `.name`, else the name of the function or the class.

    Example:
        >>> extractor_name(RandomConvFeatures())
        'noisewise-1'
    """
    for found in (getattr(extractor, "name", None), getattr(extractor, "__name__", None)):
        if isinstance(found, str):
            return found
    return type(extractor).__name__


def extract(images: Tensor, extractor: Extractor, batch_size: int = 256) -> Tensor:
    """Return the features of pictures, computed batch by batch, as float32 on the CPU.

    Args:
        images: float [n, c, h, w] in [-1, 1].
        extractor: maps a batch of pictures to features [n, d].
        batch_size: pictures per call of the extractor.

    Returns:
        float32 [n, d].

    Raises:
        ValueError: if the extractor returns another shape, or NaN or infinite values.

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
            f"The extractor returned shape {list(features.shape)} for {len(images)} pictures: "
            "it must return one row of features per picture."
        )
    if not features.isfinite().all():
        raise ValueError("Some features are NaN or infinite: check the pictures for such values.")
    return features


def check_images(images: Tensor, name: str) -> None:
    """Check that a tensor holds pictures; `name` is its name in the error message.

    Raises:
        ValueError: if images is not float [n >= 1, c, h >= 8, w >= 8].
    """
    if images.ndim != 4 or len(images) == 0 or min(images.shape[2:]) < 8:
        raise ValueError(
            f"{name} has shape {list(images.shape)}: give at least one picture, as "
            "[n, channels, height, width] with sides of at least 8 pixels."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"{name} has type {images.dtype}: give floats in [-1, 1] (for uint8: x / 127.5 - 1)."
        )


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
    """The two filter banks of each scale, float32 [out, in, k, k]; every filter has norm 1."""
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
    """Filters of norm 1; the first `num_balanced` sum to 0 over each input channel.

    All numbers are whole until the last division, and the sums of squares stay below 2^53, so the
    result does not depend on the order of summation or on the library.
    """
    values = values.reshape(shape)
    window = shape[2] * shape[3]
    balanced = values * window - values.sum((2, 3), keepdims=True)
    whole = np.concatenate([balanced[:num_balanced], values[num_balanced:]])
    squares = (whole * whole).sum((1, 2, 3), keepdims=True)
    assert squares.max() < 2**53
    return (whole / np.sqrt(squares.astype(np.float64))).astype(np.float32)


def _whole_normals(start: int, count: int) -> np.ndarray:
    """Return `count` numbers of a fixed sequence, from position `start` on, int64 [count].

    Each is a sum of four 12-bit uniform numbers, about normal, in [-8190, 8190]. Source: splitmix64
    (Steele, Lea and Flood 2014) of a counter.
    """
    counter = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z = np.uint64(_SEED) + counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    parts = [(z >> np.uint64(shift)) & np.uint64(4095) for shift in (4, 20, 36, 52)]
    return np.stack(parts).astype(np.int64).sum(0) - 2 * 4095
