"""Muon for weight matrices (steps of equal size in every direction), and Adam for the rest.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks",
kellerjordan.github.io/posts/muon, with the Newton-Schulz iteration given there. Convolutions are
flattened to [out, in * kh * kw].

Measured on Fashion-MNIST with 40 s on two CPU cores (single runs): Frechet distance 12.4 with Muon
at 0.01, 14.9 with Adam at 5e-3. Muon takes a tenth of the time at batch 64.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from noisewise.training.devices.sharding import gather, sharded_like

# First layers, last layers, embeddings and modulation are not hidden matrices: their rows or
# columns stand for pixels, frequencies or classes. A net can name its own in `adam_parameters`.
EDGES = ("inp", "out", "stem", "head", "patch", "unpatch")  # prefix of the first part of a name
EMBEDDINGS = ("emb", "cls", "class", "label", "pos", "noise", "freq")  # prefix of any part
MODULATION = ("e", "mod", "modulation")  # any part; also for nets with `adam_parameters`

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum: ``W -= lr max(1, rows / columns)^(1/2) NS(momentum + gradient)``.

    Args:
        params: weights with two or more dimensions; the first one is the output.
        lr: size of a step in spectral norm, about 0.01 to 0.02.
        momentum: decay of the momentum, in Nesterov's form.
        weight_decay: each step shrinks the weights by lr times this.
        steps: number of Newton-Schulz iterations.

    Raises:
        ValueError: if a parameter is a vector, or lr is not above 0.

    Source: Jordan et al. 2024.

    Example:
        >>> weight = nn.Parameter(torch.eye(4))
        >>> weight.grad = torch.diag(torch.tensor([1.0, 0.1, 0.01, 1.0]))
        >>> Muon([weight], lr=0.1).step()
        >>> bool((weight.diagonal() < 0.94).all())  # all directions move equally
        True
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.015,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
    ) -> None:
        """Check the parameters; see the class."""
        if not lr > 0:
            raise ValueError(f"the learning rate is {lr}; it must be above 0")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps}
        super().__init__(params, defaults)
        if any(p.ndim < 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon only trains matrices and convolutions; give vectors to Adam")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyrefly: ignore[bad-override]
        """Take one step."""
        assert closure is None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        buffers = [self._momentum(p) for p in params]
        gradients = [p.grad for p in params if p.grad is not None]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, buffers, group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        by_shape = defaultdict(list)
        for parameter, gradient in zip(params, ahead, strict=True):
            by_shape[parameter.shape].append((parameter, gradient))
        for alike in by_shape.values():  # one batched iteration for all matrices of one shape
            gathered = [gather(gradient) for _, gradient in alike]  # needs the whole matrix
            stacked = torch.stack([gradient.reshape(len(gradient), -1) for gradient in gathered])
            directions = orthogonalise(stacked, group["steps"])
            rows, columns = stacked.shape[-2:]
            step = -group["lr"] * max(1, rows / columns) ** 0.5
            for (parameter, _), direction in zip(alike, directions, strict=True):
                parameter.add_(sharded_like(direction.view(parameter.shape), parameter), alpha=step)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values of matrices to about 1 (0.7 to 1.2) by Newton-Schulz iteration.

    Args:
        matrices: float [batch, rows, columns].
        steps: number of iterations; 5 is enough for singular values above 1e-3 of the norm.

    Returns:
        About U V^T of each matrix, in the given shape and dtype. On a GPU it is computed in
        bfloat16.

    Source: Jordan et al. 2024, with the coefficients of its quintic polynomial.

    Example:
        >>> u = orthogonalise(torch.diag(torch.tensor([1.0, 0.1]))[None])
        >>> bool(((u.diagonal(dim1=1, dim2=2) > 0.6) & (u.diagonal(dim1=1, dim2=2) < 1.3)).all())
        True
    """
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    # X_k is a polynomial of X X^T times X: iterate on the small square matrix, and multiply by the
    # long one once at the end (a quarter of the multiplications for a 128 x 1152 convolution).
    square = x.square().sum((-2, -1), keepdim=True) + 1e-14
    gram = (x @ x.mT) / square
    product: Tensor | None = None
    for _ in range(steps):
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=-2, dim2=-1).add_(a)
        product = step if product is None else step @ product
        gram = step @ gram @ step
    assert product is not None
    x = (product @ x) * square.rsqrt()
    return (x.mT if tall else x).to(matrices.dtype)


