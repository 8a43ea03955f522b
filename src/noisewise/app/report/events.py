"""What happened in a run, the bad first: the page starts with what a reader must not miss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from noisewise.app.report.contents import Contents
from noisewise.app.report.facts import Event, Way
from noisewise.pictures.sources import HARMLESS, read_skipped
from noisewise.training.run.run import STAGES, Run
from noisewise.training.stages.record import TROUBLE

_TOO_MANY_SKIPPED = 0.05
_FEW_COPIES = 0.005  # a smaller share says nothing about some hundreds of pictures


def events(contents: Contents, ways: tuple[Way, ...]) -> tuple[Event, ...]:
    """What happened, in the order of the page: bad events first.

    Args:
        contents: of the run.
        ways: with their copy tests.
    """
    records = contents.records
    logged = [Event(r.stage, r.seconds, r.event, r.kind in TROUBLE) for r in records if r.event]
    return (
        *(event for event in logged if event.bad),
        *_poor(ways),
        *_state_of_run(contents),
        *_copying(ways),
        *_skipped(contents.run),
        *(event for event in logged if not event.bad),
    )


def _poor(ways: tuple[Way, ...]) -> Iterator[Event]:
    """Ways whose pictures anybody tells from real ones at a glance."""
    for way in ways:
        if way.found is not None and way.verdict == "poor":
            text = f"the pictures are poor: {way.found['verdict_reason']}. {_way_out(way, ways)}"
            yield Event(way.name, None, text, True)


def _way_out(way: Way, ways: tuple[Way, ...]) -> str:
    """What to do about poor pictures: a generator is hardly better than its teacher."""
    teacher = next((other for other in ways if other.kind == "teacher"), None)
    if way.kind == "teacher":
        return 'Train it longer ("What to do next"), or give it more pictures'
    if teacher is not None and teacher.verdict not in ("poor", ""):
        return f"Its teacher is {teacher.verdict}: distil it again for longer"
    return "Train its teacher longer first, then distil again"


def _state_of_run(contents: Contents) -> Iterator[Event]:
    """A generator of an earlier teacher, a damaged run.json, stages that are not finished."""
    run = contents.run
    clean = run.places.cleaner()
    if stale := run.stale_generator():
        yield Event("generator", 0.0, clean(stale), True)
    if run.warning:
        yield Event("run", 0.0, clean(run.warning), True)
    for stage in STAGES:
        here = [r for r in contents.records if r.stage == stage]
        notes = run.stage(stage)
        if not here or notes.finished:
            continue
        text = "this stage is not finished; run the same command again to resume it"
        if notes.failed:
            text = "this stage failed too often and ended; start again in a new folder"
        yield Event(stage, here[-1].seconds, text, True)


def _copying(ways: tuple[Way, ...]) -> Iterator[Event]:
    """Ways that copy more often than chance, and more often than real pictures look like copies."""
    for way in ways:
        if way.found is not None and (near := (way.found["copies"] or {}).get("near")) is not None:
            yield from _near_copying(way.name, near)
        copies = way.copies
        if copies is None:
            continue
        unseen = copies.held_out_fraction or 0.0
        if copies.low > max(unseen, _FEW_COPIES):
            text = (
                f"at least {100 * copies.low:.1f}% of the pictures copy a training picture; "
                f"only {100 * unseen:.1f}% of the real held-out pictures look like copies"
            )
            yield Event(way.name, None, text, True)


def _near_copying(name: str, near: Mapping[str, Any]) -> Iterator[Event]:
    """Near copies beyond what real unseen pictures show."""
    if near["low"] > max(near["allowed"], _FEW_COPIES):
        text = (
            f"at least {100 * near['low']:.1f}% of the pictures are near copies of training "
            f"pictures; of real unseen pictures, {100 * near['allowed']:.1f}% look so"
        )
        yield Event(name, None, text, True)


def _skipped(run: Run) -> Iterator[Event]:
    """Many files of the source that could not be used."""
    count = sum(read_skipped(item).code not in HARMLESS for item in run.data.skipped)
    if count > _TOO_MANY_SKIPPED * (count + run.data.num_pictures):
        text = f'{count:,} files were skipped, more than 5%; the reasons are under "The data"'
        yield Event("data", 0.0, text, True)
