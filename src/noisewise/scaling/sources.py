"""Other sources of micro-batches: data-parallel ranks and single examples.

Gradient accumulation needs nothing from here, because each backward pass shows its own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["per_sample_gradients", "rank_moments"]


def rank_moments(
    gradients: Sequence[Tensor],
    size: float,
    process_group: torch.distributed.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor, int, float]:
    """Return a data-parallel step's noise, from each rank's own gradients.

    These are `GradientNoise.add`'s four arguments, the same on every rank.

    Args:
        gradients: this rank's mean gradient, before any all-reduce; it is copied once.
        size: number of its examples.
        process_group: ranks to reduce over; None: all.

    Raises:
        ValueError: if torch.distributed is not initialised, or the group has only one rank.
    """
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        raise ValueError("torch.distributed is not initialised: call init_process_group() first.")
    ranks = dist.get_world_size(process_group)
    if ranks < 2:
        raise ValueError("One rank shows no noise: use two or more ranks, or accumulate gradients.")
    own = sum((g.detach().double().square().sum() for g in gradients), torch.zeros(()).double())
    numbers = torch.stack([size * own, torch.tensor(float(size), dtype=torch.float64)])
    dist.all_reduce(numbers, group=process_group)
    mean_square = torch.zeros(1, dtype=torch.float64)
    for gradient in gradients:
        total = gradient.detach() * size
        dist.all_reduce(total, group=process_group)
        mean_square += (total.double() / numbers[1]).square().sum()
    return numbers[:1], mean_square, ranks, float(numbers[1])


class _WithLoss(nn.Module):
    """Model and loss as one module, for torch.func.functional_call."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: object) -> Tensor:
        return self.loss(self.model, batch)


def per_sample_gradients(
    model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], batch: object
) -> Tensor:
    """Return the gradient of every example of a batch, [n, p], parameters in the model's order.

    Args:
        model: its trainable parameters are differentiated.
        loss: `loss(model, batch)`, a scalar; it is called with batches of one example.
        batch: tensor, tuple or dict of tensors; the first dimension counts examples.

    Raises:
        ValueError: for a model with batch norm in training mode, because its examples are not
            independent, or a model without trainable parameters.

    Source: torch.func's vmap of grad.

    Example:
        >>> model = nn.Linear(3, 1, bias=False)
        >>> x = torch.randn(5, 3)
        >>> rows = per_sample_gradients(model, lambda m, x: m(x).sum(), x)
        >>> bool(torch.allclose(rows, x))
        True
    """
    from torch.utils._pytree import tree_map

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if any(m.training for m in norms):
        raise ValueError(
            "Batch norm in training mode mixes the examples, so a single example has no gradient: "
            "call model.eval(), or use micro-batches."
        )
    both = _WithLoss(model, loss)
    values = {n: p.detach() for n, p in both.named_parameters() if p.requires_grad}
    if not values:
        raise ValueError("The model has no trainable parameter: there is no gradient to measure.")

    def of_one(parameters: dict[str, Tensor], example: object) -> Tensor:
        single = tree_map(lambda leaf: leaf.unsqueeze(0), example)
        return torch.func.functional_call(both, parameters, (single,))

    mapped = torch.func.vmap(torch.func.grad(of_one), (None, 0), randomness="different")
    found = mapped(values, batch)
    return torch.cat([found[name].flatten(1) for name in values], 1)
