"""The measured shift of noise levels, and how much of the spread of mean colours a sampler keeps.

For each set: the share of variance that remains after averaging s x s pixels, the factor on noise
levels that follows, and the deviation of mean colours. From it, for sides of 32 to 1024 pixels, the
generated over the real deviation of the mean colour, when the sampler starts at one level for all
sizes (40) and where the plan starts it. The denoiser is the exact one of a Gaussian, so nothing is
trained. Photographs come from a folder: 256 x 256 pixels are cut out of each at random places.

    python -m benchmarks.pictures.noise_shift --data FOLDER --pictures photographs=FOLDER
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.shared import harness, summaries
from noisewise.diffusion import HEUN, karras_sigmas
from noisewise.pictures.noise_curve import mean_colour_sd, noise_curve
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.noise_plan import SMALL, measured_scale, start_for

NAME = "pictures/noise_shift"
FIGURE = harness.FIGURES / "noise_shift.png"
DRAWINGS = {
    "3D emoji, 128 px": ("fluent_emoji_3d_128.npz", 1),
    "3D emoji, 64 px": ("fluent_emoji_3d_64.npz", 1),
    "dungeon tiles, 32 px times 4": ("dungeon_tiles_32.npz", 4),
}
SIDES = (32, 64, 128, 256, 512, 1024)
OLD = TeacherRecipe().sigma_max
STEPS = (5, 10, 60)  # noise levels of the sampler
CROP = 256  # pixels: side of what is cut out of a photograph
MOST = 512  # pictures of a set
_FILES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def drawings(file: Path, times: int) -> np.ndarray:
    """Pictures of a set, uint8 [n, size, size, 3]; `times` repeats each pixel."""
    with np.load(file) as stored:
        images = stored["images"]
    chosen = np.random.default_rng(0).permutation(len(images))[:MOST]
    return images[chosen].repeat(times, axis=1).repeat(times, axis=2)


def photographs(folder: Path) -> np.ndarray:
    """Squares cut out of the photographs in a folder, uint8 [n, 256, 256, 3].

    Raises:
        harness.UsageError: if there is no large enough picture.
    """
    from PIL import Image

    found = []
    for path in sorted(p for p in folder.glob("*") if p.suffix.lower() in _FILES):
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        if min(pixels.shape[:2]) >= CROP:
            found.append(pixels)
    if not found:
        raise harness.UsageError(f"{folder} has no picture of {CROP} x {CROP} pixels or more.")
    generator = np.random.default_rng(0)
    squares = []
    for _ in range(-(-MOST // len(found))):
        for pixels in found:
            top, left = (generator.integers(0, side - CROP + 1) for side in pixels.shape[:2])
            squares.append(pixels[top : top + CROP, left : left + CROP])
    return np.stack(squares)


def spread(deviation: float, sigma_max: float, steps: int) -> float:
    """Generated over real deviation of a Gaussian coefficient, with Heun's sampler.

    Args:
        deviation: of the coefficient; its exact denoiser is ``x s^2 / (s^2 + sigma^2)``.
        sigma_max: first noise level.
        steps: number of noise levels.
    """

    def denoiser(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        return x * (deviation**2 / (deviation**2 + sigma[:, None] ** 2))

    one = torch.ones(1, 1, dtype=torch.float64)  # the sampler is linear here: one number is enough
    levels = karras_sigmas(steps, 0.05, sigma_max, dtype=torch.float64)
    *_, last = HEUN.states(denoiser, one, levels, None)
    return float(last.x0.item()) / deviation


def measure(images: np.ndarray) -> harness.Values:
    """Curve, factor and deviation of one set, and the spread of its mean colour by side."""
    size = images.shape[1]
    curve, colour = noise_curve(images), mean_colour_sd(images)
    values: harness.Values = {
        "size": size,
        "pictures": len(images),
        "curve_sides": list(curve),
        "curve": list(curve.values()),
        "noise_scale": measured_scale(images, size)[0],
        "formula": size / SMALL,
        "colour": colour,
    }
    for side in SIDES:
        new = start_for(OLD, side * colour) if side > SMALL else OLD
        values[f"start_{side}"] = new
        for name, start in (("old", OLD), ("new", new)):
            values[f"exact_{name}_{side}"] = start / math.hypot(start, side * colour)
            for steps in STEPS:
                values[f"heun{steps}_{name}_{side}"] = spread(side * colour, start, steps)
    return values


def tables(results: harness.Results) -> list[str]:
    """The factors, then the spreads."""
    cells = results.cells({})
    factors, spreads = [], []
    for cell in cells:
        v = cell.number
        shares = ", ".join(
            f"{side:g}: {share:.2f}"
            for side, share in zip(cell.numbers("curve_sides"), cell.numbers("curve"), strict=True)
        )
        shown = [cell.values["pictures"], shares, v("noise_scale"), v("formula"), v("colour")]
        factors.append([cell.setting["set"], *shown])
        for side in SIDES:
            row = [cell.setting["set"], side, v(f"exact_old_{side}"), v(f"start_{side}")]
            row += [v(f"exact_new_{side}")]
            row += [v(f"heun{steps}_new_{side}") for steps in STEPS]
            spreads.append(row)
    calls = [f"in {HEUN.num_calls(steps)} calls" for steps in STEPS]
    return [
        "Share of the variance that remains after averaging s x s pixels; the factor on noise "
        "levels; the deviation of mean colours along the colour where it is largest.",
        summaries.table(
            ["set", "pictures", "s: share", "noise_scale", "of flat pictures", "deviation"], factors
        ),
        f"Generated over real deviation of the mean colour. The sampler starts at {OLD:g} (old) or "
        f"where the plan starts it (new; up to {SMALL} pixels that is {OLD:g}). Exact: endless "
        "steps. In few calls Heun's steps widen it.",
        summaries.table(
            ["set", "side", "exact, old", "new start", "exact, new", *calls], spreads
        ),
    ]  # fmt: skip


def draw(results: harness.Results, path: Path) -> bool:
    """Draw curves and spreads as PNG; False if no set is finished."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = results.cells({})
    if not cells:
        return False
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for k, cell in enumerate(cells):
        name, colour = str(cell.setting["set"]), f"C{k}"
        left.plot(
            cell.numbers("curve_sides"), cell.numbers("curve"), marker="o", color=colour, label=name
        )
        for kind, style in (("old", "--"), ("new", "-")):
            y = [100 * float(cell.number(f"exact_{kind}_{side}") or 0) for side in SIDES]
            right.plot(SIDES, y, style, marker="o", color=colour)
    right.plot([], [], "--", color="black", label=f"start at {OLD:g} for every size")
    right.plot([], [], "-", color="black", label="start as planned (up to 32 px: 40)")
    left.set(
        xscale="log", xlabel="averaged s x s pixels", ylabel="share of the variance, v(s) / v(1)",
        ylim=(0, 1.05), title="What averaging leaves of the pictures",
    )  # fmt: skip
    right.axhline(90, color="grey", linewidth=0.8)
    right.set(
        xscale="log", xlabel="side, pixels", ylabel="% of the real spread", ylim=(0, 105),
        title="Spread of mean colours, exact denoiser",
    )  # fmt: skip
    scales = (1, 2, 4, 8, 16, 32, 64, 128)
    low, beside = {"loc": "lower left"}, {"loc": "center right", "bbox_to_anchor": (1.0, 0.68)}
    for axes, ticks, place in ((left, scales, low), (right, SIDES, beside)):
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.legend(fontsize=8, **place)  # pyrefly: ignore[bad-argument-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return True


