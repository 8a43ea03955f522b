"""The model card: what people read where a generator is published."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from noisewise.training.models.model_card import model_card
from noisewise.training.models.model_config import ModelConfig

FLOORS = {"value": 4.0, "low": 3.0, "high": 5.0, "chance": 2.0}
FLOORS |= {"num_images": 128, "num_real": 300}
CONFIG = ModelConfig(
    kind="generator",
    net={},
    sigma_data=0.5,
    size=28,
    channels=3,
    noise={},
    classes=("cat", 'the "dog"'),
    label_histogram=(5, 7),
    sigma_init=2.5,
    two_call_sigma=0.3,
    stats={"floors": FLOORS | {"value": 0.5, "low": 0.4, "high": 0.6}},
)
RUN: dict[str, Any] = {
    "data": {"num_pictures": 1200, "fingerprint": "0123456789abcdef0123", "source": "/home/me"},
    "stages": {
        "teacher": {"images": 64000, "seconds": 300.4, "floors": FLOORS},
        "generator": {"images": 32000, "seconds": 299.6},
    },
}


def test_it_says_what_the_model_is_how_good_and_how_to_use_it() -> None:
    card = model_card("my run", CONFIG, RUN)
    for words in (
        "# my run",
        "colour pictures of 28 x 28 pixels",
        '| classes | cat, the "dog" |',
        "`generator.sample(64, label='cat')`",
        "calls=2",
        "1,200; fingerprint 0123456789abcdef |",
        "trained on 64,000 images (with repetition) in 300 s |",
        "trained on 32,000 generated images in 300 s |",
        "one call, from its teacher's pictures | 0.5 (0.4 to 0.6) | as its teacher |",
        "two calls | surely fewer",
        "| teacher, from real pictures | 4.0 (3.0 to 5.0) | visibly different |",
    ):
        assert words in card
    assert "/home/me" not in card  # where the pictures lie is nobody's business
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    compile(code, "card", "exec")


def test_it_fits_what_is_known() -> None:
    plain = replace(
        CONFIG, classes=(), label_histogram=(), two_call_sigma=None, stats={}, channels=1
    )
    run = {**RUN, "stages": {"generator": {"images": 8, "seconds": 1.0, "failed": "it diverged"}}}
    card = model_card("x", plain, run)
    assert "grey pictures" in card
    assert "| classes | none |" in card
    assert "label=" not in card
    assert "calls=2" not in card
    assert "| teacher | unknown |" in card
    assert "not finished because training failed" in card
    assert card.count("| not measured | not measured |") == 2
    assert "two calls" not in card
    names = tuple(f"kind {number}" for number in range(1, 31))
    kinds = replace(CONFIG, classes=names, label_histogram=(1,) * 30)
    card = model_card("x", kinds, {**RUN, "data": {**RUN["data"], "kinds": "a digest"}})
    assert "| classes | 30 kinds: groups of similar pictures, found automatically |" in card
    assert "One kind only: `generator.sample(64, label='kind 1')`" in card
    many = model_card("x", kinds, RUN)
    assert "kind 20 and 10 more |" in many
