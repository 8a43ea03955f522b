"""The log sinks that can be chosen by name. Nothing here imports their packages."""

from __future__ import annotations

from importlib.util import find_spec

from noisewise.app.sinks.sink import SinkType
from noisewise.app.sinks.tensorboard_sink import TENSORBOARD
from noisewise.app.sinks.wandb_sink import TRACKIO, WANDB

SINKS: tuple[SinkType, ...] = (TENSORBOARD, WANDB, TRACKIO)


def sink_named(name: str) -> SinkType:
    """The sink of this name.

    Raises:
        ValueError: if there is none, or its package is not installed.

    Example:
        >>> sink_named("mlflow")
        Traceback (most recent call last):
        ...
        ValueError: unknown log sink 'mlflow'; use one of tensorboard, wandb, trackio
    """
    for known in SINKS:
        if known.name != name:
            continue
        if find_spec(known.module) is None:
            raise ValueError(
                f"logging to {name} needs a package that is not installed; install it: "
                f"pip install {known.package}"
            )
        return known
    raise ValueError(
        f"unknown log sink {name!r}; use one of {', '.join(known.name for known in SINKS)}"
    )
