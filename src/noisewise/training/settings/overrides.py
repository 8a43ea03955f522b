"""Arguments of a call go before the values of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

Config = TypeVar("Config")


def overridden(config: Config, given: Mapping[str, Any]) -> Config:
    """Return a configuration with the given values in it; those that are None change nothing.

    Args:
        config: a frozen dataclass.
        given: values by field name.

    Raises:
        ValueError: if the configuration refuses a value.

    Example:
        >>> from noisewise.training.settings.config import TrainConfig
        >>> overridden(TrainConfig(seed=3), {"budget": "1h", "seed": None}).seed
        3
    """
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(config, **changes) if changes else config  # pyrefly: ignore
