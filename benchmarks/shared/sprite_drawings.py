"""Sprites that a seeded program draws: ships, creatures, potions and blades, with hard alpha.

They have what drawn sprites have: one palette of ramps for all, an outline, light from the upper
left, a mirror axis, a transparent ground. No two of 600 are equal. They cost no licence, and a
stranger can draw them again bit by bit.

Source: the pixel spaceships of Bollinger 2009 (half a mask at random, mirrored, outlined).
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np

Drawn = tuple[np.ndarray, np.ndarray]
"""Material of each pixel, int [h, w], 0: nothing; and its lightness, int [h, w], added to 1."""

SIDE = 32
SHADES = 4  # of each ramp, dark to light
_HUES = (0.0, 0.06, 0.13, 0.27, 0.45, 0.58, 0.72, 0.88)
_OUTLINE = (26, 20, 38)
_WHITE = (250, 246, 232)


def palette() -> np.ndarray:
    """All colours, uint8 [34, 3]: an outline, white, and ramps of 8 hues with 4 shades each."""
    found = [_OUTLINE, _WHITE]
    for hue in _HUES:
        for at in range(SHADES):
            turned = (hue + 0.03 * (1.5 - at)) % 1  # shadows are colder
            rgb = colorsys.hsv_to_rgb(turned, 0.75 - 0.13 * at, 0.35 + 0.2 * at)
            found.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return np.array(found, np.uint8)


def sprites(count: int, seed: int = 0) -> np.ndarray:
    """Draw sprites, uint8 [count, 32, 32, 4]; opacity is 0 or 255, and transparent pixels black.

    Args:
        count: how many, all different.
        seed: of all of them.

    Example:
        >>> drawn = sprites(8)
        >>> drawn.shape, sorted(set(drawn[..., 3].ravel().tolist()))
        ((8, 32, 32, 4), [0, 255])
    """
    generator, kinds = np.random.default_rng(seed), (ship, creature, potion, blade)
    known: set[bytes] = set()
    found: list[np.ndarray] = []
    while len(found) < count:
        one = painted(kinds[len(found) % len(kinds)], generator)
        if one.tobytes() not in known:
            known.add(one.tobytes())
            found.append(one)
    return np.stack(found)


def painted(
    kind: Callable[[np.random.Generator], Drawn], generator: np.random.Generator
) -> np.ndarray:
    """One sprite in colours of the palette, uint8 [32, 32, 4], with an outline."""
    material, light = kind(generator)
    colours = palette()
    ramps = generator.permutation(len(_HUES))
    solid = material > 0
    upper = np.roll(~solid, (1, 1), (0, 1)) | np.roll(~solid, 1, 0)
    lower = np.roll(~solid, (-1, -1), (0, 1)) | np.roll(~solid, -1, 0)
    shade = np.clip(1 + light + upper.astype(int) - lower.astype(int), 0, SHADES - 1)
    index = 2 + SHADES * ramps[np.clip(material - 1, 0, len(ramps) - 1)] + shade
    index = np.where(material == WHITE, 1, np.where(material == DARK, 0, index))
    picture = np.zeros((SIDE, SIDE, 4), np.uint8)
    picture[solid, :3], picture[solid, 3] = colours[index[solid]], 255
    around = _grown(solid) & ~solid
    picture[around, :3], picture[around, 3] = colours[0], 255
    return picture


WHITE, DARK = 90, 91  # materials that have one colour: of eyes, glints, pupils


def ship(generator: np.random.Generator) -> Drawn:
    """A hull along the axis, wings, a cockpit and engines."""
    material, light = _empty()
    length, nose = int(generator.integers(16, 27)), int(generator.integers(1, 3))
    top = (SIDE - length) // 2
    belly = generator.uniform(2.5, 5.5)
    for row in range(length):
        share = row / length
        half = nose + belly * np.sin(np.pi * min(1.0, share * generator.uniform(0.95, 1.05)) * 0.6)
        _span(material, top + row, int(half), 1)
    wing, sweep = int(generator.integers(4, 9)), generator.uniform(-0.6, 1.2)
    start = top + int(length * generator.uniform(0.3, 0.6))
    for out in range(wing):
        row = start + int(sweep * out)
        _both(material, slice(row, row + max(2, wing - out)), 15 - 5 - out, 2)
    for _ in range(int(generator.integers(0, 3))):
        row = int(generator.integers(top + 4, top + length - 2))
        _span(material, row, int(belly) - 1, 3)
    cockpit = top + int(length * generator.uniform(0.15, 0.35))
    for row in range(cockpit, cockpit + int(generator.integers(3, 6))):
        _span(material, row, 1, 4)
    light[cockpit : cockpit + 2, 15] = 2
    for place in generator.choice(5, int(generator.integers(1, 3)), replace=False):
        _both(material, slice(top + length, top + length + int(generator.integers(1, 3))),
              15 - int(place), 5)  # fmt: skip
    return material, light


def creature(generator: np.random.Generator) -> Drawn:
    """A round body at random, mirrored, with eyes, a mouth, horns or ears, and legs."""
    material, light = _empty()
    rows, columns = np.mgrid[:SIDE, :SIDE]
    middle, high = generator.integers(15, 19), generator.uniform(7, 10.5)
    wide, power = generator.uniform(6, 11), generator.uniform(1.6, 3.2)
    body = (np.abs(rows - middle) / high) ** power + (np.abs(columns - 15.5) / wide) ** power <= 1
    material[body] = 1
    light[body & (np.hypot(rows - middle + 3, columns - 12) < 4)] = 1
    belly = np.hypot((rows - middle - high / 2) / 4, (columns - 15.5) / (wide * 0.6)) < 1
    material[body & belly] = 2
    bottom, top = int(middle + high), int(middle - high)
    legs = int(generator.integers(1, 4))
    for at in range(legs):
        left = 15 - 1 - int((at + 0.5) * wide / legs * 0.9)
        _both(material, slice(bottom - 1, bottom + int(generator.integers(1, 4))), left, 1)
        _both(material, slice(bottom - 1, bottom + 1), left + 1, 1)
    horn = int(generator.integers(0, 6))
    for at in range(horn):
        _both(
            material,
            slice(top + 2 - at, top + 4 - at),
            15 - 4 - int(at * generator.uniform(0, 0.9)),
            3,
        )
    eye = int(middle - high * generator.uniform(0.2, 0.5))
    apart, big = int(generator.integers(2, 5)), int(generator.integers(2, 4))
    if generator.random() < 0.2:
        _span(material, slice(eye, eye + big), 1, WHITE)
        _span(material, slice(eye + 1, eye + big), 0, DARK)
    else:
        for at in range(big - 1):
            _both(material, slice(eye, eye + big), 15 - apart - at, WHITE)
        _both(material, slice(eye + 1, eye + big), 15 - apart, DARK)
    mouth, open_ = eye + big + int(generator.integers(1, 3)), int(generator.integers(1, 4))
    _span(material, mouth, open_, DARK)
    if generator.random() < 0.5:
        _both(material, slice(mouth, mouth + 2), 15 - open_, WHITE)
    if generator.random() < 0.5:
        spots = generator.random((SIDE, SIDE // 2)) < 0.08
        mirrored = np.concatenate([spots, spots[:, ::-1]], 1)
        material[mirrored & (material == 1) & (rows < middle)] = 3
    return material, light


def potion(generator: np.random.Generator) -> Drawn:
    """A bottle of one of several shapes, filled to some height, with a stopper and bubbles."""
    material, light = _empty()
    rows, columns = np.mgrid[:SIDE, :SIDE]
    radius, centre = generator.uniform(6, 10), int(generator.integers(18, 21))
    shape = generator.integers(3)
    high = np.abs(rows - centre) / radius
    across = np.abs(columns - 15.5)
    body = [
        np.hypot(high, across / radius) <= 1,
        (high <= 1) & (across <= radius * (0.35 + 0.35 * (rows - centre + radius) / radius)),
        (high <= 1) & (across <= radius * 0.7),
    ][shape]
    neck, top = int(generator.integers(1, 4)), int(centre - radius)
    body |= (across <= neck) & (rows >= top - 4) & (rows <= centre)
    material[body] = 1
    light[body] = 2
    level = int(centre - radius * generator.uniform(-0.3, 0.7))
    material[body & (rows >= level)] = 2
    light[body & (rows >= level)] = 0
    light[body & (rows == level)] = 1
    bubbles = (generator.random((SIDE, SIDE)) < 0.07) & body & (rows > level)
    light[bubbles] = 2
    material[(across <= neck + 0.5) & (rows >= top - 7) & (rows < top - 3)] = 3
    material[(across <= neck + 1.5) & (rows == top - 3)] = 4
    glint = (
        body & (np.abs(columns - (15.5 - radius * 0.45)) < 0.8) & (np.abs(rows - centre + 1) < 3)
    )
    material[glint] = WHITE
    if generator.random() < 0.4:
        material[body & (np.abs(rows - centre - 2) <= 2) & (across <= radius * 0.45)] = 5
    return material, light


def blade(generator: np.random.Generator) -> Drawn:
    """A sword, dagger or axe on the diagonal or upright, with a guard, a grip and a stone."""
    material, light = _empty()
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(float)
    slanted = generator.random() < 0.6
    angle = np.pi / 4 if slanted else 0.0
    x, y = columns - 15.5, rows - 15.5
    across = np.abs(x * np.cos(angle) + y * np.sin(angle))
    side = x * np.cos(angle) + y * np.sin(angle)
    along = -x * np.sin(angle) + y * np.cos(angle)
    along = -along if slanted and generator.random() < 0.5 else along
    reach = 14.0 if not slanted else 17.0
    hilt, half = generator.uniform(2, 7), generator.uniform(1.0, 3.4)
    wave = generator.choice([0.0, 0.0, 0.9]) * np.sin(along * 1.1)
    point = np.clip((along + reach) / 4, 0, 1)
    edge = (along < hilt) & (along > -reach) & (np.abs(side - wave) <= half * point)
    material[edge], light[edge] = 1, 1
    light[edge & (side - wave > 0.3)] = -1
    guard = generator.uniform(2.5, 7)
    material[(np.abs(along - hilt) <= generator.uniform(0.7, 1.6)) & (across <= guard)] = 2
    grip = (along > hilt + 1) & (along < reach - 2) & (across <= 1.2)
    material[grip] = 3
    light[grip & (np.round(along).astype(int) % 2 == 0)] = -1
    material[np.hypot(along - reach + 2, side) <= generator.uniform(1.2, 2.4)] = 2
    if generator.random() < 0.6:
        material[np.hypot(along - hilt, side) <= generator.uniform(0.8, 1.6)] = 4
    if generator.random() < 0.3:
        axe = (np.hypot(along + reach - 5, side - 3) <= generator.uniform(4, 7)) & (side > -2)
        material[axe], light[axe] = 1, 1
    material[:1] = material[-1:] = 0
    material[:, :1] = material[:, -1:] = 0
    return material, light


def _empty() -> Drawn:
    return np.zeros((SIDE, SIDE), int), np.zeros((SIDE, SIDE), int)


def _span(material: np.ndarray, row: int | slice, half: int, what: int) -> None:
    """Fill a row around the axis, `half` pixels on both sides beside the two of the middle."""
    material[row, max(1, 15 - half) : min(SIDE - 1, 17 + half)] = what


def _both(material: np.ndarray, rows: slice, left: int, what: int) -> None:
    """Fill a column and its mirror image; what lies outside is left out."""
    if 1 <= left < SIDE // 2:
        inside = slice(max(1, rows.start), min(SIDE - 1, rows.stop))
        material[inside, left] = material[inside, SIDE - 1 - left] = what


def _grown(solid: np.ndarray) -> np.ndarray:
    """A mask with the four neighbours of its pixels."""
    padded = np.pad(solid, 1)
    return (
        padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1]
        | padded[1:-1, :-2] | padded[1:-1, 2:]
    )  # fmt: skip
