"""How a loop weighs the losses of a step's micro-batches: each should count 1 / n, once.

The gradient of the whole loss with respect to a micro-batch's mean loss is its weight. It is read
where the model returns its loss, and, for cross-entropy, at the logits: there the gradient of a
row is its weight times ``softmax(z) - one_hot``. A sum of 1 over the step is a mean; a sum of n
means that nobody divided by the number of micro-batches, and 1 / n that it was done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Division", "LossWeights"]

Division = Literal["right", "not_divided", "divided_twice"]
_CLOSE = 0.02  # relative error of a weight
_ROWS = 64  # rows of logits that are looked at
_FIT = 2e-2  # relative error of a row's gradient as softmax - one_hot


class LossWeights:
    """The weights of the losses of one step.

    Example:
        >>> weights, loss = LossWeights(), torch.tensor(3.0, requires_grad=True)
        >>> for _ in range(4):
        ...     once = loss * 1
        ...     weights.watch(once, lambda hook: hook)
        ...     once.backward()
        >>> weights.division(4)
        'not_divided'
    """

    def __init__(self) -> None:
        """Nothing is seen yet."""
        self.clear()

    def clear(self) -> None:
        """Forget the present step."""
        self._weights: list[Tensor] = []
        self._own_mean = True

    def watch(
        self,
        output: object,
        around: Callable[[Callable[..., Any]], Callable[..., Any]],
        divided: bool = False,
    ) -> None:
        """Add a hook to what the model returned, if it is a loss or logits.

        Args:
            output: what the model returned.
            around: wraps the hook, see `Guard`.
            divided: whether the model divides its loss by the labels of the whole step; then each
                weight should be 1.
        """
        loss = _loss_of(output)
        if loss is not None:
            self._own_mean = not divided
            loss.register_hook(around(lambda g: self._weights.append(g.detach().reshape(()))))
            return
        logits = _logits_of(output)
        if logits is not None:
            values = logits.detach()
            logits.register_hook(around(lambda g: self._from_logits(values, g.detach())))

    def _from_logits(self, logits: Tensor, gradient: Tensor) -> None:
        weight = cross_entropy_weight(logits, gradient)
        if weight is not None:
            self._weights.append(weight)

    def division(self, num_micro: int, scale: float = 1.0) -> Division | None:
        """Return what the step's weights say; None if they were not seen, or say something else.

        Args:
            num_micro: micro-batches of the step, 2 or more.
            scale: that of a gradient scaler.
        """
        if num_micro < 2 or len(self._weights) != num_micro:
            return None
        total = float(torch.stack([w.float().cpu() for w in self._weights]).sum()) / scale
        right = 1.0 if self._own_mean else float(num_micro)
        for name, times in (
            ("right", 1.0), ("not_divided", float(num_micro)), ("divided_twice", 1 / num_micro)
        ):  # fmt: skip
            if abs(total / (right * times) - 1) < _CLOSE:
                return name
        return None


def _loss_of(output: object) -> Tensor | None:
    """The loss that a model returns: a scalar, `.loss`, ["loss"], or the first of a tuple."""
    found = output
    if isinstance(output, Mapping):
        found = output.get("loss")
    elif hasattr(output, "loss"):
        found = output.loss
    elif isinstance(output, tuple) and output:
        found = output[0]
    if isinstance(found, Tensor) and found.numel() == 1 and found.ndim == 0:
        return found if found.requires_grad else None
    return None


def _logits_of(output: object) -> Tensor | None:
    found = output.get("logits") if isinstance(output, Mapping) else output
    found = getattr(output, "logits", found)
    if isinstance(found, Tensor) and found.requires_grad and found.is_floating_point():
        return found if found.ndim >= 2 and min(found.shape[0], found.shape[-1]) > 0 else None
    return None


def cross_entropy_weight(logits: Tensor, gradient: Tensor) -> Tensor | None:
    """Return the weight of a mean cross-entropy, from the gradient of the logits; None: not one.

    ``gradient = weight / N (softmax(z) - one_hot)`` for N rows with a label.

    Args:
        logits: [..., classes] or [n, classes, ...].
        gradient: of the whole loss with respect to the logits.

    Example:
        >>> z, y = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 2, 1, 1, 0, 2])
        >>> (0.25 * torch.nn.functional.cross_entropy(z, y)).backward()
        >>> round(float(cross_entropy_weight(z.detach(), z.grad)), 4)
        0.25
    """
    for dim in {-1, 1}:
        if logits.shape[dim] < 2:
            continue
        z, g = (t.movedim(dim, -1).flatten(0, -2) for t in (logits, gradient))
        labelled = g.abs().amax(1) > 0
        rows = int(labelled.sum())
        if not rows:
            continue
        chosen = g.float().norm(dim=1).topk(min(rows, _ROWS)).indices  # far from rounding
        z, g = z[chosen].float(), g[chosen].float()
        want = z.softmax(1)
        want = want.scatter_add(1, g.argmin(1, keepdim=True), -want.new_ones(len(want), 1))
        weight = (g * want).sum(1) / want.square().sum(1)
        off = (g - weight[:, None] * want).norm(dim=1) / g.norm(dim=1)
        alike = float(weight.std(correction=0)) <= _FIT * float(weight.mean())
        if alike and float(off.max()) < _FIT:
            return weight.mean() * rows
    return None
