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
    seen, rows = oklab(pixels[..., :channels]), oklab(colours)
    nearness = 2 * seen @ rows.T - rows.square().sum(1)
    found = colours[:, :channels][nearness.argmax(-1)]
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
    shown = torch.ones(n, height * width, device=pixels.device)
    if channels == 4:
        shown = (pixels[..., 3].reshape(n, -1) > 0).float()
    if tolerance > 0 or (most is not None and most < len(colours)):
        index = _with_few(index, shown, rows, tolerance, most)
    found = colours[:, :inks][index].view(n, height, width, inks)
    if channels < 4:
        return found
    found = torch.where(shown.view(n, height, width, 1) > 0, found, pixels[..., :3])
    return torch.cat([found, pixels[..., 3:]], -1)


def _with_few(
    index: Tensor, shown: Tensor, rows: Tensor, tolerance: float, most: int | None
) -> Tensor:
    """The same pictures, int64 [n, pixels], with no more colours than they need.

    Args:
        index: a colour for each pixel.
        shown: 1 for pixels that count, else 0.
        rows: the palette in Oklab [k, 3].
        tolerance: as for `snapped_to`.
        most: as for `snapped_to`.
    """
    n, k = len(index), len(rows)
    counts = torch.zeros(n, k, device=index.device).scatter_add_(1, index, shown)
    tried = min(_MOST_TRIED, max(1, int((counts > 0).sum(1).amax())))
    weight, member = counts.sqrt().topk(tried, dim=1)  # a picture's most frequent colours
    apart = torch.cdist(rows[member], rows[member], compute_mode="donot_use_mm_for_euclid_dist")
    apart = apart.square_()
    chosen = _chosen(apart, weight, tolerance**2, most or k)
    # Each colour of the palette takes the nearest chosen one.
    whole = torch.cdist(rows.expand(n, k, 3), rows[member])
    whole.masked_fill_(~chosen[:, None, :], torch.inf)
    taken = member.gather(1, whole.argmin(2))
    kept = torch.zeros(n, k, dtype=torch.bool, device=index.device).scatter_(1, member, chosen)
    taken = torch.where(kept, torch.arange(k, device=index.device), taken)
    return taken.gather(1, index)


def _chosen(apart: Tensor, weight: Tensor, error: float, most: int) -> Tensor:
    """Which colours each picture keeps, bool [n, m].

    Args:
        apart: squared distances between a picture's colours [n, m, m].
        weight: how much each counts [n, m]; 0: the picture does not have it.
        error: mean squared distance at which it is enough.
        most: colours of a picture.
    """
    n, m = weight.shape
    chosen = torch.zeros(n, m, dtype=torch.bool, device=weight.device)
    best = torch.full((n, m), torch.inf, device=weight.device)  # of each colour, to a chosen one
    busy = torch.arange(n, device=weight.device)
    first = (apart * weight[:, None, :]).sum(2)
    first.masked_fill_(weight == 0, torch.inf)
    pick = first.argmin(1)
    for _ in range(min(m, most)):
        chosen[busy, pick] = True
        best[busy] = torch.minimum(best[busy], apart[busy, pick])
        left = (best[busy] * weight[busy]).sum(1) / weight[busy].sum(1).clamp_min(1)
        busy = busy[left > error]
        if not len(busy):
            break
        gain = (best[busy][:, None, :] - apart[busy]).clamp_min_(0)
        gain = torch.bmm(gain, weight[busy][:, :, None])[..., 0]
        pick = gain.masked_fill_(weight[busy] == 0, -1).argmax(1)  # only colours that it has
    return chosen