class Optimizers:
    """Several optimisers used as one; each has its own learning rate, times a common factor.

    Loaded state gets the memory layout of the parameters. (A fused Adam reads its moments in memory
    order; if their layout differs from that of a channels-last weight, they are silently mixed up.)

    Args:
        optimizers: optimisers of different parameters.

    Example:
        >>> weight = nn.Parameter(torch.ones(1))
        >>> both = Optimizers([torch.optim.SGD([weight], lr=1.0)])
        >>> weight.grad = torch.ones(1)
        >>> both.step(lr_factor=0.25)
        >>> weight.item(), weight.grad
        (0.75, None)
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Store the learning rate of each optimiser."""
        self.optimizers = list(optimizers)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self._groups = [(group, float(group["lr"])) for group in groups]
        self.parameters = [p for group in groups for p in group["params"]]

    def step(self, lr_factor: float) -> None:
        """Take one step with lr times lr_factor, then clear the gradients."""
        for group, lr in self._groups:
            group["lr"] = lr * lr_factor
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of each optimiser (momenta, counts), without learning rates."""
        return [
            {str(i): dict(optimizer.state.get(p, {})) for i, p in enumerate(_members(optimizer))}
            for optimizer in self.optimizers
        ]

    @torch.no_grad()
    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restore the result of `state_dict`."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.state.clear()
            for i, parameter in enumerate(_members(optimizer)):
                saved = state[str(i)]
                if saved:
                    optimizer.state[parameter] = {
                        name: _in_layout(value, parameter) for name, value in saved.items()
                    }


def build_optimizers(
    net: nn.Module,
    name: str,
    lr: float,
    adam_lr: float,
    momentum: float = 0.95,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.0,
) -> Optimizers:
    """Make the optimisers of a net: "muon" (with Adam for the rest), or "adamw" for everything.

    Args:
        net: the net to train.
        name: "muon" or "adamw".
        lr: learning rate of Muon or AdamW.
        adam_lr: learning rate of Adam (first and last layers, embeddings, vectors) beside Muon.
        momentum: momentum of Muon.
        betas: betas of Adam.
        weight_decay: weight decay of the matrices.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3))
        >>> [type(o).__name__ for o in build_optimizers(net, "muon", 0.015, 0.005).optimizers]
        ['Muon', 'AdamW']
    """
    if name not in ("muon", "adamw"):
        raise ValueError(f"optimizer {name!r} is unknown; use muon or adamw")
    hidden, rest = split_parameters(net)
    if name == "adamw":
        decayed, plain = (
            [*hidden, *(p for p in rest if p.ndim > 1)],
            [p for p in rest if p.ndim < 2],
        )
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain}]
        return Optimizers([_adam(groups, lr, betas)])
    optimizers: list[torch.optim.Optimizer] = []
    if hidden:
        optimizers.append(Muon(hidden, lr, momentum, weight_decay))
    if rest:
        optimizers.append(_adam([{"params": rest}], adam_lr, betas))
    return Optimizers(optimizers)


def split_parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into hidden matrices (Muon) and the rest (Adam).

    The rest is first and last layers, embeddings, modulation and vectors. A net can list its first
    and last layers and embeddings in ``net.adam_parameters`` (prefixes of names); otherwise the
    names decide, see the top of this file.

    Example:
        >>> net = nn.ModuleDict({"inp": nn.Conv2d(1, 4, 3), "mid": nn.Conv2d(4, 4, 3)})
        >>> [len(part) for part in split_parameters(net)]  # mid.weight; the rest
        [1, 3]
    """
    own = getattr(net, "adam_parameters", None)
    hidden, rest = [], []
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        edge = name.startswith(tuple(own)) if own is not None else _is_outside(name)
        outside = edge or any(part in MODULATION for part in name.split("."))
        (rest if outside or parameter.ndim < 2 else hidden).append(parameter)
    return hidden, rest


def _is_outside(name: str) -> bool:
    parts = name.split(".")
    return parts[0].startswith(EDGES) or any(part.startswith(EMBEDDINGS) for part in parts)


def adam(
    parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """Fused Adam without weight decay."""
    return _adam([{"params": list(parameters)}], lr, betas)


def _adam(
    groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, weight_decay=0.0, fused=True)


def _members(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _in_layout(value: Any, parameter: Tensor) -> Any:  # noqa: ANN401 (any optimiser's state)
    if not isinstance(value, Tensor):
        return value
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype).copy_(sharded_like(value, parameter))
