"""tyro's private hook still gives what is translated; without it there is a plain sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import tyro

from noisewise.app.flag_errors import near, one_sentence
from noisewise.app.flags import flags_of
from noisewise.app.tyro_flags import given
from noisewise.training.settings.shown import Shown


@dataclass(frozen=True, kw_only=True)
class Options:
    """One field of every type that tyro may refuse."""

    place: Annotated[str, Shown("PLACE", positional=True)]
    size: int | None = None
    lr: float = 0.5
    several: tuple[float, ...] = ()
    name: str = "x"
    net: Literal["auto", "unet"] = "auto"
    switch: bool = False


class Told(Exception):
    """Carries an event out of tyro."""


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        ("x --sise 3", "UnrecognizedArgs", "there is no flag --sise; perhaps you meant --size"),
        ("x y", "UnrecognizedArgs", "'y' is one word too many; put a name with spaces in quotes"),
        ("x --size", "BadValue", "--size needs a value; write --size INT"),
        ("x --name -a", "BadValue", "--name needs a value; write --name NAME, or --name=VALUE if"),
        ("x --net une", "InvalidChoice", "--net takes auto or unet, not 'une'; perhaps you meant"),
        ("x --size a", "InstantiationFailure", "--size takes a whole number, not 'a'"),
        ("x --lr=a: ", "InstantiationFailure", "--lr takes a number, not 'a:'"),
        (
            "x --several 1 a",
            "InstantiationFailure",
            "--several takes a number, several with spaces between",
        ),
    ],
)
def test_the_installed_tyro_gives_each_event_that_is_translated(
    words: str, kind: str, sentence: str
) -> None:
    """When this fails, tyro has changed, and flag_errors has to follow."""

    @dataclass
    class Same:
        place: tyro.conf.Positional[str]
        size: int | None = None
        lr: float = 0.5
        several: tuple[float, ...] = ()
        name: str = "x"
        net: Literal["auto", "unet"] = "auto"
        switch: bool = False

    def tell(event: object) -> None:
        raise Told(event)

    with tyro._errors.on_parse_error(tell), pytest.raises(Told) as caught:
        tyro.cli(Same, args=words.split())
    (event,) = caught.value.args
    assert type(event).__name__ == kind
    if kind == "UnrecognizedArgs":
        assert event.tokens[0] in words.split()
    else:
        assert event.argument.field.intern_name in words
    if kind == "InvalidChoice":
        assert (event.value, event.choices) == ("une", ("auto", "unet"))
    if kind == "InstantiationFailure":
        assert "'a" in event.message
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        given(Options, words.split())
    assert sentence in str(refused.value)


PLAIN = "the flags cannot be read; noisewise train --help lists them"


def refusal(words: Sequence[str], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        given(Options, words, "noisewise train")
    assert capfd.readouterr() == ("", "")
    return str(refused.value)


@pytest.mark.parametrize("words", [["x", "--siz", "3"], ["x", "--size", "a"], ["x", "--size"]])
def test_a_tyro_without_the_hook_leaves_a_plain_sentence_and_draws_nothing(
    words: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tyro._errors, "on_parse_error")
    assert refusal(words, capfd) == PLAIN
    monkeypatch.delattr(tyro, "_errors")
    assert refusal(words, capfd) == PLAIN


class BadValue:
    """An event with a known name and none of its fields."""


@pytest.mark.parametrize("event", [object(), BadValue()])
def test_an_event_of_a_later_tyro_leaves_a_plain_sentence(event: object) -> None:
    flags = {flag.name: flag for flag in flags_of(Options)}
    told: Any = event
    with (
        pytest.raises(ValueError, match=PLAIN),
        one_sentence(flags, [], "noisewise train", str),
    ):
        tyro._errors._fire(told)


def test_the_near_word_is_told_or_nothing() -> None:
    assert near("colour", ["color"]) == "; perhaps you meant color"
    assert near("x", ["color"]) == ""
