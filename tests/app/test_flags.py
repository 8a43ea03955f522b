"""Flags from a dataclass: what is typed becomes the values that were meant."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from noisewise.app.flags import flags_of, texts_of
from noisewise.app.tyro_flags import build, given
from noisewise.training.settings.config import SampleConfig, TrainConfig
from noisewise.training.settings.shown import RARE, Shown


@dataclass(frozen=True, kw_only=True)
class Below:
    """Fields of a base class."""

    seed: int = 7
    """From the base."""
    hidden: Annotated[float | None, RARE] = None


@dataclass(frozen=True, kw_only=True)
class Sample(Below):
    """One field of every type."""

    place: Annotated[str, Shown("PLACE", positional=True)]
    rest: Annotated[tuple[str, ...], Shown("MORE", positional=True)] = ()
    whole: Annotated[int | None, Shown(short="-n")] = None
    """A whole number,
    on two lines."""
    number: float = 0.5
    name: str | None = None
    choice: Literal["auto", "on"] = "auto"
    several: tuple[float, ...] = ()
    switch: bool = False


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("here", {"place": "here"}),
        ("here a b", {"place": "here", "rest": ("a", "b")}),
        ("--whole 3 here", {"place": "here", "whole": 3}),
        ("here --whole=3", {"place": "here", "whole": 3}),
        ("here -n 3", {"place": "here", "whole": 3}),
        ("here -n3", {"place": "here", "whole": 3}),
        ("here -n=-3", {"place": "here", "whole": -3}),
        ("here -n-3", {"place": "here", "whole": -3}),
        ("here --whole None", {"place": "here", "whole": None}),
        ("here --number -1e-3", {"place": "here", "number": -1e-3}),
        ("here --number -.5", {"place": "here", "number": -0.5}),
        ("here --number=-inf", {"place": "here", "number": float("-inf")}),
        ("here --number 3", {"place": "here", "number": 3.0}),
        ("here --several -1 2 .5 --switch", {"several": (-1.0, 2.0, 0.5), "switch": True}),
        ("--several 1 -- here", {"place": "here", "several": (1.0,)}),
        ("--switch here", {"place": "here", "switch": True}),
        ("--choice on here", {"place": "here", "choice": "on"}),
        ("-- --switch", {"place": "--switch"}),
        ("-2^3 --2", {"place": "-2^3", "rest": ("--2",)}),
        ("-", {"place": "-"}),
        ("here --hidden 2", {"hidden": 2.0}),
        ("here --whole 3 --whole=4 --switch --switch", {"whole": 4, "switch": True}),
        (
            "-sqrt(2) -a.b --name -sqrt(2)",
            {"place": "-sqrt(2)", "rest": ("-a.b",), "name": "-sqrt(2)"},
        ),
    ],
)
def test_values_as_they_are_typed(words: str, values: dict[str, Any]) -> None:
    assert given(Sample, words.split()) == {"place": "here", **values}


def test_values_with_spaces_hyphens_and_equals_signs() -> None:
    words = ["my pictures", "--name", "a = b", "-c d", "--", "-e"]
    assert given(Sample, words) == {"place": "my pictures", "name": "a = b", "rest": ("-c d", "-e")}
    assert given(Sample, ["x", "--name=--switch"])["name"] == "--switch"
    assert given(Sample, ["x", "--name=a=b"])["name"] == "a=b"
    assert given(SampleConfig, ["--num_images", "3"]) == {"num_images": 3}


@drawn(st.integers(), st.floats(allow_nan=False), st.lists(st.floats(allow_nan=False), min_size=1))
def test_every_number_is_read_as_it_is_written(whole: int, number: float, several: list) -> None:
    words = ["x", "--whole", str(whole), f"--number={number}", "--several", *map(repr, several)]
    # "-inf" and "-nan" look like flags; a sign of equality makes them values.
    if any(repr(value).lstrip("-") == "inf" for value in several):
        words, several = words[: -len(several) - 1], []
    found = given(Sample, words)
    assert (found["whole"], found["number"]) == (whole, number)
    assert found.get("several", ()) == tuple(several)


@drawn(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip))
def test_every_text_is_read_as_it_is_written(text: str) -> None:
    assert given(Sample, ["x", f"--name={text}"])["name"] == text
    assert given(Sample, ["--", text]) == {"place": text}


@drawn(st.lists(st.text(max_size=8) | st.sampled_from(["--whole", "-n", "--", "--x", "-1", "="])))
def test_any_words_are_values_or_one_complaint(words: list[str]) -> None:
    with suppress(ValueError):
        build(Sample, given(Sample, words), "sample PLACE")


def test_a_flag_knows_its_field() -> None:
    flags = {flag.name: flag for flag in flags_of(Sample)}
    assert list(flags) == [field.name for field in fields(Sample)]
    assert flags["whole"].spellings == ("--whole", "-n")
    assert flags["whole"].form == "--whole INT"
    assert flags["choice"].form == "--choice auto|on"
    assert flags["several"].form == "--several FLOAT ..."
    assert flags["place"].form == "PLACE"
    assert flags["seed"].owner is Below
    assert [flag.name for flag in flags.values() if not flag.listed] == ["hidden"]
    recipe = next(flag for flag in flags_of(TrainConfig) if flag.name == "recipe")
    assert not recipe.has_flag


def test_texts_are_those_below_the_fields() -> None:
    assert texts_of(Sample) == {"seed": "From the base.", "whole": "A whole number, on two lines."}
    missing = {field.name for field in fields(TrainConfig)} - set(texts_of(TrainConfig))
    assert not missing
