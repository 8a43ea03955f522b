"""`noisewise adapt`: a run's teacher adapted to other pictures, as a new run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from noisewise.app.command import Command
from noisewise.app.config_file import save_settings
from noisewise.app.flags import plain
from noisewise.app.options import Folder, JsonOption, LogOption, NewRun, RunFolder, SettingsOptions
from noisewise.training.settings.config import AdaptConfig


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(AdaptConfig, JsonOption, SettingsOptions, LogOption):
    """Adapt a run's teacher to other pictures by training few weights.

    The result is a new run, ready for distill. Run the same command again to resume.
    """

    run: RunFolder
    """Run with a teacher, or the folder of a teacher."""
    folder: Folder
    """New pictures: a folder, .zip, .npz or .npy."""
    out: NewRun = None
    """Folder of the new run, or of one to resume. Not needed with --dry-run."""


def _adapt(options: AdaptOptions, words: Sequence[str]) -> int:
    if options.out is None and not options.dry_run:
        raise ValueError("name a folder for the new run: --out RUN, for example --out runs/new")
    config = plain(options, AdaptConfig)
    save_settings(options.save_config, config)
    from noisewise.app.terminal.training import show_plan, train_teacher
    from noisewise.training.adapt import adapt, plan_adapt

    if options.dry_run:
        planned = plan_adapt(options.run, options.folder, config)
        return show_plan(planned.to_dict(), config.budget, options.json, planned.notes)
    assert options.out is not None
    begin = partial(adapt, options.run, options.folder, options.out, config=config)
    return train_teacher(
        begin, options.out, config.amount, options.json, ["adapt", *words], options.log_to
    )


COMMAND = Command(
    name="adapt",
    usage="RUN FOLDER --out RUN",
    summary="a new run: RUN's teacher learns other pictures, by few weights",
    options=AdaptOptions,
    action=_adapt,
    examples=("noisewise adapt runs/mine more_pictures --out runs/more --budget 10m",),
    less_memory="use a smaller --batch",
)
