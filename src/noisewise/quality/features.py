"""Features of pictures: what an extractor is, and how it is called, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from noisewise.quality.eight_bits import check_values, rounded
from noisewise.quality.premultiplied import without_hidden

_VALUES = 2**24  # of one batch of pictures

Extractor = Callable[[Tensor], Tensor]
"""Any callable from pictures, float [n, c, h, w] in [-1, 1], to features, float [n, d]."""


def extractor_name(extractor: Extractor) -> str:
    """Return the name of an extractor: `.name`, else the name of the function or the class.

    Example:
        >>> extractor_name(torch.flatten)
        'flatten'
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


def extract_rounded(
    images: Tensor,
    extractor: Extractor,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the features of pictures as 8-bit files hold them, with noise if wanted.

    ``extractor(rounded(x) + noise * normal)``; large pictures go in small batches.

    Args:
        images: float [n, c, h, w] in [-1, 1].
        extractor: maps a batch of pictures to features [n, d].
        noise: standard deviation, in [-1, 1].
        generator: draws the noise, on the CPU; None: seed 0.

    Returns:
        float32 [n, d] on the CPU.

    Raises:
        ValueError: as `extract`.

    Example:
        >>> extract_rounded(torch.full((1, 1, 8, 8), 1.01), lambda x: x.flatten(1)).max()
        tensor(1.)
    """
    check_images(images, "images")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)

    def seen(part: Tensor) -> Tensor:
        part = without_hidden(rounded(part))
        if noise:
            part = part + noise * torch.randn(part.shape, generator=generator).to(part.device)
        return extractor(part)

    return extract(images, seen, max(1, min(256, _VALUES // images[0].numel())))


def check_images(images: Tensor, name: str) -> None:
    """Check that a tensor holds pictures; `name` is its name in the error message.

    Raises:
        ValueError: if images is not float [n >= 1, c, h >= 8, w >= 8].
    """
    check_values(images, name)
    if images.ndim != 4 or len(images) == 0 or min(images.shape[2:]) < 8:
        raise ValueError(
            f"{name} has shape {list(images.shape)}: give at least one picture, as "
            "[n, channels, height, width] with sides of at least 8 pixels."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"{name} has type {images.dtype}: give floats in [-1, 1] (for uint8: x / 127.5 - 1)."
        )


def check_alike(images: Tensor, name: str, others: Tensor, others_name: str) -> None:
    """Check that two tensors hold pictures of one size and number of channels.

    Raises:
        ValueError: if one of them holds no pictures, or their shapes differ.
    """
    check_images(images, name)
    check_images(others, others_name)
    if images.shape[1:] != others.shape[1:]:
        raise ValueError(
            f"{name} are pictures of shape {list(images.shape[1:])}, {others_name} of shape "
            f"{list(others.shape[1:])}: give both the same size and number of channels."
        )
