"""LoRA-Pro with moments of the size of W: AdamW on the part of the gradient known to the factors.

Paper: Wang et al. 2024 (LoRA-Pro), algorithm 1. Adam divides each entry by its own size. If it did
this to the rewritten gradients of A and B, it would undo the rewriting. Here it does it to the
m x n matrix that they represent, and the factors follow the result:

    G~ = P_B G + (I - P_B) G P_A         the part of G that g_A and g_B determine
    D  = AdamW(G~)                       first and second moments of size m x n
    dW = -lr (P_B D + (I - P_B) D P_A)   the step of W that is closest to D, by `rewritten`

The optimiser needs as much memory as for full fine-tuning (8 bytes for each weight of the adapted
layers); gradients and the adapter itself stay small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from noisewise.adapters.layers import active_adapter, factor_parameters, kind_of, lora_layers
from noisewise.adapters.pro import DAMPING, rewritten

if TYPE_CHECKING:
    from peft import PeftModel


class LoraProAdamW(torch.optim.Optimizer):
    """AdamW whose steps of W are as close to those of full fine-tuning as LoRA allows.

    Use it instead of AdamW; state_dict, schedulers and clipping work as for any optimiser.

    Args:
        peft_model: a LoRA or rsLoRA model, with any start.
        lr: learning rate, above 0; try the one of full fine-tuning first.
        betas: decay rates of the two moments, each in [0, 1).
        eps: number added to the root of the second moment, above 0.
        weight_decay: decoupled decay of the factors, 0 or more.
        damping: as in `lora_pro`, 0 or more.
        adapter: name of the adapter; None: the active one.

    Raises:
        ValueError: for DoRA and AdaLoRA, whose steps have other formulas; if no parameter is
            trainable; if a number is out of range.

    Source: Wang et al. 2024 (LoRA-Pro), algorithm 1.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> net = get_peft_model(nn.Sequential(nn.Linear(4, 3)), LoraConfig(target_modules=["0"]))
        >>> optimizer = LoraProAdamW(net, lr=1e-3)
        >>> net(torch.ones(2, 4)).square().sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        peft_model: PeftModel,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        damping: float = DAMPING,
        adapter: str | None = None,
    ) -> None:
        """Pair the factors; all other trainable parameters get plain AdamW."""
        name = active_adapter(peft_model, adapter)
        kind = kind_of(peft_model, name)
        if kind != "lora":
            raise ValueError(
                f"LoRA-Pro supports LoRA and rsLoRA only; this adapter is {kind}: use AdamW"
            )
        if not (0 < lr < math.inf and damping >= 0 and eps > 0 and weight_decay >= 0):
            raise ValueError("lr and eps must be positive, damping and weight_decay 0 or more")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} must both be at least 0 and below 1")
        layers = lora_layers(peft_model, name).values()
        pairs = [factor_parameters(layer, name) for layer in layers]
        pairs = [(a, b) for a, b in pairs if a.requires_grad and b.requires_grad]
        self._scaling = {
            id(factor_parameters(layer, name)[0]): float(layer.scaling[name]) for layer in layers
        }
        paired = {id(p) for pair in pairs for p in pair}
        others = [p for p in peft_model.parameters() if p.requires_grad and id(p) not in paired]
        if not pairs:
            raise ValueError("the adapter has no trainable parameters: load it with trainable=True")
        groups: list[dict[str, Any]] = [{"params": [p for pair in pairs for p in pair]}]
        groups[0]["pairs"] = True
        if others:
            groups.append({"params": others, "pairs": False})
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "damping": damping,
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 # pyrefly: ignore
        """Take one step; a closure, if given, computes the gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            members: list[nn.Parameter] = group["params"]
            if group["pairs"]:
                for a, b in zip(members[::2], members[1::2], strict=True):
                    if a.grad is not None and b.grad is not None:
                        self._step_pair(a, b, group)
                continue
            for parameter in members:
                if parameter.grad is not None:
                    direction = self._adam(parameter, parameter.grad.float(), group)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(group["lr"] * direction)
        return loss

    def _step_pair(self, a: nn.Parameter, b: nn.Parameter, group: dict[str, Any]) -> None:
        c, reach = self._scaling[id(a)], group["damping"] * group["lr"]
        assert a.grad is not None
        assert b.grad is not None
        flat_a, flat_b = a.flatten(1).float(), b.flatten(1).float()
        given = a.grad.flatten(1).float(), b.grad.flatten(1).float()
        h_a, h_b = rewritten(flat_a, flat_b, *given, c)
        seen = c * (h_b @ flat_a + flat_b @ h_a)
        wanted = self._adam(a, seen, group)
        h_a, h_b = rewritten(
            flat_a, flat_b, c * (flat_b.mT @ wanted), c * (wanted @ flat_a.mT), c, reach
        )
        for parameter, direction in ((a, h_a), (b, h_b)):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.sub_(group["lr"] * direction.reshape(parameter.shape))

    def _adam(self, key: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """Return Adam's direction for a gradient; the moments are stored under `key`."""
        state, (beta1, beta2) = self.state[key], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(gradient)
            state["exp_avg_sq"] = torch.zeros_like(gradient)
        state["step"] += 1
        count = float(state["step"])
        first: Tensor = state["exp_avg"].lerp_(gradient, 1 - beta1)
        second: Tensor = (
            state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        )
        root = (second / (1 - beta2**count)).sqrt_().add_(group["eps"])
        return first / (1 - beta1**count) / root
