"""A figure of how nearly an adapter's next step follows full fine-tuning, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from noisewise.app.plots.svg import Series, curves

if TYPE_CHECKING:
    from noisewise.adapters import Alignment

# By itself a drawing has no page around it that would give its colours.
_STYLE = (
    "<style>svg{--series-1:#0b63a5;--series-2:#c2540a;--line:#dfe0dc;"
    "font-family:sans-serif}</style>"
)


def alignment_figure(found: Alignment, step: Literal["sgd", "adam"] = "sgd") -> str:
    """Draw residual and bound of each layer as one SVG document, to be written to a file.

    Below the line of the bound there is nothing: no step of that rank lies nearer.

    Args:
        found: as `noisewise.adapters.alignment` returns it.
        step: "sgd", or "adam" for the first step of Adam.

    Raises:
        ValueError: for another step.
    """
    if step not in ("sgd", "adam"):
        raise ValueError(f"step {step!r} is unknown; use sgd or adam")
    layers = [getattr(layer, step) for layer in found.layers.values()]
    places = [float(i) for i in range(1, len(layers) + 1)]
    drawn = curves(
        [
            Series(
                "residual of the adapter's step", places, [a.residual for a in layers], "points"
            ),
            Series("bound for its rank", places, [a.bound for a in layers]),
        ],
        label_x="layer, in the model's order",
        label_y="distance to full fine-tuning's step (1: as far as no step)",
        title=f"One {step} step of an adapter against full fine-tuning, layer by layer",
    )
    opening = drawn.index(">") + 1
    return drawn[:opening] + _STYLE + drawn[opening:]
