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
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from noisewise.adapters.layers import active_adapter, factor_parameters, kind_of, lora_layers
from noisewise.adapters.pro import DAMPING, Projections

if TYPE_CHECKING:
    from peft import PeftModel

_Pair = tuple[nn.Parameter, nn.Parameter]
_AT_ONCE = 2**20  # entries of W in one group of layers
_FUSED = ("cpu", "cuda", "xpu", "mps")  # where torch has Adam as one kernel


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
                for pairs in _alike(members):
                    self._step_pairs(pairs, group)
                continue
            for parameter in members:
                if parameter.grad is not None:
                    direction = self._adam([parameter], parameter.grad.float(), group)
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(group["lr"] * direction)
        return loss

    def _step_pairs(self, pairs: list[_Pair], group: dict[str, Any]) -> None:
        """Step the factors of layers of one shape."""
        reach, keys = group["damping"] * group["lr"], [a for a, _ in pairs]
        a, b = (_stacked([pair[k].flatten(1).float() for pair in pairs]) for k in (0, 1))
        g_a, g_b = (_stacked([_gradient(pair[k]) for pair in pairs]) for k in (0, 1))
        c = _stacked([a.new_full((1, 1), self._scaling[id(key)]) for key in keys])
        projections = Projections(a, b, c)
        wanted = self._adam(keys, projections.known(g_a, g_b), group)
        h_a, h_b = projections.rewritten(c * (b.mT @ wanted), c * (wanted @ a.mT), reach)
        decay = 1 - group["lr"] * group["weight_decay"]
        for k, pair in enumerate(pairs):
            for parameter, directions in zip(pair, (h_a, h_b), strict=True):
                direction = directions if len(pairs) == 1 else directions[k]
                parameter.mul_(decay).sub_(group["lr"] * direction.reshape(parameter.shape))

    def _adam(self, keys: list[nn.Parameter], gradients: Tensor, group: dict[str, Any]) -> Tensor:
        """Return Adam's directions, one for each key, stacked; the moments are kept by key."""
        fused, one = gradients.device.type in _FUSED, len(keys) == 1
        directions = torch.zeros_like(gradients)
        given = [gradients] if one else list(gradients)
        for key, gradient in zip(keys, given, strict=True):
            if not self.state[key]:
                # Torch's kernels read the step on their device.
                device = gradient.device if fused else None
                self.state[key]["step"] = torch.zeros((), device=device)
                self.state[key]["exp_avg"] = torch.zeros_like(gradient)
                self.state[key]["exp_avg_sq"] = torch.zeros_like(gradient)
        beta1, beta2 = group["betas"]
        adam(  # one pass over W, where plain operations need ten
            [directions] if one else list(directions),
            given,
            [self.state[key]["exp_avg"] for key in keys],
            [self.state[key]["exp_avg_sq"] for key in keys],
            [],
            [self.state[key]["step"] for key in keys],
            fused=fused,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=1.0,
            weight_decay=0.0,
            eps=group["eps"],
            maximize=True,
        )
        return directions


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Stack layers of one shape; one layer alone stays a matrix, which is quicker."""
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten(1).float()


def _alike(members: list[nn.Parameter]) -> Iterator[list[_Pair]]:
    """Yield pairs of factors of one shape together, so that small layers cost few operations."""
    groups: dict[Any, list[_Pair]] = {}
    for a, b in zip(members[::2], members[1::2], strict=True):
        if a.grad is not None and b.grad is not None:
            groups.setdefault((a.flatten(1).shape, b.flatten(1).shape, a.device), []).append((a, b))
    for (shape_a, shape_b, _), pairs in groups.items():
        count = max(1, _AT_ONCE // (shape_a[1] * shape_b[0]))
        for first in range(0, len(pairs), count):
            yield pairs[first : first + count]
