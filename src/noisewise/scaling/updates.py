"""The update that one step of an optimiser would make, without changing the model.

A copy of the optimiser makes the step from a copy of its state, so the real optimiser, its weights,
hooks and schedule stay unchanged. An update is u = (w - w') / lr, without weight decay.

It is without momentum too: the copy has momentum 0 (betas (0, beta2)), because over many steps each
gradient moves the weights by the same amount for any momentum (`laws.Momentum` has the evidence),
and the old momentum belongs to the old batch. `OptimizerFacts.lr_per_effective` converts the
learning rate.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from noisewise.scaling.flat import Flat
from noisewise.scaling.optimizer_facts import (
    Family,
    OptimizerFacts,
    epsilon_of,
    optimizer_facts,
    parameter_groups,
    unwrapped,
)

__all__ = [
    "Family",
    "OptimizerFacts",
    "Updater",
    "optimizer_facts",
    "parameter_groups",
    "unwrapped",
]

# Optimisers whose step does not depend on the weights: from weights 0 an update loses no digits.
_BLIND = {
    torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam,
    torch.optim.Adamax, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta,
}  # fmt: skip
_SECOND = ("exp_avg_sq", "square_avg")


class Updater:
    """The update of an optimiser for any gradient, from its present state.

    Args:
        optimizer: any torch optimiser whose step needs no closure.
        flat: the parameters; the optimiser must hold all of them.
        epsilon: replaces the optimiser's epsilon, to see what another one would do.
        lr: the tuned learning rate of the first group; None: the peak of its schedule.

    Raises:
        ValueError: for an epsilon that the optimiser cannot have, or an optimiser that needs a
            closure, holds other parameters, cannot be copied, has learning rate 0 or none, or has
            taken no step yet although its updates depend on earlier gradients (Adam, Adagrad,
            Adadelta, Adafactor, ...).

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(2, 1, bias=False)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> Updater(sgd, Flat(model)).update(torch.tensor([1.0, 2.0])).tolist()
        [1.0, 2.0]
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        flat: Flat,
        epsilon: float | None = None,
        lr: float | None = None,
    ) -> None:
        """Copy the optimiser."""
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError(
                "LBFGS computes the loss many times per step, so it has no single update: use "
                "another optimiser."
            )
        self.facts = optimizer_facts(optimizer)
        if lr is not None:
            self.facts = self.facts.with_lr(lr)
        if epsilon is not None:
            has_one = isinstance(optimizer.param_groups[0].get("eps"), (int, float, Tensor))
            if not epsilon >= 0 or not has_one:
                raise ValueError(
                    f"{self.facts.name} cannot have an epsilon of {epsilon}: leave epsilon out, or "
                    "use an optimiser like Adam and a number of 0 or above."
                )
            self.facts = replace(self.facts, epsilon=float(epsilon))
        self.flat = flat
        held = [p for group in optimizer.param_groups for p in group["params"]]
        place = {id(p): i for i, p in enumerate(held)}
        missing = [
            n for n, p in zip(flat.names, flat.parameters, strict=True) if id(p) not in place
        ]
        if missing:
            raise ValueError(
                f"The optimiser does not hold the parameter {missing[0]}: pass the optimiser of "
                "this model."
            )
        if math.isnan(self.facts.lr):
            raise ValueError(
                f"{self.facts.name} sets its own learning rate (its lr is None), which no batch "
                "size can scale: use it with a fixed lr, or another optimiser."
            )
        if not self.facts.lr > 0:
            raise ValueError(
                "The optimiser's learning rate is 0: measure after the first steps of the warm-up, "
                "or give lr=."
            )
        self._check_state(optimizer, flat)
        self._blind = type(optimizer) in _BLIND
        self._twin = twin_of(optimizer)
        twins = [p for group in self._twin.param_groups for p in group["params"]]
        self._parameters = [twins[place[id(p)]] for p in flat.parameters]
        self._silence_other(twins)
        # The keys stay the copy's own parameters: a deep copy of the dictionary would copy them.
        self._state = {p: copy.deepcopy(state) for p, state in self._twin.state.items()}
        self._groups = [
            next(g for g in self._twin.param_groups if any(q is p for q in g["params"]))
            for p in self._parameters
        ]
        self._reset_groups()
        for group in self._twin.param_groups if epsilon is not None else ():
            group["eps"] = epsilon
        if self.facts.family == "other" and self._is_fresh() and self._remembers():
            raise ValueError(self._no_state())

    def _no_state(self) -> str:
        return (
            f"The optimiser {self.facts.name} has no state yet: take some training steps before "
            "you measure (about 1 / (1 - beta2) for a running average)."
        )

    def _is_fresh(self) -> bool:
        """Whether a measured parameter has no state, or a state after 0 steps."""
        states = [self._state.get(p) for p in self._parameters]
        return any(not state or float(state.get("step", 1)) == 0 for state in states)

    def _remembers(self) -> bool:
        """Whether an earlier gradient changes the update of the next one."""
        probe = torch.cat([torch.ones_like(p).flatten() for p in self._parameters])
        first = self.update(probe)
        kept = self._state
        self.update(4 * probe)
        self._state = {p: copy.deepcopy(state) for p, state in self._twin.state.items()}
        second = self.update(probe)
        self._state = kept
        return not torch.allclose(first, second, rtol=1e-3, atol=0.0)

    def _check_state(self, optimizer: torch.optim.Optimizer, flat: Flat) -> None:
        if self.facts.family != "adam":
            return
        bare = [p for p in flat.parameters if not any(k in optimizer.state[p] for k in _SECOND)]
        for p in bare:  # reading from a defaultdict must not leave an empty entry
            optimizer.state.pop(p, None)
        if bare:
            raise ValueError(self._no_state())

    def _silence_other(self, twins: list[Tensor]) -> None:
        """Clear all gradients, so that parameters outside the measurement take no step."""
        inside = {id(p) for p in self._parameters}
        for parameter in twins:
            parameter.grad = None
            if id(parameter) in inside and self._blind:
                parameter.data = torch.zeros_like(parameter)

    def _reset_groups(self) -> None:
        rates = self.facts.rates or (self.facts.lr,)
        for group, rate in zip(self._twin.param_groups, rates, strict=True):
            held = group["lr"]  # the momentary rate may be 0 at the end of a schedule
            group["lr"] = torch.full_like(held, rate) if isinstance(held, Tensor) else rate
            if "momentum" in group:
                group["momentum"] = 0.0
                if "dampening" in group:
                    group["dampening"] = 0.0
                if "nesterov" in group and isinstance(self._twin, torch.optim.SGD):
                    group["nesterov"] = False
            if "betas" in group:
                group["betas"] = (0.0, *group["betas"][1:])
            if "weight_decay" in group:
                group["weight_decay"] = 0.0

    def relative_lr(self) -> Tensor:
        """Return each coordinate's learning rate over the first group's, [p]."""
        rates = [float(g["lr"]) / self.facts.lr for g in self._groups]
        return torch.cat(
            [p.new_full((p.numel(),), r) for p, r in zip(self._parameters, rates, strict=True)]
        )

    def epsilons(self) -> Tensor:
        """Return each coordinate's epsilon, [p]."""
        values = [epsilon_of(g) for g in self._groups]
        return torch.cat(
            [p.new_full((p.numel(),), e) for p, e in zip(self._parameters, values, strict=True)]
        )

    def second_moment(self) -> Tensor | None:
        """Return v, bias-corrected, [p], of Adam and RMSprop; None for other optimisers."""
        if self.facts.family != "adam":
            return None
        pieces = []
        for parameter, group in zip(self._parameters, self._groups, strict=True):
            state = self._state[parameter]
            if "exp_avg_sq" not in state:
                pieces.append(state["square_avg"])
                continue
            kept = state.get("max_exp_avg_sq", state["exp_avg_sq"])
            pieces.append(kept / self._bias(state, group))
        return self.flat.join(pieces)

    @staticmethod
    def _bias(state: Mapping[str, Any], group: Mapping[str, Any]) -> float:
        return 1 - float(group["betas"][1]) ** max(1.0, float(state["step"]))

    def update(self, gradient: Tensor, second_moment: Tensor | None = None) -> Tensor:
        """Return u, [p]: the change of the weights per unit of the first group's learning rate.

        Args:
            gradient: gradient for the optimiser, [p].
            second_moment: v, bias-corrected, [p], to replace that of the state; for Adam and
                RMSprop.

        Raises:
            ValueError: if the optimiser's step needs a closure.
        """
        self._twin.state.clear()
        for parameter, state in self._state.items():
            self._twin.state[parameter] = copy.deepcopy(state)
        if second_moment is not None:
            self._replace_second(second_moment)
        before = [p.detach().clone() for p in self._parameters]
        for parameter, piece in zip(self._parameters, self.flat.split(gradient), strict=True):
            parameter.grad = piece.clone()
        try:
            self._twin.step()
        except TypeError as error:
            raise ValueError(
                f"{self.facts.name} needs a closure for a step, so its update cannot be measured: "
                "use another optimiser."
            ) from error
        except Exception as error:  # an optimiser of somebody else can raise anything
            raise ValueError(
                f"A copy of {self.facts.name} cannot take a step ({error!r}), so its update cannot "
                "be measured: use watch(), which needs no copy."
            ) from error
        moved = [
            (b - p.detach()) / self.facts.lr for b, p in zip(before, self._parameters, strict=True)
        ]
        with torch.no_grad():
            for parameter, old in zip(self._parameters, before, strict=True):
                parameter.copy_(old)
                parameter.grad = None
        return self.flat.join(moved)

    def _replace_second(self, second_moment: Tensor) -> None:
        pieces = self.flat.split(second_moment)
        for parameter, group, piece in zip(self._parameters, self._groups, pieces, strict=True):
            state = self._twin.state[parameter]
            if "exp_avg_sq" in state:
                state["exp_avg_sq"].copy_(piece * self._bias(state, group))
                if "max_exp_avg_sq" in state:
                    state["max_exp_avg_sq"].copy_(state["exp_avg_sq"])
            else:
                state["square_avg"].copy_(piece)

    def preconditioner(self, second_moment: Tensor | None) -> Tensor:
        """Return P, [p], the factor of each gradient coordinate: 1 / (sqrt(v) + eps), or 1.

        It includes each group's learning rate relative to the first group's.
        """
        scale = self.relative_lr()
        if second_moment is None:
            return scale
        root = second_moment.sqrt() + self.epsilons()
        return scale / root.clamp_min(math.sqrt(torch.finfo(root.dtype).tiny))


def twin_of(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return a copy with copies of its parameters, state and own attributes.

    An optimiser's deep copy has only what torch's class knows. Attributes of a subclass
    (lion-pytorch's `decoupled_wd`) are copied too, but not what hides a method of the class: a
    scheduler's wrapper of `step` would move the real weights.

    Raises:
        ValueError: if something in it cannot be copied.

    Example:
        >>> sgd = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        >>> sgd.kept = 3
        >>> twin_of(sgd).kept
        3
    """
    memo: dict[int, Any] = {}
    name = type(optimizer).__name__
    try:
        twin = copy.deepcopy(optimizer, memo)
        memo[id(optimizer)] = twin
        for key, value in vars(optimizer).items():
            if key not in vars(twin) and not hasattr(type(optimizer), key):
                setattr(twin, key, copy.deepcopy(value, memo))
    except Exception as error:  # an optimiser of somebody else can raise anything
        raise ValueError(
            f"{name} cannot be copied ({error!r}), so its update cannot be measured: use watch(), "
            "which needs no copy."
        ) from error
    return twin
