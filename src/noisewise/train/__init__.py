"""Training: files, devices and time. Also the verb: ``noisewise.train("folder", out="runs/x")``.

The package is called like the verb of the public interface, and importing a package puts its name
into its parent, over any function there. So the package itself can be called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from noisewise.train.api import OnFile, OnRecord, Stop
    from noisewise.train.config import TrainConfig
    from noisewise.train.models import Build
    from noisewise.train.run import Run


class _Verb(ModuleType):
    """A package that can be called."""

    def __call__(
        self,
        path: str | Path,
        out: str | Path | None = None,
        budget: str | None = None,
        *,
        size: int | None = None,
        classes: bool | None = None,
        seed: int | None = None,
        config: TrainConfig | None = None,
        on_record: OnRecord | None = None,
        on_file: OnFile | None = None,
        stop: Stop | None = None,
        build: Build | None = None,
    ) -> Run:
        """Train a teacher on a folder of pictures; see `noisewise.train.api.train`."""
        from noisewise.train.api import train

        return train(
            path,
            out,
            budget,
            size=size,
            classes=classes,
            seed=seed,
            config=config,
            on_record=on_record,
            on_file=on_file,
            stop=stop,
            build=build,
        )


sys.modules[__name__].__class__ = _Verb
