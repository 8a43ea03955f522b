"""The figure of the theory of one-call distillation, from exact Gaussian cases.

Papers: Zhou et al. 2024 (SiD); Huang et al. 2024 (FGM); Su 2024. docs/theory.md tells the story and
has every derivation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from noisewise.app.plots.saving import save_figure
from noisewise.diffusion.gaussian_case import (
    descend,
    divergence,
    full_gradient,
    held_gradient,
    identity_error,
    widest,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#808080"
_COLOURS = {0.0: _GREY, 0.5: _BLUE, 1.0: _GREEN, 1.2: _ORANGE, 2.0: _RED}
_SIGMA = 1.0
_WIDTHS = torch.linspace(0.05, 2.5, 60).tolist()
_SIZE = (13.5, 8.2)


@dataclass(frozen=True)
class Ends:
    """Where descents ended: for each lambda and first width, whether at 1 or at infinity."""

    lam: float
    width: float
    converged: bool

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"lam": self.lam, "width": self.width, "converged": self.converged}


def ends() -> tuple[Ends, ...]:
    """Descend by the loss itself from a grid of lambdas and widths, at sigma 1.

    Example:
        >>> found = ends()
        >>> all(one.converged == (one.width < widest(one.lam, 1.0)) for one in found)
        True
    """
    found = []
    for lam in (0.5, 1.0, 1.2, 1.5, 2.0, 2.5):
        for width in (0.2, 0.6, 1.3, 2.0, 3.0, 4.5):
            last = descend(width, _SIGMA, lam, lr=0.2, steps=150)[-1]
            found.append(Ends(lam, width, abs(last - 1) < abs(width - 1)))
    return tuple(found)


def draw_theory(path: Path, found: tuple[Ends, ...]) -> None:
    """Write the figure, six panels.

    Args:
        path: .svg, .png or .pdf; its folder must exist.
        found: from `ends`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    panels = (
        ("the mean of a picture can stand for it", _identity),
        ("what L1 leaves out, lambda 1/2 gives back", _gradients),
        ("the value says nothing: at lambda 1 it is 0", _values),
        ("L1 alone collapses, the others come back", _paths),
        ("above lambda 1, too broad a start runs away", lambda axes: _basin(axes, found)),
        ("a fake score that lags lets it overshoot", _lag),
    )
    for number, (axes, (title, draw)) in enumerate(
        zip(figure.subplots(2, 3).flat, panels, strict=True), 1
    ):
        draw(axes)
        axes.set_title(f"{number}. {title}", fontsize=10.5, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _identity(axes: Axes) -> None:
    counts = [10**k for k in range(2, 7)]
    generator = torch.Generator().manual_seed(0)
    errors = [identity_error(count, generator) for count in counts]
    for name, colour in zip(errors[0], (_BLUE, _ORANGE, _GREEN), strict=True):
        values = [error[name] for error in errors]
        axes.loglog(counts, values, "o-", color=colour, markersize=4, label=f"h = {name}")
    axes.loglog(counts, [c**-0.5 for c in counts], color=_GREY, linestyle="--", label="1 / sqrt n")
    axes.set_xlabel("samples n")
    axes.set_ylabel("|E h f_psi - E h x_g|, in deviations")
    axes.legend(frameon=False, fontsize=8)


def _gradients(axes: Axes) -> None:
    _line(axes, lambda b: held_gradient(b, _SIGMA, 0, only_l1=True), _GREY, "L1 alone, held")
    for lam in (0.5, 1.0, 1.2):
        _line(axes, lambda b, at=lam: 2 * held_gradient(b, _SIGMA, at), _COLOURS[lam], _named(lam))
    dots = _WIDTHS[::6]
    exact = [full_gradient(b, _SIGMA) for b in dots]
    axes.plot(dots, exact, "k.", markersize=7, label="the whole gradient of L1")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlabel("width b of the generator (the data's is 1)")
    axes.set_ylabel("gradient by b, 2 (L2 - lambda L1)")
    axes.legend(frameon=False, fontsize=8)


def _values(axes: Axes) -> None:
    for lam in (0.5, 1.0, 1.2):
        _line(axes, lambda b, at=lam: (1 - at) * divergence(b, _SIGMA), _COLOURS[lam], _named(lam))
    axes.set_xlabel("width b of the generator")
    axes.set_ylabel("L2 - lambda L1 = (1 - lambda) L1")
    axes.legend(frameon=False, fontsize=8)


def _paths(axes: Axes) -> None:
    for start in (0.1, 2.2):
        alone = descend(start, _SIGMA, 0, lr=0.2, steps=200, only_l1=True)
        axes.plot(alone, color=_GREY, label="L1 alone, held" if start < 1 else None)
        for lam in (0.5, 1.0, 1.2):
            path = descend(start, _SIGMA, lam, lr=0.2, steps=200)
            axes.plot(path, color=_COLOURS[lam], label=_named(lam) if start < 1 else None)
    axes.axhline(1, color="black", linewidth=0.6)
    axes.set_ylim(0, 2.3)
    axes.set_xlabel("step")
    axes.set_ylabel("width b")
    axes.legend(frameon=False, fontsize=8)


def _basin(axes: Axes, found: tuple[Ends, ...]) -> None:
    lams = torch.linspace(1.005, 2.6, 200).tolist()
    for sigma, colour in ((0.1, _BLUE), (_SIGMA, "black"), (3.0, _GREEN)):
        edge = [widest(lam, sigma) for lam in lams]
        axes.plot(lams, edge, color=colour, label=f"no return above, sigma {sigma:g}")
    for converged, style in ((True, "o"), (False, "x")):
        some = [one for one in found if one.converged == converged]
        label = f"{'comes to 1' if converged else 'runs away'}, sigma {_SIGMA:g}"
        axes.plot(
            [one.lam for one in some],
            [one.width for one in some],
            style,
            color=_GREEN if converged else _RED,
            markersize=5,
            label=label,
        )
    axes.set_ylim(0, 8.5)
    axes.set_xlabel("lambda")
    axes.set_ylabel("first width b")
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=7, loc="upper right")


def _lag(axes: Axes) -> None:
    for lam in (0.5, 1.2, 2.0):
        for share, style in ((1.0, "-"), (0.05, "--"), (0.02, ":")):
            path = descend(0.5, _SIGMA, lam, lr=0.2, steps=400, fake_share=share)
            label = f"{_named(lam)}; {share:.0%} of the lag a step"
            axes.plot(path, style, color=_COLOURS[lam], linewidth=1.4, label=label)
    axes.axhline(1, color="black", linewidth=0.6)
    axes.set_ylim(0, 4)
    axes.set_xlabel("step")
    axes.set_ylabel("width b")
    axes.legend(frameon=False, fontsize=7)


def _line(axes: Axes, value: Callable[[float], float], colour: str, label: str) -> None:
    axes.plot(_WIDTHS, [value(b) for b in _WIDTHS], color=colour, label=label)


def _named(lam: float) -> str:
    return f"lambda {lam:g}"
