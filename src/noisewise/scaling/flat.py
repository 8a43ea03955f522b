"""The trainable parameters of a model as one vector, fixed while they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Flat", "Loss", "along", "gradient", "gram"]

Loss = Callable[[nn.Module, Any], Tensor]
_PIECE = 1 << 20  # numbers converted to float64 at a time: 8 MiB


class Flat:
    """The trainable parameters of a model as one vector; the model stays fixed meanwhile.

    Args:
        model: its trainable parameters in `named_parameters` order; shared ones count once.
        seed: seed of dropout and other randomness inside the model. Calls with the same `draw` see
            the same random numbers, so two losses differ only by the weights. Calls with different
            draws see independent random numbers, so only the signal is common to them.
        trained: parameters that an optimiser holds; None: all trainable parameters.

    Raises:
        ValueError: for a model without trainable parameters.

    Example:
        >>> Flat(nn.Linear(2, 3)).num_parameters
        9
    """

    def __init__(
        self, model: nn.Module, seed: int = 0, trained: Sequence[Tensor] | None = None
    ) -> None:
        """Read the names and shapes of the parameters."""
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        if trained is not None:
            held = {id(parameter) for parameter in trained}
            named = [(n, p) for n, p in named if id(p) in held]
        if not named:
            raise ValueError(
                "The model has no trainable parameter: there is no gradient to measure."
            )
        self.model = model
        self.seed = seed
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.num_parameters = sum(p.numel() for p in self.parameters)

    def slices(self) -> dict[str, slice]:
        """Columns of each parameter."""
        found, start = {}, 0
        for name, parameter in zip(self.names, self.parameters, strict=True):
            found[name] = slice(start, start + parameter.numel())
            start += parameter.numel()
        return found

    def join(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """One vector from one tensor per parameter; None counts as zeros."""
        pairs = zip(tensors, self.parameters, strict=True)
        return torch.cat(
            [(p.new_zeros(p.numel()) if t is None else t.reshape(-1)) for t, p in pairs]
        )

    def split(self, vector: Tensor) -> list[Tensor]:
        """One tensor per parameter, from a vector [p]."""
        pieces = vector.split([p.numel() for p in self.parameters])
        return [
            piece.view_as(p).to(p.dtype) for piece, p in zip(pieces, self.parameters, strict=True)
        ]

    def vector(self) -> Tensor:
        """A copy of the parameters, [p]."""
        return self.join([p.detach() for p in self.parameters]).clone()

    @contextmanager
    def still(self, draw: int = 0) -> Iterator[None]:
        """Fix the model's random numbers to those of a draw; restore its buffers afterwards.

        Micro-batches need different draws: with the same dropout mask or noise levels for all, the
        noise of the mask stays in the mean of any number of gradients.
        """
        buffers = [(b, b.detach().clone()) for b in self.model.buffers()]
        devices = {p.device.index for p in self.parameters if p.device.type == "cuda"}
        with torch.random.fork_rng(sorted(d for d in devices if d is not None)):
            torch.manual_seed(self.seed + draw)
            try:
                yield
            finally:
                with torch.no_grad():
                    for buffer, before in buffers:
                        buffer.copy_(before)

    @contextmanager
    def moved(self, by: Tensor) -> Iterator[None]:
        """Move the parameters by a vector [p]; restore the same bits afterwards."""
        before = [p.detach().clone() for p in self.parameters]
        try:
            with torch.no_grad():
                for parameter, piece in zip(self.parameters, self.split(by), strict=True):
                    parameter.add_(piece)
            yield
        finally:
            with torch.no_grad():
                for parameter, old in zip(self.parameters, before, strict=True):
                    parameter.copy_(old)


def checked_loss(flat: Flat, loss: Loss, batch: object) -> Tensor:
    """The loss, checked; call it inside `flat.still()`."""
    value = loss(flat.model, batch)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ValueError("The loss must return one number, the mean over the batch, as a tensor.")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise ValueError(
            "The loss has no graph: do not detach it or compute it inside torch.no_grad()."
        )
    return value.reshape(())


def gradient(flat: Flat, loss: Loss, batch: object, draw: int = 0) -> Tensor:
    """Return the gradient of the loss on one batch, [p], leaving `.grad` and buffers untouched.

    Args:
        flat: the model's parameters.
        loss: `loss(model, batch)`, the mean over the batch, a scalar.
        batch: what the loss takes.
        draw: number of the draw of the model's random numbers, see `Flat`; use a different one
            for each micro-batch.

    Raises:
        ValueError: for a loss without a graph, or a gradient that is not finite.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> gradient(Flat(model), lambda m, x: m(x).sum(), torch.tensor([[1.0, 2.0]])).tolist()
        [1.0, 2.0]
    """
    with flat.still(draw), torch.enable_grad():
        found = torch.autograd.grad(
            checked_loss(flat, loss, batch),
            flat.parameters,
            allow_unused=True,
            materialize_grads=True,
        )
    joined = flat.join(found).detach()
    if not bool(joined.isfinite().all()):
        raise ValueError(
            "The gradient is not finite (NaN or inf): measure where training is stable, or use "
            "float32 instead of float16."
        )
    return joined


def gram(rows: Tensor, scale: Tensor | None = None) -> Tensor:
    """Inner products of all rows, ``sum_i scale_i a_i b_i``, float64 [n, n] on the CPU.

    Works on some columns at a time, because the rows alone may fill the memory.
    """
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    columns = max(1, _PIECE // len(rows))
    for start in range(0, rows.shape[1], columns):
        part = slice(start, start + columns)
        exact = rows[:, part].double()
        other = exact if scale is None else exact * scale[part].double()
        total += (exact @ other.T).cpu()
    return total


def along(rows: Tensor, vector: Tensor) -> Tensor:
    """Inner product of each row with a vector [p], float64 [n] on the CPU, piece by piece."""
    total = torch.zeros(len(rows), dtype=torch.float64)
    columns = max(1, _PIECE // len(rows))
    for piece, part in zip(rows.split(columns, dim=1), vector.split(columns), strict=True):
        total += (piece.double() @ part.double()).cpu()
    return total
