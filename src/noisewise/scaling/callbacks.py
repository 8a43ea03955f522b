"""`watch` inside other people's loops: transformers' Trainer and Lightning's.

The libraries are imported when a callback is made, so this package needs only torch. Accelerate
needs no callback: `watch` finds the optimiser inside its wrapper, see docs/scaling.md.

A callback refuses a training that it cannot watch when it begins. After that nothing that it does
can end the training: the first error ends the watching, and is said once.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from noisewise.scaling.counting import examples_in
from noisewise.scaling.guard import Guard, warn_once_only
from noisewise.scaling.watch import Monitor, watch

if TYPE_CHECKING:
    import lightning
    import transformers

__all__ = ["lightning_callback", "trainer_callback"]

_PAUSE = 10.0  # seconds between two writes of the file


class _Holder:
    """What both callbacks share: the monitor, its file and its state."""

    def __init__(
        self,
        every: int,
        skip: int,
        save: str | os.PathLike[str] | None,
        batch: float | None,
        norms: bool | None,
    ) -> None:
        self.every, self.skip, self.batch, self.norms = every, skip, batch, norms
        self.save = save
        self.monitor: Monitor | None = None
        self.kept: dict[str, Any] = {}  # the state of an earlier part of the training
        self._guard = Guard(self.end_earlier)
        self._written, self._at = 0, 0.0

    def begin(
        self,
        model: Any,  # noqa: ANN401 (their types)
        optimizer: Any,  # noqa: ANN401
        grad_scale: Callable[[], float] | None = None,
        total_steps: int | None = None,
        batch: float | None = None,
    ) -> None:
        """Start to watch; after an earlier training make a new monitor: the model may differ."""
        self.end_earlier()
        self._guard = Guard(self.end_earlier)
        self._written = 0
        self.monitor = watch(
            model,
            optimizer,
            every=self.every,
            skip=self.skip,
            batch=self.batch or batch,
            norms=self.norms,
            total_steps=total_steps if total_steps and total_steps > 0 else None,
            grad_scale=grad_scale,
        )
        if self.kept:
            self._guard.around(self.monitor.load_state_dict)(self.kept)
            self.kept = {}

    def safely(self, act: Callable[[], Any]) -> Any:  # noqa: ANN401 (what it returns)
        """Do something that must not end the training."""
        return self._guard.around(act)()

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

    def write(self, first_process: bool, now: bool = False) -> None:
        """Save the measurement if there is a new one; not more often than every ten seconds."""
        if self.monitor is None or self.save is None or not first_process:
            return
        measured = self.monitor.noise.num_steps
        due = now or not self._written or time.monotonic() - self._at > _PAUSE
        if len(self.monitor.noise) >= 2 and measured != self._written and due:
            self.monitor.measurement().save(self.save)
            self._written, self._at = measured, time.monotonic()

    def finish(self, first_process: bool) -> None:
        """Remove the hooks and save; say why if nothing was measured."""
        if self.monitor is None:
            return
        self.monitor.remove()
        if len(self.monitor.noise) < 2 and first_process:
            missing = f" and {self.save} is not written" if self.save is not None else ""
            warn_once_only(f"noisewise measured nothing{missing}: {self.monitor.why_nothing()}")
        self.write(first_process, now=True)

    def saved_state(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return self.monitor.state_dict() if self.monitor is not None else self.kept


def trainer_callback(
    every: int = 20,
    save: str | os.PathLike[str] | None = None,
    *,
    skip: int = 4,
    batch: float | None = None,
    norms: bool | None = None,
) -> transformers.TrainerCallback:
    """Return a callback for transformers' Trainer.

    Set gradient_accumulation_steps to 2 or more; with 1, only the normalisation layers are
    measured. `callback.monitor` has the measurement; the Trainer's checkpoints include it. The log
    (also TensorBoard's) gets noise/b_simple_low, and noise/b_simple once the noise scale has an
    upper bound. If the Trainer divides the loss by the labels of a step (for a model that takes
    `num_items_in_batch`), sizes are counted in labels. If your `compute_loss_func` does so for
    another model, call `monitor.micro_batch` in it.

    Args:
        every: steps from one measurement to the next.
        save: file for the measurement, written as the training goes on (`noisewise lr watch`).
        skip: number of measurements to leave out at the start; 0 for a short training.
        batch: examples of a step; None: they are counted.
        norms: as in `watch`.

    Raises:
        ValueError: if transformers is not installed, or (when training starts) if there are several
            processes, or several devices in one process (DataParallel).
    """
    try:
        from transformers import TrainerCallback
        from transformers.trainer_callback import CallbackHandler, ExportableState
    except ImportError as error:
        raise ValueError("transformers is not installed: pip install transformers.") from error

    class NoiseCallback(TrainerCallback, ExportableState, _Holder):
        """Watches the gradients of a Trainer."""

        def __init__(self) -> None:
            _Holder.__init__(self, every, skip, save, batch, norms)

        def state(self) -> dict[str, Any]:
            """For the Trainer's checkpoints."""
            kept = self.safely(self.saved_state) or {}
            return {"args": {}, "attributes": {"kept": kept}}

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
            # The Trainer calls its callbacks in order, and those that report come first: they
            # would not see our numbers. It does not pass the list, so take it from the caller.
            frame = inspect.currentframe()
            handler = frame.f_back.f_locals.get("self") if frame and frame.f_back else None
            if isinstance(handler, CallbackHandler) and self in handler.callbacks:
                handler.callbacks = [self, *(c for c in handler.callbacks if c is not self)]
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
            stored = getattr(state, "stateful_callbacks", None)
            if isinstance(stored, dict):  # a checkpoint from before this callback was added
                found = stored.setdefault(type(self).__name__, self.state())
                found = found[0] if isinstance(found, list) and found else found
                if state.global_step and not self.kept and isinstance(found, dict):
                    self.kept = found.get("attributes", {}).get("kept", {})
            compiled = getattr(args, "torch_compile", False)  # then the inputs cannot be seen
            each = args.per_device_train_batch_size * args.gradient_accumulation_steps
            self.begin(
                kwargs["model"],
                kwargs["optimizer"],
                total_steps=state.max_steps,
                batch=each if compiled else None,
            )

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
            self.safely(lambda: self.write(state.is_world_process_zero))

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
            def add() -> None:
                for log in (kwargs.get("logs"), *state.log_history[-1:]):
                    if log is not None:
                        log.update(self.numbers())

            self.safely(add)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
            self.safely(lambda: self.finish(state.is_world_process_zero))

    return NoiseCallback()


def lightning_callback(
    every: int = 20,
    save: str | os.PathLike[str] | None = None,
    *,
    skip: int = 4,
    batch: float | None = None,
    norms: bool | None = None,
) -> lightning.Callback:
    """Return a callback for Lightning's Trainer.

    Set accumulate_grad_batches to 2 or more; with 1, only the normalisation layers are measured.
    `callback.monitor` has the measurement; Lightning's checkpoints include it. The log gets
    noise/b_simple_low, and noise/b_simple once the noise scale has an upper bound.

    Args:
        every: steps from one measurement to the next.
        save: file for the measurement, written as the training goes on (`noisewise lr watch`).
        skip: number of measurements to leave out at the start; 0 for a short training.
        batch: examples of a step; None: they are counted.
        norms: as in `watch`.

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
            _Holder.__init__(self, every, skip, save, batch, norms)

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
            if len(trainer.optimizers) != 1:
                raise ValueError(
                    f"The module has {len(trainer.optimizers)} optimisers, and this callback takes "
                    "one: call scaling.watch() for each optimiser."
                )
            model = trainer.strategy.model or pl_module
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            scale = None if scaler is None else scaler.get_scale
            total = self.safely(lambda: trainer.estimated_stepping_batches)
            total = int(total) if isinstance(total, (int, float)) and 0 < total < 1e12 else None
            self.begin(model, trainer.optimizers[0], scale, total)

        def on_train_batch_start(
            self,
            trainer: Any,  # noqa: ANN401
            pl_module: Any,  # noqa: ANN401
            batch: Any,  # noqa: ANN401
            batch_idx: int,
        ) -> None:
            def count() -> None:
                size = examples_in(batch)
                if self.monitor is not None and size:
                    self.monitor.micro_batch(size, weighted=False)  # Lightning weighs all equally

            self.safely(count)

        def on_train_batch_end(
            self,
            trainer: Any,  # noqa: ANN401
            pl_module: Any,  # noqa: ANN401
            outputs: Any,  # noqa: ANN401
            batch: Any,  # noqa: ANN401
            batch_idx: int,
        ) -> None:
            def tell() -> None:
                self.write(trainer.is_global_zero)
                logs = trainer.logger is not None
                if logs and trainer.global_step % trainer.log_every_n_steps == 0:
                    for name, value in self.numbers().items():
                        pl_module.log(name, value)

            self.safely(tell)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401
            self.safely(lambda: self.finish(trainer.is_global_zero))

        def state_dict(self) -> dict[str, Any]:
            return self.safely(self.saved_state) or {}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.kept = state_dict

    return NoiseCallback()
