"""noisewise: measure the noise, then decide.

    import noisewise

    run = noisewise.train("folder of pictures", out="runs/x", budget="5m")
    generator = noisewise.distill(run, budget="5m")
    pictures = generator.sample(64, seed=0)  # float [64, channels, height, width] in [-1, 1]
    print(noisewise.evaluate(run))

The names below are loaded when they are first used; importing noisewise does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noisewise.app.python.adapt import adapt
    from noisewise.app.python.distill import distill
    from noisewise.app.python.evaluate import evaluate
    from noisewise.app.python.train import train
    from noisewise.app.report.collect import report
    from noisewise.training.inspect import inspect
    from noisewise.training.load import load
    from noisewise.training.models.any_teacher import as_teacher
    from noisewise.training.run.run import Run
    from noisewise.training.train import plan

__all__ = [
    "Run",
    "__version__",
    "adapt",
    "as_teacher",
    "distill",
    "evaluate",
    "inspect",
    "load",
    "plan",
    "report",
    "train",
]

_HOMES = {
    "Run": "noisewise.training.run.run",
    "adapt": "noisewise.app.python.adapt",
    "as_teacher": "noisewise.training.models.any_teacher",
    "distill": "noisewise.app.python.distill",
    "evaluate": "noisewise.app.python.evaluate",
    "inspect": "noisewise.training.inspect",
    "load": "noisewise.training.load",
    "plan": "noisewise.training.train",
    "report": "noisewise.app.report.collect",
    "train": "noisewise.app.python.train",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # a third of the time of a help text

        return version("noisewise")
    if name not in _HOMES:
        raise AttributeError(f"module 'noisewise' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
