"""`noisewise.evaluate`: measures a run's pictures, and shows what is being done."""

from __future__ import annotations

from pathlib import Path

from noisewise.app.python.watching import display
from noisewise.training import evaluate as training
from noisewise.training.callbacks import OnPart
from noisewise.training.evaluation import Evaluation
from noisewise.training.models.model_folder import Build
from noisewise.training.run.run import Run
from noisewise.training.settings.config import EvaluateConfig


def evaluate(
    run: Run | str | Path,
    against: str | Path | None = None,
    *,
    data: str | Path | None = None,
    num_images: int | None = None,
    seed: int | None = None,
    config: EvaluateConfig | None = None,
    on_part: OnPart | None = None,
    build: Build | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Draw pictures from a run and measure them against real ones.

    Args:
        run: a run with a finished teacher, or its folder.
        against: folder, zip or npz of real pictures; None: the held-out pictures, or the training
            pictures if fewer than 256 are held out.
        data: where the training pictures lie now, if they were moved; the run notes it.
        num_images: how many pictures to draw.
        seed: of the pictures drawn.
        config: all settings; the arguments above replace its values.
        on_part: called with (what is being done, done, of all), after all settings are checked.
        build: makes the nets from their configuration; None: the nets of this package.
        progress: True: show what is being done; False: nothing; None: in a notebook and on a
            terminal.

    Raises:
        ValueError: if there is no model, there are no real pictures to compare with, or FID is
            asked for and cannot be measured.
    """
    with display(progress) as shown:

        def take(part: str, done: int, total: int) -> None:
            shown.part(part, done, total, "pictures")
            if on_part is not None:
                on_part(part, done, total)

        return training.evaluate(
            run,
            against,
            data=data,
            num_images=num_images,
            seed=seed,
            config=config,
            on_part=take,
            build=build,
        )
