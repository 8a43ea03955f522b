"""The gradient noise during training: how many pictures a step could make use of.

Every few steps the batch is split into parts, and the gradient of each part is computed. Their
squared norms separate signal from noise (`noisewise.scaling`); their mean is the gradient of the
step, as always. For the cost see docs/results.md. The parts are parts of the whole batch: several
processes add up their shares of each part, so they measure the same as one process.

At a high learning rate the gradient mostly points along the sharp directions in which the weights
oscillate. The signal then looks large and the noise scale small; the scale rises as the rate falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisewise.scaling import Estimate, GradientNoise, Measurement
from noisewise.scaling.history import History
from noisewise.scaling.updates import OptimizerFacts
from noisewise.training.devices.processes import Ranks
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.batches import Batch
from noisewise.training.stages.plan import TeacherPlan

_PARTS = 4  # parts of the batch in a measured step
_WINDOW = 32  # the last measured steps that are used: the noise grows during training
_SKIPPED = 4  # measurements skipped at the start, while the gradient falls a hundredfold
_FEWEST = 8  # measured steps that a result needs


class NoiseScale:
    """tr Sigma / |g|^2 of the last measured steps, in pictures.

    Args:
        plan: batch and learning rate.
        recipe: optimiser, and how often to measure.
        ranks: the processes that share the batch.
        measures: whether to measure; False if the net is sharded and no process has the gradient.

    Source: McCandlish et al. 2018, appendix A.
    """

    def __init__(
        self, plan: TeacherPlan, recipe: TeacherRecipe, ranks: Ranks, measures: bool = True
    ) -> None:
        """Start without measurements."""
        self._ranks = ranks
        self._facts = optimizer_facts(recipe, plan.lr)
        self._batch = plan.batch
        own = len(range(plan.batch)[ranks.part(plan.batch)])
        self._most = max(1, math.ceil(own / plan.accumulate))  # pictures that fit into the memory
        self._every = recipe.noise_every if plan.batch >= _PARTS else 0
        self._measures = measures
        self._noise = GradientNoise(window=_WINDOW)
        self._history = History()  # the whole training: how far the noise scale moved
        self._num_parameters = 0
        self._value: float | None = None

    def num_parts(self, step: int) -> int:
        """Number of parts of this step's batch; it does not depend on the number of processes."""
        begun = step >= _SKIPPED * self._every
        return _PARTS if self._every and begun and step % self._every == 0 else 1

    def due(self, step: int) -> bool:
        """Whether this step is measured."""
        return self._measures and self.num_parts(step) > 1

    def backward(
        self, batch: Batch, loss_of: Callable[[Batch], Tensor], parameters: Iterable[Tensor]
    ) -> Tensor:
        """Compute the gradient of the batch into the parameters, and measure its noise.

        Args:
            batch: this process's share of the batch, drawn in `num_parts` parts.
            loss_of: returns the mean loss of a batch.
            parameters: the parameters to train.

        Returns:
            The mean loss of this process's share.
        """
        wanted = [p for p in parameters if p.requires_grad]
        total: list[Tensor] = [torch.zeros_like(p, dtype=torch.float32) for p in wanted]
        squares = torch.zeros((), device=batch.x0.device)
        loss = torch.zeros((), device=batch.x0.device)
        own = self._ranks.part(self._batch)
        for rows in _part_rows(self._batch):
            size = rows.stop - rows.start
            held = slice(max(rows.start, own.start), min(rows.stop, own.stop))
            if held.start < held.stop:
                piece = batch.rows(slice(held.start - own.start, held.stop - own.start))
                gradients = []
                for part in _pieces(piece, self._most):
                    found, more = _gradients(loss_of(part), wanted, len(part) / size)
                    loss += found * (len(part) / len(batch))
                    gradients = _added(gradients, more)
            else:
                gradients = [torch.zeros_like(t) for t in total]
            gradients = self._ranks.added(gradients)
            squares += size * _square(gradients)
            torch._foreach_add_(total, gradients, alpha=size / self._batch)
        for parameter, gradient in zip(wanted, total, strict=True):
            parameter.grad = gradient.to(parameter.dtype)
        self._num_parameters = sum(p.numel() for p in wanted)
        self._add(squares, _square(total), self._batch)
        return loss

    @property
    def value(self) -> float | None:
        """The noise scale in pictures; None until it has an upper bound."""
        return self._value

    def measurement(self) -> Measurement | None:
        """The measurement that `noisewise lr advise` reads; None before there is enough data."""
        if len(self._noise) < _FEWEST:
            return None
        return Measurement(
            noise=self._noise.read(),
            b_noise=Estimate.unknown(),
            optimizer=self._facts,
            batch=self._batch,
            size=self._batch / _PARTS,
            num_parameters=self._num_parameters,
            scales=tuple(self._history.scales()),
        )

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as JSON values."""
        return {
            "noise": self._noise.state_dict(),
            "num_parameters": self._num_parameters,
            "history": self._history.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self._noise.load_state_dict(state["noise"])
        self._num_parameters = state["num_parameters"]
        if "history" in state:  # older versions remembered the last steps only
            self._history.load_state_dict(state["history"])
        self._read()

    def _add(self, squares: Tensor, mean_square: Tensor, batch: int) -> None:
        pair = torch.stack([squares, mean_square]).cpu()
        if bool(pair.isfinite().all()):  # if not, the loop goes back anyway
            self._noise.add(pair[:1], pair[1:], _PARTS, batch)
            self._history.add(self._noise.num_steps, *self._noise.newest())
            self._read()

    def _read(self) -> None:
        if len(self._noise) >= _FEWEST:
            scale = self._noise.read().b_simple
            self._value = scale.value if scale.bounded else None


def optimizer_facts(recipe: TeacherRecipe, lr: float) -> OptimizerFacts:
    """Describe the recipe's main optimiser for the laws.

    Example:
        >>> optimizer_facts(TeacherRecipe(), 0.015).family
        'muon'
    """
    if recipe.optimizer == "muon":
        return OptimizerFacts("Muon", "muon", lr, recipe.momentum)
    beta1, beta2 = recipe.betas
    decay = recipe.weight_decay
    return OptimizerFacts(
        "AdamW", "adam", lr, beta1, beta2=beta2, epsilon=1e-8, weight_decay=decay, decoupled=True
    )


def _part_rows(batch: int) -> list[slice]:
    """Rows of each part; the first parts are one row longer if needed."""
    rows = np.array_split(np.arange(batch), _PARTS)
    return [slice(int(part[0]), int(part[-1]) + 1) for part in rows]


def _pieces(batch: Batch, most: int) -> list[Batch]:
    """The batch in pieces of at most so many pictures."""
    starts = range(0, len(batch), most)
    return [batch] if len(starts) == 1 else [batch.rows(slice(s, s + most)) for s in starts]


def _added(total: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    if not total:
        return more
    torch._foreach_add_(total, more)
    return total


def _gradients(loss: Tensor, wanted: list[Tensor], weight: float) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its float32 gradients times a weight; zeros for unused parameters."""
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    gradients = [
        torch.zeros_like(p, dtype=torch.float32) if g is None else g.float() * weight
        for g, p in zip(found, wanted, strict=True)
    ]
    return loss.detach().float(), gradients


def _square(gradients: list[Tensor]) -> Tensor:
    """Squared norm of all gradients together."""
    return torch.stack(torch._foreach_norm(gradients)).square().sum()
