"""A size means the same in every form, and a square stays one number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisewise.sizes import (
    Size,
    as_size,
    divisible,
    halved,
    mean_side,
    nearest,
    num_pixels,
    sides,
    size_of,
    spelled,
    written,
)

SIDES = st.integers(1, 5000)
SIZES = st.builds(size_of, SIDES, SIDES)


@given(SIZES)
def test_what_is_written_is_read_again(size: Size) -> None:
    height, width = sides(size)
    for form in (written(size), size, (height, width), [height, width], f"{width} X {height}"):
        assert as_size(form) == size
    assert isinstance(written(size), int) == (height == width)
    assert spelled(size).replace(" ", "") == f"{width}x{height}"
    assert num_pixels(size) == height * width


def test_the_width_comes_first_where_people_read_and_last_in_tensors() -> None:
    assert as_size("48x32") == (32, 48)
    assert written((32, 48)) == "48x32"
    assert np.zeros(sides(as_size("48x32"))).shape == (32, 48)
    assert as_size("48×32") == as_size(" 48 x 32 ") == (32, 48)
    assert as_size(np.int64(32)) == 32
    assert type(as_size(np.int64(32))) is int


@given(SIDES)
def test_a_square_is_computed_with_its_own_side(side: int) -> None:
    """Not with the root of a product: every number of a square run stays as it was."""
    assert mean_side(side) == side
    assert type(mean_side(side)) is int
    assert sides(side) == (side, side)


@given(SIZES)
def test_the_mean_side_is_that_of_a_square_with_as_many_pixels(size: Size) -> None:
    height, width = sides(size)
    assert mean_side(size) ** 2 == pytest.approx(num_pixels(size))
    assert mean_side(size) == mean_side(size_of(width, height))
    assert min(height, width) <= mean_side(size) * (1 + 1e-12)
    assert mean_side(size_of(4 * height, 4 * width)) == pytest.approx(4 * mean_side(size))


@given(SIZES, st.integers(1, 64), st.integers(1, 4))
def test_the_nearest_sizes_are_multiples_on_both_sides_of_it(
    size: Size, step: int, times: int
) -> None:
    least = step * times
    found = nearest(size, step, least)
    assert all(divisible(one, step) and min(sides(one)) >= least for one in found)
    if divisible(size, step) and min(sides(size)) >= least:
        assert found == [size]
    for one in found:
        for side, near in zip(sides(size), sides(one), strict=True):
            assert abs(side - near) < step or near == least


@given(SIZES, st.integers(0, 6))
def test_halving_keeps_the_shape(size: Size, times: int) -> None:
    height, width = sides(size)
    assert sides(halved(size, times)) == (height // 2**times, width // 2**times)
    large = size_of(height << times, width << times)
    assert halved(large, times) == size
    assert math.isclose(mean_side(large), mean_side(size) * 2**times)


WRONG: list[object] = ["48x", "x32", "x", "", "48x32x3", "48,32", "0x1f", "1.5", "32 pixels", "--"]
WRONG += ["9" * 5000, "٣٢", (32,), (1, 2, 3), (32, 4.5), (True, 8), 1.5, None, True, {}]


@pytest.mark.parametrize("wrong", WRONG)
def test_anything_else_is_one_short_sentence(wrong: object) -> None:
    with pytest.raises(ValueError, match="size takes a side in pixels or WIDTHxHEIGHT") as caught:
        as_size(wrong)
    assert len(str(caught.value)) < 160
    assert "\n" not in str(caught.value)
