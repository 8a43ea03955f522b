"""Watching never ends somebody else's training: the first error of a hook ends only the watching.

Each hook and callback runs inside a `Guard`. After an exception the guard runs nothing any more,
says once why, and its owner removes the hooks. A wrong call while it is set up still raises.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Guard", "warn_once_only"]


class Guard:
    """Runs hooks until one fails.

    Args:
        stop: removes the hooks; called once, after the first failure.

    Attributes:
        reason: why the watching ended; None while it runs.

    Example:
        >>> import warnings
        >>> guard = Guard(lambda: None)
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     guard.around(lambda: 1 / 0)()
        >>> guard.reason, len(said)
        ('ZeroDivisionError: division by zero', 1)
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        """Nothing has failed yet."""
        self.reason: str | None = None
        self._stop = stop

    def around(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook that never raises; it returns None once anything has failed."""
        return _Hook(self, hook)

    def fail(self, reason: str) -> None:
        """End the watching and say why; further failures are not reported."""
        if self.reason is not None:
            return
        self.reason = reason
        try:
            self._stop()
        except Exception as error:  # handles of other wrappers; the user's training must go on
            self.reason += f" (and its hooks could not be removed: {error})"
        warn_once_only(
            f"noisewise no longer watches this training, which goes on unchanged; the reason was "
            f"{self.reason}"
        )


class _Hook:
    """A hook inside a guard.

    Inside a compiled graph it does nothing: torch.compile would build it into the graph. A pickled
    or copied model keeps an idle function of the standard library in its place, so that it can be
    saved at any time and loaded without this package.
    """

    def __init__(self, guard: Guard, act: Callable[..., Any]) -> None:
        self._guard, self._act = guard, act

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (any hook)
        if torch.compiler.is_compiling() or self._guard.reason is not None:
            return None
        try:
            return self._act(*args, **kwargs)
        except Exception as error:  # whatever fails here must not end the user's training
            self._guard.fail(f"{type(error).__name__}: {str(error).strip() or 'no message'}")
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (sys.audit, "noisewise.idle")


def warn_once_only(text: str) -> None:
    """Warn, even where warnings are errors: then it goes to the log, so that nothing is raised."""
    try:
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        logging.getLogger("noisewise.scaling").warning(text)
