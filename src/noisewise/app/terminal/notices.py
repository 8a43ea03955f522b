"""What a person is told about the pictures when training begins, and how reading them stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from noisewise.app.terminal.progress import Progress, Record
from noisewise.app.terminal.signals import Stop
from noisewise.pictures.alpha import colours
from noisewise.pictures.sources import HARMLESS, Skipped, read_skipped
from noisewise.plain_text import printable
from noisewise.sizes import as_size, spelled


def counted(progress: Progress, stop: Stop) -> Callable[[int, int], None]:
    """Show how many files are read; the first signal ends reading with a KeyboardInterrupt.

    Nothing is lost: a cache of pictures is whole, or does not exist.
    """

    def count(done: int, total: int) -> None:
        if stop():
            raise KeyboardInterrupt
        progress.count(done, total)

    return count


def told(progress: Progress, run: str | Path) -> Callable[[Record], None]:
    """Show records; before the first one, how the pictures were read and what was left out."""
    waiting = True

    def tell(record: Record) -> None:
        nonlocal waiting
        if waiting:
            from noisewise.training.run.run_json import read_info

            waiting = False
            for line in account(read_info(Path(run))["data"]):
                progress.note(line)
        progress.update(record)

    return tell


def account(data: Mapping[str, Any]) -> list[str]:
    """One line each: the pictures used, files left out by reason, the judge, and every note.

    Args:
        data: the part of run.json about the pictures.

    Example:
        >>> skipped = [{"name": "b.png", "reason": "truncated"}]
        >>> some = {"num_pictures": 20, "size": 32, "channels": 1, "notes": ["3 pictures turned"]}
        >>> for line in account({**some, "skipped": skipped}):
        ...     print(line)
        pictures: 20 of 32 x 32 pixels, grey
        skipped: 1 truncated (b.png)
        note: 3 pictures turned
    """
    size, colour = as_size(data["size"]), colours(data["channels"])
    lines = [f"pictures: {data['num_pictures']:,} of {spelled(size)} pixels, {colour}"]
    skipped: dict[str, list[Skipped]] = {}
    for item in map(read_skipped, data["skipped"]):
        skipped.setdefault(item.code, []).append(item)
    for items in sorted(skipped.values(), key=lambda x: (x[0].code in HARMLESS, -len(x))):
        first, more = items[0], ", ..." if len(items) > 1 else ""
        lines.append(f"skipped: {len(items):,} {first.reason} ({printable(first.name)}{more})")
    if "judge_needs" in data:  # runs of older versions do not have it
        from noisewise.training.judge_needs import judge_in_words, num_judged_against

        num_real = num_judged_against(data["num_training"], data["num_held_out"])
        lines.append(f"judge: {judge_in_words(data['judge_needs'], num_real)}")
    return [*lines, *(f"note: {printable(note)}" for note in data["notes"])]


def warn_of_damage(folder: str | Path) -> None:
    """Tell if a run's run.json is damaged and its copy is read; for commands that only read."""
    from noisewise.app.terminal.stderr import tell
    from noisewise.training.files.run_folder import is_run
    from noisewise.training.run.run import Run

    path = Path(folder)
    if is_run(path) and (warning := Run(path).warning):
        tell(f"warning: {warning}")
