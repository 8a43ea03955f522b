"""What the laws need to know of an optimiser: its family, the rates of its groups, its settings.

The learning rate is the peak of the schedule, because that is what somebody tuned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = [
    "Family",
    "OptimizerFacts",
    "epsilon_of",
    "optimizer_facts",
    "parameter_groups",
    "peak_rates",
    "scheduled_by_hand",
    "unwrapped",
]

Family = Literal["sgd", "adam", "muon", "other"]
_FALLEN = 0.98  # of the largest rate seen: then its peak is over


@dataclass(frozen=True)
class OptimizerFacts:
    """The settings of an optimiser that the laws need.

    Attributes:
        name: class name.
        family: "sgd" (u = g), "adam" (divides by a running root mean square), "muon"
            (orthogonalises), or "other".
        lr: learning rate of the first parameter group, the peak of its schedule; nan if the
            optimiser sets its own (Adafactor).
        beta1: momentum.
        accumulates: whether its momentum sums gradients (PyTorch's SGD) instead of averaging them.
        dampening: dampening of SGD.
        beta2: decay of the second moment; 0 if it has none.
        epsilon: added to the square root; 0 if it has none.
        weight_decay: the largest weight decay of its parameter groups.
        nesterov: whether SGD uses Nesterov momentum.
        rates: the peak rate of each parameter group, if there are several.
        decoupled: whether a step shrinks the weights by lr times weight decay (AdamW, SGD) and not
            through the gradient that is divided (Adam); None: not known.
    """

    name: str
    family: Family
    lr: float
    beta1: float = 0.0
    accumulates: bool = False
    dampening: float = 0.0
    beta2: float = 0.0
    epsilon: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    rates: tuple[float, ...] = ()
    decoupled: bool | None = None

    def with_lr(self, lr: float) -> OptimizerFacts:
        """Return the same facts with another rate of the first group; the others keep their ratio.

        Raises:
            ValueError: if the rate is not positive.
        """
        if math.isnan(lr):
            raise ValueError(
                f"{self.name} has no learning rate of its own here: give the one that you tuned, "
                "lr= (--lr)."
            )
        if not (lr > 0 and math.isfinite(lr)):
            raise ValueError(f"A learning rate of {lr} cannot be scaled: give a positive lr.")
        rates = tuple(lr * r / self.lr if self.lr > 0 else r for r in self.rates)
        return replace(self, lr=lr, rates=rates)

    @property
    def edge_times_sharpness(self) -> float:
        """Learning rate times sharpness above which training is unstable.

        ``2 (1 + beta) / (1 - beta)`` for a rate without momentum; over (1 + 2 beta) for Nesterov.
        Source: Cohen et al. 2021, equation 1 and appendix B; 2022 (38 for Adam's beta1 of 0.9).
        """
        beta = self.beta1
        edge = 2 * (1 + beta) / (1 - beta) / (1 + 2 * beta if self.nesterov else 1)
        return edge * self.lr_per_effective

    @property
    def lr_per_effective(self) -> float:
        """Factor from the learning rate without momentum to that of this optimiser."""
        return (1 - self.beta1) / (1 - self.dampening) if self.accumulates else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; an unknown rate becomes None."""
        lr = self.lr if math.isfinite(self.lr) else None
        rates = [rate if math.isfinite(rate) else None for rate in self.rates]
        return {**asdict(self), "lr": lr, "rates": rates}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> OptimizerFacts:
        """Make it from what `to_dict` returned; files of older versions know less."""
        found = {name: stored[name] for name in cls.__dataclass_fields__ if name in stored}
        found["lr"] = _known(found.get("lr"))
        found["rates"] = tuple(_known(rate) for rate in found.get("rates", ()))
        return cls(**found)


def unwrapped(optimizer: object) -> torch.optim.Optimizer:
    """Return torch's own optimiser inside accelerate's or Lightning's wrapper.

    Raises:
        ValueError: if there is no torch optimiser.

    Example:
        >>> plain = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        >>> unwrapped(plain) is plain
        True
    """
    kind = type(optimizer).__name__
    for _ in range(4):
        if isinstance(optimizer, torch.optim.Optimizer) and not hasattr(optimizer, "optimizer"):
            return optimizer
        inner = getattr(optimizer, "optimizer", None)
        optimizer = inner if inner is not None else getattr(optimizer, "_optimizer", None)
    raise ValueError(
        f"This is a {kind}, not a torch.optim.Optimizer: pass the optimiser of the training."
    )


def _known(lr: object) -> float:
    """A learning rate as a number; nan if there is none."""
    return float(lr) if isinstance(lr, (int, float, Tensor)) else math.nan


def peak_rates(
    optimizer: torch.optim.Optimizer, seen: Sequence[float] = (), rose: Sequence[bool] = ()
) -> tuple[float, ...]:
    """Return each parameter group's tuned learning rate: the peak of its schedule.

    torch's schedulers keep it in the group, as "initial_lr" or "max_lr"; a schedule by hand shows
    only what was seen so far. A rate that was seen to rise and to fall again shows its own peak:
    a LambdaLR may multiply its "initial_lr", such as 1.0, by a small formula.

    Args:
        optimizer: its groups may have a schedule.
        seen: the largest rate of each group so far.
        rose: whether each group's rate was seen to rise.

    Example:
        >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=0.4)
        >>> cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 10)
        >>> for _ in range(6):
        ...     sgd.step()
        ...     cosine.step()
        >>> round(sgd.param_groups[0]["lr"], 2), peak_rates(sgd)
        (0.14, (0.4,))
    """
    found = []
    for i, group in enumerate(optimizer.param_groups):
        rates = [_known(group.get(name)) for name in ("lr", "initial_lr", "max_lr")]
        rates += seen[i : i + 1]
        if i < len(rose) and rose[i] and rates[0] < _FALLEN * seen[i]:
            rates = [rates[0], seen[i]]
        known = [rate for rate in rates if not math.isnan(rate)]
        found.append(max(known) if known and not math.isnan(rates[0]) else math.nan)
    return tuple(found)


def scheduled_by_hand(optimizer: torch.optim.Optimizer) -> bool:
    """Whether every group's rate has left the optimiser's own by one common factor.

    Then a loop has probably set it by a formula, and its peak is not known.
    """
    groups, made = optimizer.param_groups, _known(optimizer.defaults.get("lr"))
    if not made > 0 or any("initial_lr" in group for group in groups):
        return False
    factors = {round(_known(group.get("lr")) / made, 9) for group in groups}
    return len(factors) == 1 and not math.isclose(factors.pop(), 1.0)


def optimizer_facts(
    optimizer: torch.optim.Optimizer, seen: Sequence[float] = (), rose: Sequence[bool] = ()
) -> OptimizerFacts:
    """Return the settings of an optimiser: rates of every group, the rest from the first one.

    Args:
        optimizer: any torch optimiser.
        seen: the largest rate of each group so far, see `peak_rates`.
        rose: whether each group's rate was seen to rise.

    Example:
        >>> facts = optimizer_facts(torch.optim.Adam([torch.zeros(1)], lr=0.1))
        >>> facts.family, facts.beta2, facts.epsilon
        ('adam', 0.999, 1e-08)
    """
    group = optimizer.param_groups[0]
    betas = group.get("betas")
    plain_sgd = isinstance(optimizer, torch.optim.SGD)
    divides = isinstance(
        optimizer, (torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RMSprop)
    )
    muon = type(optimizer).__name__ == "Muon"  # torch's own and others of that name
    beta2 = float(betas[1]) if betas is not None else float(group.get("alpha", 0.0) or 0.0)
    rates = peak_rates(optimizer, seen, rose)
    decays = [float(g.get("weight_decay", 0.0) or 0.0) for g in optimizer.param_groups]
    return OptimizerFacts(
        name=type(optimizer).__name__,
        family="sgd" if plain_sgd else "adam" if divides else "muon" if muon else "other",
        lr=rates[0],
        beta1=float(betas[0]) if betas is not None else float(group.get("momentum", 0.0) or 0.0),
        accumulates="momentum" in group and betas is None,
        dampening=float(group.get("dampening", 0.0) or 0.0),
        beta2=0.0 if plain_sgd else beta2,
        epsilon=0.0 if plain_sgd else epsilon_of(group),
        weight_decay=max(decays),
        nesterov=plain_sgd and bool(group.get("nesterov", False)),
        rates=rates if len(rates) > 1 else (),
        decoupled=_is_decoupled(optimizer),
    )


def _is_decoupled(optimizer: torch.optim.Optimizer) -> bool | None:
    """Whether a step shrinks the weights by lr times weight decay; None: not known.

    SGD's L2 term does the same. Adam's is divided by sqrt(v) with the gradient.
    """
    name = type(optimizer).__name__
    if optimizer.param_groups[0].get("decoupled_weight_decay") or isinstance(
        optimizer, (torch.optim.SGD, torch.optim.AdamW)
    ):
        return True
    if any(word in name for word in ("AdamW", "Lion", "Muon", "Adafactor")):
        return True
    kinds = (torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop)
    return False if isinstance(optimizer, kinds) else None


def epsilon_of(group: Mapping[str, Any]) -> float:
    """Adam's epsilon; 0 if there is none, or if "eps" is something else (Adafactor has a pair)."""
    stored = group.get("eps")
    return float(stored) if isinstance(stored, (int, float, Tensor)) else 0.0


def parameter_groups(
    model: nn.Module, optimizer: torch.optim.Optimizer, by_layer: bool
) -> tuple[dict[Tensor, int], list[str]]:
    """Return the group number of each trained parameter, and the names of the groups.

    Args:
        model: gives the names of the parameters.
        optimizer: gives the groups, unless by_layer is set.
        by_layer: make each parameter tensor a group.

    Raises:
        ValueError: for an optimiser of another model.
    """
    named = {p: n for n, p in model.named_parameters() if p.requires_grad}
    groups = optimizer.param_groups
    held = [(i, p) for i, group in enumerate(groups) for p in group["params"] if p in named]
    if not held:
        raise ValueError(
            "The optimiser holds no trainable parameter of this model: pass the optimiser of this "
            "model."
        )
    if by_layer:
        return {p: i for i, (_, p) in enumerate(held)}, [named[p] for _, p in held]
    if len(groups) == 1:
        return {p: 0 for _, p in held}, ["all"]
    return {p: i for i, p in held}, [f"group {i}" for i in range(len(groups))]
