"""What `noisewise lr advise | curves | watch` do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisewise.app.commands.lr_options import (
    LrAdviseOptions,
    LrCurvesOptions,
    LrOptions,
    LrWatchOptions,
)

if TYPE_CHECKING:
    from noisewise.scaling import Measurement

_PICTURES = (".svg", ".png", ".pdf")


def carry_out_lr(options: LrOptions) -> int:
    """Do what one of the three asks for.

    Raises:
        ValueError: one sentence about what the user can mend.
    """
    if isinstance(options, LrAdviseOptions):
        return _advise(options)
    if isinstance(options, LrCurvesOptions):
        return _curves(options)
    return _watch(options)


def _checked_picture(path: str, flag: str) -> Path:
    """Refuse a picture of another kind, or for a folder that is not there, before any work."""
    target = Path(path)
    if target.suffix.lower() not in _PICTURES:
        raise ValueError(f"{flag} {path}: a picture ends in {', '.join(_PICTURES)}")
    if not target.parent.is_dir():
        raise ValueError(f"{flag} {path}: there is no folder {target.parent}")
    return target


def _advise(options: LrAdviseOptions) -> int:
    picture = None if options.plot is None else _checked_picture(options.plot, "--plot")
    from noisewise.scaling import Measurement, advise

    advice = advise(
        Measurement.load(options.measurement),
        batch=options.batch,
        hold=options.hold,
        lr=options.lr,
        batch0=options.batch0,
    )
    values, text = advice.to_dict(), advice.text()
    if picture is not None:
        from noisewise.app.plots.lr_advice import draw_advice

        draw_advice(advice, picture)
        values["plot"] = str(picture)
        text += f"\npicture        {picture}"
    print(json.dumps(values, allow_nan=False) if options.json else text, flush=True)
    return 0


def _curves(options: LrCurvesOptions) -> int:
    picture = _checked_picture(options.out, "--out")
    from noisewise.app.plots.lr_advice import draw_panels
    from noisewise.app.plots.lr_theory import panels

    found = panels(options.epsilons, options.signal)
    draw_panels(found, picture)
    values = {"out": str(picture), "panels": [panel.to_dict() for panel in found]}
    lines = [str(picture)]
    for panel in found:
        for line in panel.lines:
            end = "rises to the end" if line.peak is None else f"falls beyond B = {line.peak:.3g}"
            lines.append(f"{panel.title}, epsilon {line.epsilon:g}: {end}")
    print(json.dumps(values, allow_nan=False) if options.json else "\n".join(lines), flush=True)
    return 0


def _watch(options: LrWatchOptions) -> int:
    from noisewise.scaling import Measurement

    path, seen = Path(options.measurement), None
    while True:
        if options.once or path.exists():
            at = path.stat().st_mtime_ns if path.exists() else None
            if at is None or at != seen:
                _tell(Measurement.load(path), options.json)
                seen = at
        if options.once:
            return 0
        time.sleep(options.every)


def _tell(found: Measurement, as_json: bool) -> None:
    """One line about one measurement."""
    values: dict[str, Any] = {
        name: getattr(found, name).to_dict()
        for name in ("g2", "trace_sigma", "b_simple", "b_noise")
    }
    values |= {"batch": found.batch, "lr": found.optimizer.lr, "warnings": list(found.warnings)}
    if as_json:
        print(json.dumps(values, allow_nan=False), flush=True)
        return
    scale = "noise scale" if not found.b_noise.known else "B_noise"
    value = found.b_noise if found.b_noise.known else found.b_simple
    line = f"batch {found.batch or 0:g}, lr {found.optimizer.lr:.3g}: {scale} {value} examples"
    print("; ".join([line, *found.warnings]), flush=True)
