"""noisewise: measure the noise, then decide.

    import noisewise

    run = noisewise.train("folder of pictures", out="runs/x", budget="5m")
    generator = noisewise.distill(run, budget="5m")
    pictures = generator.sample(64, seed=0)  # float [64, channels, size, size] in [-1, 1]
    print(noisewise.evaluate(run))

The names below are loaded when they are first used; importing noisewise does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noisewise.app.report import report
    from noisewise.train.adaptation import adapt
    from noisewise.train.api import distill, load, plan, train
    from noisewise.train.evaluation import evaluate
    from noisewise.train.inspection import inspect
    from noisewise.train.run import Run

__all__ = ["Run", "adapt", "distill", "evaluate", "inspect", "load", "plan", "report", "train"]

_HOMES = {
    "Run": "noisewise.train.run",
    "adapt": "noisewise.train.adaptation",
    "distill": "noisewise.train.api",
    "evaluate": "noisewise.train.evaluation",
    "inspect": "noisewise.train.inspection",
    "load": "noisewise.train.api",
    "plan": "noisewise.train.api",
    "report": "noisewise.app.report",
}


def __getattr__(name: str) -> object:
    if name == "train":  # the package is the verb, see noisewise/train/__init__.py
        return import_module("noisewise.train")
    if name not in _HOMES:
        raise AttributeError(f"module 'noisewise' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
