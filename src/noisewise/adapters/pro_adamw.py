"""LoRA-Pro with moments of the full step: AdamW on the gradient that the factors can see.

Paper: Wang et al. 2024 (LoRA-Pro), algorithm 1. Adam divides each entry by its own size; done to
the rewritten gradients of A and B it undoes the rewriting. Here it is done to the m x n matrix that
they stand for, and the factors follow the result:

    G~ = P_B G + (I - P_B) G P_A         what of G can be known from g_A and g_B
    D  = AdamW(G~)                       first and second moments of size m x n
    dW = -lr (P_B D + (I - P_B) D P_A)   the step of W nearest to D, by `rewritten`

It costs the optimiser memory that full fine-tuning has (8 bytes a weight of the adapted layers);
gradients and the adapter itself stay small.
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
    """AdamW whose steps of W follow full fine-tuning's AdamW as nearly as a LoRA can.

    Use it in the place of AdamW; state_dict, schedulers and clipping work as for any optimiser.

    Args:
        peft_model: LoRA or rsLoRA of any start.
        lr: full fine-tuning's own learning rate is the one to try first.
        betas: of the moments.
        eps: added to the root of the second moment.
        weight_decay: of the factors, decoupled.
        damping: as in `lora_pro`.
        adapter: its name; None: the active one.

    Raises:
        ValueError: for DoRA and AdaLoRA, whose step is another function; if nothing is trained, or
            a number means nothing.

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
        """Pair the factors; what else is trained gets plain AdamW."""
        name = active_adapter(peft_model, adapter)
        kind = kind_of(peft_model, name)
        if kind != "lora":
            raise ValueError(f"LoRA-Pro is of plain LoRA: {kind} steps in another way; use AdamW")
        if not (0 < lr < math.inf and damping >= 0 and eps > 0 and weight_decay >= 0):
            raise ValueError("lr and eps must be positive, damping and weight_decay 0 or more")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} must lie in [0, 1)")
        layers = lora_layers(peft_model, name).values()
        pairs = [factor_parameters(layer, name) for layer in layers]
        pairs = [(a, b) for a, b in pairs if a.requires_grad and b.requires_grad]
        self._scaling = {
            id(factor_parameters(layer, name)[0]): float(layer.scaling[name]) for layer in layers
        }
        paired = {id(p) for pair in pairs for p in pair}
        others = [p for p in peft_model.parameters() if p.requires_grad and id(p) not in paired]
        if not pairs:
            raise ValueError("nothing is trained: the adapter was loaded with trainable=False")
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
        """Take one step; a closure computes the gradients anew first."""
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
        """Adam's direction for a gradient, whose moments are kept beside one parameter."""
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
