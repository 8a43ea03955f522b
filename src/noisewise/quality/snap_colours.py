"""Gives pictures the colours of a palette: the nearest ones, and no more of them than they need.

A net that draws pixel art comes near its colours and meets none: a picture that should have 17 has
hundreds. Here each pixel takes the nearest colour of the palette, as the eye sees distances. Then
each picture keeps the few of these colours that together lie nearest to all its pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from noisewise.quality.colours import codes
from noisewise.quality.eight_bits import levels
from noisewise.quality.oklab import oklab
from noisewise.quality.palettes import nearest_rows

_AT_ONCE = 16  # pictures
_MOST_TRIED = 128  # of the palette's colours in a picture, the most frequent ones


def snapped_to(
    images: Tensor, colours: Tensor, tolerance: float = 0.0, most: int | None = None
) -> Tensor:
    """Return pictures on a palette.

    Each pixel takes the nearest colour in Oklab. Then a picture's colours are chosen one by one,
    each time the one that brings the others nearest, until their root mean square distance from the
    chosen ones is at most the tolerance, or there are `most`; the others take the nearest chosen
    one. A colour counts by the root of its pixels, so that a bright eye is not lost in a coat.
    Alpha stays as it is, and so does the colour where alpha is 0.

    Args:
        images: float [n, c, h, w] in [-1, 1] or uint8 [n, h, w, c], with 1, 3 or 4 channels.
        colours: the palette, uint8 [k, 3]; of grey pictures the red of each counts.
        tolerance: in Oklab; 0: no colours are left out. 0.02 is just seen.
        most: colours that a picture may have; None: as many as the palette.

    Returns:
        Of the same shape and kind of type (float32 or uint8).

    Raises:
        ValueError: if shape or type do not fit, or there are no colours.

    Source: greedy k-medoids, the first part (BUILD) of PAM, Kaufman and Rousseeuw 1987.

    Example:
        >>> images = torch.tensor([[-0.9, 0.9], [0.1, 1.0]])[None, None]
        >>> black_and_white = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
        >>> snapped_to(images, black_and_white)[0, 0]
        tensor([[-1.,  1.],
                [ 1.,  1.]])
    """
    _check(images, colours)
    pixels = levels(images.detach())
    if images.dtype != torch.uint8:
        pixels = pixels.permute(0, 2, 3, 1)
    colours = colours.to(pixels.device)
    parts = [_snapped(part, colours, tolerance, most) for part in pixels.split(_AT_ONCE)]
    found = torch.cat(parts) if parts else pixels
    if images.dtype == torch.uint8:
        return found
    return found.permute(0, 3, 1, 2).float() / 127.5 - 1


def snapped_to_in_graph(images: Tensor, colours: Tensor) -> Tensor:
    """The nearest colour of each pixel, without ifs on values, for graphs that are exported.

    Args:
        images: float [n, c, h, w] in [-1, 1].
        colours: as for `snapped_to`.

    Example:
        >>> images = torch.tensor([[-0.9, 0.9], [0.1, 1.0]])[None, None]
        >>> palette = torch.tensor([[0, 0, 0], [255, 255, 255]], dtype=torch.uint8)
        >>> torch.equal(snapped_to_in_graph(images, palette), snapped_to(images, palette))
        True
    """
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    pixels = pixels.permute(0, 2, 3, 1)
    channels = min(pixels.shape[3], 3)
    seen, rows = oklab(pixels[..., :channels], exact=False), oklab(colours, exact=False)
    # A product of matrices would be quicker, but greys between two others need all digits.
    apart = sum((seen[..., at, None] - rows[:, at]).square() for at in range(3))
    assert isinstance(apart, Tensor)
    found = colours[:, :channels][apart.argmin(-1)]
    if pixels.shape[3] == 4:
        found = torch.where(pixels[..., 3:] > 0, found, pixels[..., :3])
        found = torch.cat([found, pixels[..., 3:]], -1)
    return found.permute(0, 3, 1, 2).float() / 127.5 - 1


def on_palette(images: Tensor, colours: Tensor) -> float:
    """Return the share of pixels whose colour is exactly one of the palette; transparent ones are.

    Args:
        images: as for `snapped_to`.
        colours: as for `snapped_to`.

    Raises:
        ValueError: as `snapped_to` does.

    Example:
        >>> on_palette(torch.tensor([[-1.0, 0.9]])[None, None], torch.zeros(1, 3).byte())
        0.5
    """
    _check(images, colours)
    pixels = levels(images.detach())
    pixels = (pixels if images.dtype == torch.uint8 else pixels.permute(0, 2, 3, 1)).long()
    channels = min(pixels.shape[3], 3)
    place = torch.tensor([65536, 256, 1][:channels], device=pixels.device)
    wanted = (colours.to(pixels.device)[:, :channels].long() * place).sum(1)
    on = torch.isin((pixels[..., :channels] * place).sum(-1), wanted)
    if pixels.shape[3] == 4:
        on |= pixels[..., 3] == 0
    return float(on.double().mean())


def colours_a_picture(images: Tensor) -> np.ndarray:
    """The number of different colours of each picture, int64 [n]; transparent pixels have none.

    Args:
        images: as for `snapped_to`.

    Example:
        >>> colours_a_picture(torch.tensor([[-1.0, 0.9]])[None, None]).tolist()
        [2]
    """
    pixels = levels(images.detach())
    pixels = pixels if images.dtype == torch.uint8 else pixels.permute(0, 2, 3, 1)
    found = [np.unique(codes(picture)) for picture in pixels.contiguous().cpu().numpy()]
    return np.array([int((values < 1 << 24).sum()) for values in found], np.int64)


def _check(images: Tensor, colours: Tensor) -> None:
    """Refuse what are no pictures, and a palette without colours."""
    channels = images.shape[3 if images.dtype == torch.uint8 else 1] if images.ndim == 4 else 0
    if channels not in (1, 3, 4):
        raise ValueError(
            f"Pictures have shape {list(images.shape)}: give float [n, channels, height, width] "
            "or uint8 [n, height, width, channels], with 1, 3 or 4 channels."
        )
    if colours.ndim != 2 or colours.shape[1] != 3 or not len(colours):
        raise ValueError(f"A palette has shape {list(colours.shape)}: give uint8 [k, 3], k >= 1.")


def _snapped(pixels: Tensor, colours: Tensor, tolerance: float, most: int | None) -> Tensor:
    """Pixels uint8 [n, h, w, c] on the palette."""
    n, height, width, channels = pixels.shape
    inks = min(channels, 3)
    rows = oklab(colours)
    code = torch.zeros(n * height * width, dtype=torch.int64, device=pixels.device)
    for ink in pixels[..., :inks].reshape(-1, inks).unbind(1):
        code = code * 256 + ink
    different, where = code.unique(return_inverse=True)
    parts = [different >> 8 * at & 255 for at in reversed(range(inks))]
    index = nearest_rows(oklab(torch.stack(parts, 1)), rows)[0][where].view(n, height * width)
    shown = torch.ones(n, height * width, dtype=torch.bool, device=pixels.device)
    if channels == 4:
        shown = pixels[..., 3].reshape(n, -1) > 0
    if tolerance > 0 or (most is not None and most < len(colours)):
        index = _with_few(index, shown, rows, tolerance, most)
    found = colours[:, :inks][index].view(n, height, width, inks)
    if channels < 4:
        return found
    found = torch.where(shown.view(n, height, width, 1), found, pixels[..., :3])
    return torch.cat([found, pixels[..., 3:]], -1)


def _with_few(
    index: Tensor, shown: Tensor, rows: Tensor, tolerance: float, most: int | None
) -> Tensor:
    """The same pictures, int64 [n, pixels], with no more colours than they need.

    One picture after the other, on the CPU: they have different numbers of colours, and a picture
    must not depend on its neighbours in a batch.

    Args:
        index: a colour for each pixel.
        shown: whether a pixel counts.
        rows: the palette in Oklab [k, 3].
        tolerance: as for `snapped_to`.
        most: as for `snapped_to`.
    """
    lab = rows.double().cpu().numpy()
    found = []
    for picture, counts in zip(index.cpu().numpy(), shown.cpu().numpy(), strict=True):
        uses = np.bincount(picture[counts], minlength=len(lab))
        kept = _kept(uses, lab, tolerance**2, most or len(lab))
        taken = kept[_square(lab, lab[kept]).argmin(1)]
        found.append(taken[picture])
    return torch.from_numpy(np.stack(found)).to(index.device)


def _kept(uses: np.ndarray, lab: np.ndarray, error: float, most: int) -> np.ndarray:
    """The colours of the palette that a picture keeps.

    Args:
        uses: pixels of each colour [k].
        lab: the palette in Oklab [k, 3].
        error: mean squared distance at which it is enough.
        most: colours that it may keep.
    """
    own = np.argsort(-uses, kind="stable")[: min(_MOST_TRIED, max(1, np.count_nonzero(uses)))]
    weight = np.sqrt(uses[own])
    apart = _square(lab[own], lab[own])
    chosen = [int((apart @ weight).argmin())]
    best = apart[chosen[0]]  # of each colour, to the nearest chosen one
    while len(chosen) < most and best @ weight > error * weight.sum():
        gain = np.maximum(best - apart, 0) @ weight
        chosen.append(int(gain.argmax()))
        best = np.minimum(best, apart[chosen[-1]])
    return own[chosen]


def _square(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared distances, float64 [n, m]."""
    return ((first[:, None] - second) ** 2).sum(2)
