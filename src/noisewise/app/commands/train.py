"""`noisewise train`: a diffusion model from a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from noisewise.app.command import Command
from noisewise.app.config_file import save_settings
from noisewise.app.flags import plain
from noisewise.app.options import Folder, JsonOption, LogOption, NewRun, SettingsOptions
from noisewise.training.settings.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainConfig, JsonOption, SettingsOptions, LogOption):
    """Train a diffusion model on a folder of pictures.

    What you do not set is derived: --dry-run shows each value and its reason.

    Run the same command again to resume.
    """

    folder: Folder
    """Pictures: a folder (subfolders may be classes), .zip, .npz or .npy."""
    out: NewRun = None
    """Folder of the run: a new folder, or a run to resume. Not needed with --dry-run."""


def _train(options: TrainOptions, words: Sequence[str]) -> int:
    if options.out is None and not options.dry_run:
        raise ValueError("name a folder for the run: --out RUN, for example --out runs/mine")
    config = plain(options, TrainConfig)
    save_settings(options.save_config, config)
    from noisewise.app.terminal.training import show_plan, train_teacher
    from noisewise.training.train import plan, train

    if options.dry_run:
        planned = plan(options.folder, config, options.out)
        return show_plan(planned.to_dict(), config.budget, options.json, planned.notes)
    assert options.out is not None
    begin = partial(train, options.folder, options.out, config=config)
    return train_teacher(
        begin, options.out, config.amount, options.json, ["train", *words], options.log_to
    )


COMMAND = Command(
    name="train",
    usage="FOLDER --out RUN",
    summary="a diffusion model straight in pixels, within a time you name",
    options=TrainOptions,
    action=_train,
    examples=("noisewise train my_pictures --out runs/mine --budget 30m",),
    less_memory="use a smaller --batch, more parts of it with --accumulate, or a smaller --size",
    several_processes=True,
)
