"""What the report does for readers: classes, values of charts, what to do, times, links, rights."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from export_models import CLASSES, UNET, models
from noisewise.app.plots import svg
from noisewise.app.report.by_class import class_section, class_sheets
from noisewise.app.report.chart_values import value_table
from noisewise.app.report.contents import Contents
from noisewise.app.report.events import events
from noisewise.app.report.facts import ClassSheet, Facts, Way, WayKind
from noisewise.app.report.page import render
from noisewise.app.report.timing import times_in_turns
from noisewise.pictures.pictures import Pictures
from noisewise.training.run.run import Run
from noisewise.training.training_set import TrainingSet

BLACK = np.zeros((8, 8, 8, 1), np.uint8)
FACTS = Facts(
    name="run", path="run", size=8, channels=1, num_pictures=9, source="pictures",
    has_teacher=True, has_generator=True,
)  # fmt: skip


def test_each_class_has_its_sheet() -> None:
    generator = models({**UNET, "num_classes": 3})[1]
    sheets = class_sheets(generator, None, 0)
    assert [sheet.name for sheet in sheets] == list(CLASSES)
    for sheet in sheets:
        drawn = svg.as_pixels(generator.sample(8, 0, sheet.name))
        assert np.array_equal(sheet.generated, drawn)
        assert sheet.real is None
    page = render(replace(FACTS, ways=(Way("one_call", 1, BLACK),), class_sheets=sheets))
    assert "8 generated pictures of right" in page
    assert class_sheets(models(UNET)[1], None, 0) == ()  # it knows no classes


def test_real_pictures_of_a_class_are_those_that_were_held_out() -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
    labels = np.arange(40) % 3
    pictures = Pictures(images, labels, ("up", "left", "right"), (), (), "", "", ())
    training = TrainingSet(pictures, np.arange(10), np.arange(10, 40), False)
    sheets = class_sheets(models({**UNET, "num_classes": 3})[1], training, 0)
    for sheet, label in zip(sheets, (1, 2, 0), strict=True):  # by name, not by number
        assert sheet.real is not None
        assert sheet.real[:, 0, 0, 0].tolist() == [i for i in range(10, 40) if i % 3 == label][:8]


def test_the_headline_says_in_how_many_calls_it_draws() -> None:
    one, few = (Way(kind, calls, BLACK) for kind, calls in (("one_call", 1), ("few_calls", 4)))
    teacher = Way("teacher", 9, BLACK)
    assert "A one-call generator of" in render(replace(FACTS, ways=(one, teacher)))
    page = render(replace(FACTS, ways=(few, teacher)))
    assert "A 4-call generator of" in page
    assert "one-call" not in page


def test_sheets_of_many_classes_stay_small() -> None:
    """The page must not grow with the number of classes."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)
    sheets = tuple(ClassSheet(f"class {i}", noise, noise) for i in range(24))
    facts = replace(FACTS, size=64, channels=3, ways=(Way("one_call", 1, noise),))
    assert class_section(facts, 1.0) == ""
    whole = class_section(replace(facts, class_sheets=sheets), 1.0)
    assert whole.count("<figure>") == 24
    assert "3 generated pictures of class 23; below: 3 real ones" in whole


def test_the_values_of_a_chart_can_be_read_without_a_pointer() -> None:
    x = list(range(100))
    lines = [svg.Series("up & down", x, [value**2 + 1 for value in x])]
    drawing = svg.curves(lines, label_x="x", label_y="y", title="squares")
    table = value_table(drawing, "squares")
    rows = re.findall(r"<tr><td>([\d.e+]+)</td><td>([\d.e+]+)</td></tr>", table)
    assert len(rows) == 8
    assert (rows[0], rows[-1]) == (("0", "1"), ("99", "9802"))
    assert all(float(y) == pytest.approx(float(x) ** 2 + 1, rel=1e-3) for x, y in rows)
    assert "up &amp; down" in table
    assert value_table("<svg></svg>", "nothing") == ""


def test_poor_pictures_come_with_a_way_out(distilled_run: Path) -> None:
    contents = Contents.read(Run(distilled_run))

    def said(verdicts: dict[WayKind, str]) -> list[str]:
        ways = tuple(
            Way(kind, 1, BLACK, found={"verdict": word, "verdict_reason": "far", "copies": None})
            for kind, word in verdicts.items()
        )  # fmt: skip
        return [one.text for one in events(contents, ways) if "poor" in one.text]

    assert "Train it longer" in said({"teacher": "poor"})[0]
    assert "distil it again" in said({"one_call": "poor", "teacher": "close"})[0]
    assert "Train its teacher longer" in said({"one_call": "poor", "teacher": "poor"})[0]
    assert not said({"one_call": "close", "teacher": "close"})


def test_a_load_that_comes_and_goes_slows_all_ways_alike() -> None:
    """A clock that runs faster and faster: measured one after the other, the last would lose."""
    now = [0.0]

    def draw(count: int) -> None:
        now[0] += count * 0.001 * (1 + now[0])

    first, second = times_in_turns([draw, draw], 16, 5, lambda: now[0])
    assert first == pytest.approx(second, rel=0.03)
    alone = times_in_turns([draw], 16, 5, lambda: now[0])[0]
    assert alone > 1.05 * first


def test_a_slow_way_takes_few_turns() -> None:
    now, turns = [0.0], [0, 0]

    def drawing(which: int, seconds: float):  # noqa: ANN202
        def draw(_: int) -> None:
            turns[which] += 1
            now[0] += seconds

        return draw

    times = times_in_turns([drawing(0, 0.016), drawing(1, 8.0)], 16, 5, lambda: now[0])
    assert turns == [5, 1]
    assert times == [pytest.approx(0.001), pytest.approx(0.5)]


def test_licence_note_date_and_links_are_shown() -> None:
    page = render(
        replace(FACTS, license="cc0-1.0", note="For <me>", written="1 May 2026 by noisewise 1")
    )
    assert "Licence: cc0-1.0." in page
    assert "For &lt;me&gt;" in page
    assert "Written 1 May 2026 by noisewise 1." in page
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert links
    assert all(f'<section id="{link}">' in page for link in links)
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert "Licence" not in render(FACTS)