def main() -> None:
    """Measure the missing sets, print the tables, draw the figure."""
    parser = harness.parser("The measured shift of noise levels, and the spread of mean colours.")
    parser.add_argument(
        "--pictures",
        action="append",
        default=[],
        help="NAME=FOLDER of photographs; may be repeated",
    )
    arguments = parser.parse_args()
    threads = harness.use_threads(arguments.threads)
    results = harness.Results(
        harness.results_file(arguments, NAME), harness.environment(threads), arguments.redo
    )
    sets: dict[str, Callable[[], np.ndarray]] = {}
    for given in arguments.pictures:
        name, _, folder = given.partition("=")
        if not folder:
            raise harness.UsageError(f"--pictures {given}: write NAME=FOLDER.")
        sets[name] = lambda folder=folder: photographs(Path(folder))
    for name, (file, times) in DRAWINGS.items():
        sets[name] = lambda file=file, times=times: drawings(
            harness.data_file(arguments.data, file), times
        )
    if not arguments.table_only:
        for name, read in sets.items():
            part = slice(64 if arguments.quick else None)
            results.cell({"set": name}, lambda read=read, part=part: measure(read()[part]))
    figure = harness.work_folder(arguments, NAME) / "noise_shift.png" if arguments.quick else FIGURE
    if draw(results, figure):
        harness.note(f"figure: {figure}")
    harness.publish(results, "One measured shift of noise levels", tables(results))


if __name__ == "__main__":
    harness.run_program(main)
