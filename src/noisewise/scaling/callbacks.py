"""`watch` inside other people's loops: transformers' Trainer and Lightning's.

The libraries are imported when a callback is made, so this package needs only torch. Accelerate
needs no callback: `watch` finds the optimiser inside its wrapper, see docs/scaling.md.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from noisewise.scaling.sources import examples_in
from noisewise.scaling.watch import Monitor, watch

if TYPE_CHECKING:
    import lightning
    import transformers

__all__ = ["lightning_callback", "trainer_callback"]


class _Holder:
    """What both callbacks share: the monitor, its file and its state."""

    def __init__(self, every: int, save: str | os.PathLike[str] | None) -> None:
        self.every = every
        self.save = save
        self.monitor: Monitor | None = None
        self.state: dict[str, Any] = {}

    def begin(
        self,
        model: Any,  # noqa: ANN401 (their types)
        optimizer: Any,  # noqa: ANN401
        grad_scale: Callable[[], float] | None = None,
    ) -> None:
        """Start to watch; after an earlier training make a new monitor: the model may differ."""
        if self.monitor is not None and self.monitor.watching:
            return
        self.monitor = watch(model, optimizer, every=self.every, grad_scale=grad_scale)
        if self.state:
            self.monitor.load_state_dict(self.state)
            self.state = {}

    def end_earlier(self) -> None:
        """Remove the hooks of an earlier training that was interrupted."""
        if self.monitor is not None:
            self.monitor.remove()

    def numbers(self) -> dict[str, float]:
        """Numbers for a log; empty until two steps are measured."""
        if self.monitor is None or len(self.monitor.noise) < 2:
            return {}
        noise = self.monitor.noise.read()
        found = {"noise/b_simple_low": noise.b_simple.low}
        if noise.identifiable:
            found["noise/b_simple"] = noise.b_simple.value
        return found

    def finish(self) -> None:
        if self.monitor is None:
            return
        self.monitor.remove()
        if self.save is not None and len(self.monitor.noise) >= 2:
            self.monitor.measurement().save(self.save)


def trainer_callback(
    every: int = 20, save: str | os.PathLike[str] | None = None
) -> transformers.TrainerCallback:
    """Return a callback for transformers' Trainer; set gradient_accumulation_steps to 2 or more.

    `callback.monitor` has the measurement. The log (also TensorBoard's) gets noise/b_simple_low,
    and noise/b_simple once the noise scale has an upper bound. If the Trainer divides the loss by
    the labels of a step (for a model that takes `num_items_in_batch`), sizes are counted in labels.
    If your `compute_loss_func` does so for another model, call `monitor.micro_batch` in it.

    Args:
        every: steps from one measurement to the next.
        save: file for the measurement, written when training ends.

    Raises:
        ValueError: if transformers is not installed, or (when training starts) if there are several
            processes, or several devices in one process (DataParallel).
    """
    try:
        from transformers import TrainerCallback
        from transformers.trainer_callback import CallbackHandler
    except ImportError as error:
        raise ValueError("transformers is not installed: pip install transformers.") from error

    class NoiseCallback(TrainerCallback, _Holder):
        """Watches the gradients of a Trainer."""

        def __init__(self) -> None:
            _Holder.__init__(self, every, save)

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
            self.end_earlier()
            # The Trainer calls its callbacks in order, and those that report come first: they
            # would not see our numbers. It does not pass the list, so take it from the caller.
            frame = inspect.currentframe()
            handler = frame.f_back.f_locals.get("self") if frame and frame.f_back else None
            if isinstance(handler, CallbackHandler) and self in handler.callbacks:
                handler.callbacks.remove(self)
                handler.callbacks.insert(0, self)

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
            if args.n_gpu > 1:
                raise ValueError(
                    f"DataParallel spreads each micro-batch over {args.n_gpu} devices and hides "
                    "their gradients: let the Trainer see one device (CUDA_VISIBLE_DEVICES=0)."
                )
            if args.world_size > 1:
                raise ValueError(
                    "The Trainer hides its DistributedDataParallel from callbacks: measure with "
                    "one process, or use scaling.watch() in your own loop."
                )
            self.begin(kwargs["model"], kwargs["optimizer"])

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
            for log in (kwargs.get("logs"), *state.log_history[-1:]):
                if log is not None:
                    log.update(self.numbers())

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
            self.finish()

    return NoiseCallback()


def lightning_callback(
    every: int = 20, save: str | os.PathLike[str] | None = None
) -> lightning.Callback:
    """Return a callback for Lightning's Trainer; set accumulate_grad_batches to 2 or more.

    `callback.monitor` has the measurement; Lightning's checkpoints include it. The log gets
    noise/b_simple_low, and noise/b_simple once the noise scale has an upper bound.

    Args:
        every: steps from one measurement to the next.
        save: file for the measurement, written when fitting ends.

    Raises:
        ValueError: if lightning is not installed, or (when fitting starts) if the module has
            several optimisers.
    """
    try:
        from lightning import Callback
    except ImportError as error:
        raise ValueError("lightning is not installed: pip install lightning.") from error

    class NoiseCallback(Callback, _Holder):
        """Watches the gradients of a LightningModule."""

        def __init__(self) -> None:
            _Holder.__init__(self, every, save)

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
            if len(trainer.optimizers) != 1:
                raise ValueError(
                    f"The module has {len(trainer.optimizers)} optimisers, and this callback takes "
                    "one: call scaling.watch() for each optimiser."
                )
            self.end_earlier()
            model = trainer.strategy.model or pl_module
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            scale = None if scaler is None else scaler.get_scale
            self.begin(model, trainer.optimizers[0], scale)

        def on_train_batch_start(
            self,
            trainer: Any,  # noqa: ANN401
            pl_module: Any,  # noqa: ANN401
            batch: Any,  # noqa: ANN401
            batch_idx: int,
        ) -> None:
            size = examples_in(batch)
            if self.monitor is not None and size:
                self.monitor.micro_batch(size, weighted=False)  # Lightning weighs all equally

        def on_train_batch_end(
            self,
            trainer: Any,  # noqa: ANN401
            pl_module: Any,  # noqa: ANN401
            outputs: Any,  # noqa: ANN401
            batch: Any,  # noqa: ANN401
            batch_idx: int,
        ) -> None:
            if trainer.logger is not None and trainer.global_step % trainer.log_every_n_steps == 0:
                for name, value in self.numbers().items():
                    pl_module.log(name, value)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
            self.finish()

        def state_dict(self) -> dict[str, Any]:
            return self.monitor.state_dict() if self.monitor is not None else self.state

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.state = state_dict

    return NoiseCallback()
