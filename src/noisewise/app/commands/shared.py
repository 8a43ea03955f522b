"""What each command does: calls the library, prints the result, returns the exit code."""

from __future__ import annotations

import io
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, assert_never

from noisewise.app.commands.lr_options import (
    LrAdviseOptions,
    LrCurvesOptions,
    LrWatchOptions,
)
from noisewise.app.flags import (
    AdaptOptions,
    DistillOptions,
    EvaluateOptions,
    InspectOptions,
    Options,
    ReportOptions,
    SampleOptions,
    TrainOptions,
    plain,
)
from noisewise.app.terminal.notices import counted, told
from noisewise.app.terminal.progress import Progress, duration
from noisewise.app.terminal.signals import Stop
from noisewise.app.terminal.stderr import readable, tell
from noisewise.training.settings.config import (
    AdaptConfig,
    Budget,
    DistillConfig,
    EvaluateConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from noisewise.training.run.run import Run, StageName


def carry_out(options: Options, words: Sequence[str]) -> int:
    """Do what one command asks for.

    Args:
        options: the command's flags.
        words: the same as they were typed, for the line that goes on.

    Returns:
        The exit code.

    Raises:
        ValueError: one sentence about what the user can mend.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not isinstance(
        options, TrainOptions | DistillOptions
    ):
        raise ValueError("only train and distill run in several processes; start this one alone")
    match options:
        case InspectOptions():
            return _inspect(options)
        case TrainOptions():
            return _train(options, words)
        case AdaptOptions():
            return _adapt(options, words)
        case DistillOptions():
            return _distill(options, words)
        case SampleOptions():
            return _sample(options)
        case EvaluateOptions():
            return _evaluate(options)
        case ReportOptions():
            return _report(options)
        case LrAdviseOptions() | LrCurvesOptions() | LrWatchOptions():
            from noisewise.app.commands.lr import carry_out_lr

            return carry_out_lr(options)
        case _:
            assert_never(options)


def _show(values: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print a result on stdout: one JSON object, or lines for people; of several processes once."""
    if not _leads():
        return
    text = json.dumps(values, ensure_ascii=False) if as_json else text
    print(readable(text), flush=True)


def _inspect(options: InspectOptions) -> int:
    from noisewise.training.inspect import inspect

    _check_png(options.out)
    with Progress() as progress:
        found = inspect(
            options.folder, options.size, progress.count, options.crop, options.background
        )
    values = found.to_dict()
    text = found.text()
    if options.out is not None:
        from PIL import Image

        from noisewise.pictures.cache import replacing

        path = Path(options.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            Image.fromarray(found.contact_sheet).save(file, format="PNG")
        values["contact_sheet"] = str(path)
        text += f"\nContact sheet: {path}"
    _show(values, options.json, text)
    return 0


def _check_png(path: str | None) -> None:
    """Refuse a sheet of another kind before anything is read."""
    if path is not None and Path(path).suffix.lower() != ".png":
        raise ValueError(f"--out {path}: a sheet is written as PNG; give it the ending .png")


def _train(options: TrainOptions, words: Sequence[str]) -> int:
    if options.out is None and not options.dry_run:
        raise ValueError("say where the run shall live: --out RUN, for example --out runs/mine")
    from noisewise.training.train import plan, train

    config = plain(options, TrainConfig)
    if options.dry_run:
        derived = plan(options.folder, config, options.out).to_dict()
        return _dry_run(derived, config.budget, options.json)
    assert options.out is not None
    begin = partial(train, options.folder, options.out, config=config)
    return _watched(begin, options.out, config.amount, options.json, ["train", *words])


def _adapt(options: AdaptOptions, words: Sequence[str]) -> int:
    if options.out is None:
        raise ValueError("say where the new run shall live: --out RUN, for example --out runs/new")
    from noisewise.training.adapt import adapt

    config = plain(options, AdaptConfig)
    begin = partial(adapt, options.run, options.folder, options.out, config=config)
    return _watched(begin, options.out, config.amount, options.json, ["adapt", *words])


def _watched(
    begin: Callable[..., Run], out: str, budget: Budget, as_json: bool, words: Sequence[str]
) -> int:
    """Train with a display, end when asked to, and say how it went."""
    with Stop(_stream()) as stop, _progress(budget) as progress:
        try:
            run = begin(on_record=told(progress, out), on_file=counted(progress, stop), stop=stop)
        except KeyboardInterrupt:
            return stop.exit_code or 130
    return _trained(run, "teacher", stop, as_json, words)


def _distill(options: DistillOptions, words: Sequence[str]) -> int:
    from noisewise.training.distill import distill
    from noisewise.training.load import load
    from noisewise.training.run.run import Run
    from noisewise.training.stages.plan import student_values

    config = plain(options, DistillConfig)
    if options.dry_run:
        model = load(options.teacher or options.run, "teacher")
        values = student_values(config, model.config.sigma_data)
        derived = {k: {"value": v.value, "reason": v.reason} for k, v in values.items()}
        return _dry_run(derived, config.budget, options.json)
    with Stop(_stream()) as stop, _progress(config.amount) as progress:
        distill(
            options.run,
            teacher=options.teacher,
            config=config,
            on_record=progress.update,
            stop=stop,
        )
    run = Run.open(options.run)
    return _trained(run, "generator", stop, options.json, ["distill", *words])


def _leads() -> bool:
    """Whether this is the process that speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _progress(budget: Budget) -> Progress:
    return Progress(_stream(), seconds=budget.seconds, images=budget.images)


def _stream() -> TextIO | None:
    """Where notes go: to stderr, or nowhere."""
    return None if _leads() else io.StringIO()


def _dry_run(derived: Mapping[str, Mapping[str, Any]], budget: str, as_json: bool) -> int:
    """Print what would be used and why."""
    values = {"budget": budget, "derived": dict(derived)}
    lines = [f"budget: {budget}"]
    lines += [
        f"{name}: {json.dumps(item['value'])}\n    {item['reason']}"
        for name, item in derived.items()
    ]
    _show(values, as_json, "\n".join(lines))
    return 0


def _trained(run: Run, stage: StageName, stop: Stop, as_json: bool, words: Sequence[str]) -> int:
    """Say what a stage came to, and what comes next."""
    if not run.finished(stage):
        if _leads():
            tell(f"Saved. To go on: noisewise {shlex.join(words)}")
        # Nobody asked and it is not finished: the loop ended for a reason it has already told.
        return stop.exit_code or 1
    came_to = dict(run.info["stages"][stage])
    values = {"run": str(run.path), "stage": stage, "model": str(run.path / stage), **came_to}
    lines = [f"{stage}: {run.path / stage}", *_figures(came_to)]
    if stage == "teacher":
        lines.append(f"next: noisewise distill {run.path} --budget {came_to['budget']}")
    else:
        lines.append(f"next: noisewise sample {run.path} -n 64 --out {run.path}.png")
    lines.append(f"also: noisewise report {run.path}")
    _show(values, as_json, "\n".join(lines))
    return 0


def _figures(came_to: Mapping[str, Any]) -> list[str]:
    """The numbers of a finished stage, each on its line."""
    lines = [
        f"{came_to['steps']:,} steps, {came_to['images']:,} images, "
        f"{duration(came_to['seconds'])} of {came_to['budget']}"
    ]
    names = {
        "heldout_loss": "held-out loss",
        "distance": "distance",
        "distance_two_calls": "distance, two calls",
    }
    for key, name in names.items():
        if isinstance(came_to.get(key), float):
            lines.append(f"{name} {came_to[key]:.4f}")
    return lines


def _sample(options: SampleOptions) -> int:
    from noisewise.app.commands.sample import draw

    values, text = draw(options)
    _show(values, options.json, text)
    return 0


def _evaluate(options: EvaluateOptions) -> int:
    from noisewise.training.evaluate import evaluate

    with Progress() as progress:
        progress.note(f"drawing and judging {options.num_images:,} pictures")
        found = evaluate(options.run, config=plain(options, EvaluateConfig))
    copies = "not tested: the training pictures are gone"
    if found.copies is not None:
        copies = (
            f"{100 * found.copies['fraction']:.2f}% "
            f"(95%: {100 * found.copies['low']:.2f} to {100 * found.copies['high']:.2f}%)"
        )
    rows = [
        ("model", found.model),
        ("pictures", f"{found.num_images:,} against {found.against}"),
        (
            "distance",
            f"{found.distance:.4f} (95%: {found.distance_low:.4f} to {found.distance_high:.4f})",
        ),
        ("floor", f"{found.floor:.4f}, real pictures score less, 95 times in 100"),
        ("wasserstein", " ".join(f"{v:.4f}" for v in found.wasserstein) + ", coarse to fine"),
        ("copies", copies),
        ("speed", f"{1000 * found.seconds_per_image:.3g} ms a picture on {found.device}"),
        ("calls", f"{found.network_calls} a picture"),
    ]
    _show(found.to_dict(), options.json, _aligned(rows))
    return 0


def _aligned(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _report(options: ReportOptions) -> int:
    from noisewise.app.report.collect import report

    with Progress() as progress:
        tell: Callable[[str], None] = progress.note
        path = report(options.run, options.out, num_images=options.num_images, tell=tell)
    _show({"report": str(path), "bytes": path.stat().st_size}, options.json, f"report: {path}")
    return 0
