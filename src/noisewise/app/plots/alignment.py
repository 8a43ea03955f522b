"""A figure: how close an adapter's next step is to that of full fine-tuning, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from noisewise.app.plots.svg import Series, curves

if TYPE_CHECKING:
    from noisewise.adapters import Alignment

# A drawing in a file of its own has no page that sets its colours.
_STYLE = (
    "<style>svg{--series-1:#0b63a5;--series-2:#c2540a;--line:#dfe0dc;"
    "font-family:sans-serif}</style>"
)


def alignment_figure(found: Alignment, step: Literal["sgd", "adam"] = "sgd") -> str:
    """Draw residual and bound of each layer as one SVG document, ready for a file.

    No point is below the line of the bound: no step of that rank is closer.

    Args:
        found: as `noisewise.adapters.alignment` returns it.
        step: "sgd", or "adam" for the first step of Adam.

    Raises:
        ValueError: if step is neither.
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
        label_y="distance to the step of full fine-tuning (1: as far as no step)",
        title=f"One {step} step of an adapter, compared with full fine-tuning, layer by layer",
    )
    opening = drawn.index(">") + 1
    return drawn[:opening] + _STYLE + drawn[opening:]
