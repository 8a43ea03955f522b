"""How they differ: marked places, missing classes, notes that hold for every way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from noisewise.app.report.collect import gather
from noisewise.app.report.differing import marks
from noisewise.app.report.facts import NearCopies, Worst
from noisewise.app.report.page import render
from noisewise.training.run.run import Run

NUM_IMAGES = 128


def test_only_places_with_clear_evidence_are_marked() -> None:
    grey = np.full((2, 16, 16, 1), 100, np.uint8)
    evidence = np.zeros((2, 4, 4))
    evidence[0, 0, 3], evidence[1] = 2.0, 0.9
    (plain, marked), places = marks(Worst(grey, evidence))
    assert places == 1
    assert plain.shape == marked.shape == (2, 80, 80, 3)
    changed = (plain != marked).any(-1)
    assert changed[0, :20, 60:].all()
    assert changed.sum() == 400


def test_classes_that_are_not_drawn_are_named(distilled_run: Path) -> None:
    facts = gather(Run.open(distilled_run), NUM_IMAGES)
    way, *_ = facts.ways
    assert way.found is not None
    one = {"share": 0.01, "low": 0.0, "high": 0.02, "real": 0.4, "verdict": "missing"}
    rest = {**one, "name": "<b>", "share": 0.99, "real": 0.6, "verdict": "as real"}
    found = {**way.found, "class_shares": [{**one, "name": "cats"}, rest]}
    text = render(replace(facts, ways=(replace(way, found=found),)))
    assert "Missing: cats (one call)." in text
    assert "<b></td>" not in text  # a name is text, whatever signs it holds


def test_what_a_test_cannot_tell_is_said_in_words(distilled_run: Path) -> None:
    """A low share of near copies is no news if the test finds few of those that were planted."""
    facts = gather(Run.open(distilled_run), 64)
    way, *rest = facts.ways
    assert way.found is not None
    near = {**way.found["copies"]["near"], "power": 0.1, "can_tell": False}
    found = {**way.found, "copies": {**way.found["copies"], "near": near}}
    black = np.zeros((4, 16, 16, 3), np.uint8)
    test = NearCopies("It finds only 10%.", False, black, black, (True, False, False, False))
    blind = replace(way, found=found, near_copies=test)
    text = render(replace(facts, ways=(blind, *rest)))
    assert "near copies: this test cannot tell here" in text
    assert "It finds only 10% of planted ones: a low number does not show" in text
    assert "Counted as near copies: 1." in text
