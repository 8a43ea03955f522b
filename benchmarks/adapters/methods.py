"""The small transformer for the comparison of adapters, and all compared methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 64, 2, 4, 64, 16
RANK, ALPHA, STEPS, EARLY = 4, 8, 100, 20
LAYER_NAMES = ["qkv", "mix", "up", "down"]


class Block(nn.Module):
    """Attention and a feed-forward layer."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to x [n, t, width]."""
        n, t, c = x.shape
        parts = self.qkv(self.norm1(x)).reshape(n, t, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.mix(y.transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Bytes(nn.Module):
    """A transformer over bytes."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.words, self.places = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [n, t, 256] of the next token for tokens [n, t]."""
        x = self.words(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    """Return the loss in nats a byte; batch int64 [n, context + 1]."""
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


# ------------------------------------------------------------------------------------- methods


@dataclass(frozen=True)
class Method:
    """How to adapt a model; LoRA-Pro before AdamW ("factors") or inside it ("full").

    With `cut` nothing is trained: the change that full fine-tuning made to each matrix is cut to
    this rank by its singular values. This shows how much of the gap the rank can close at all.
    """

    make: Callable[[nn.Module, list[Tensor]], nn.Module]
    pro: str = ""
    b_ratio: float = 1.0
    cut: int = 0


def plain(**more: Any) -> Callable[[nn.Module, list[Tensor]], nn.Module]:  # noqa: ANN401
    """PEFT's LoRA with options."""

    def make(model: nn.Module, batches: list[Tensor]) -> nn.Module:
        from peft import get_peft_model

        return get_peft_model(model, _config(**more))

    return make


def _config(**more: Any) -> Any:  # noqa: ANN401
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYER_NAMES, **more)


def adalora(model: nn.Module, batches: list[Tensor]) -> nn.Module:
    """AdaLoRA from rank 6 down to 4, with the same scaling alpha / r as LoRA."""
    from peft import AdaLoraConfig, get_peft_model

    config = AdaLoraConfig(
        init_r=6, target_r=RANK, lora_alpha=12, target_modules=LAYER_NAMES,
        tinit=10, tfinal=40, deltaT=5, total_step=STEPS,
    )  # fmt: skip
    return get_peft_model(model, config)


def peft_lora_ga(model: nn.Module, batches: list[Tensor]) -> nn.Module:
    """PEFT's own LoRA-GA, with the same samples."""
    from peft import LoraGAConfig, get_peft_model
    from peft.tuners.lora.loraga import preprocess_loraga

    config = _config(init_lora_weights="lora_ga", lora_ga_config=LoraGAConfig())

    def step() -> None:
        for batch in batches:
            loss_of(model, batch).backward()

    preprocess_loraga(model, config, step)
    return get_peft_model(model, config)


def ours(**how: Any) -> Callable[[nn.Module, list[Tensor]], nn.Module]:  # noqa: ANN401
    """Our LoRA-GA with a choice of scale, answer and mutate_base."""

    def make(model: nn.Module, batches: list[Tensor]) -> nn.Module:
        from noisewise.adapters import gradients, lora_ga

        return lora_ga(model, _config(), gradients(model, _config(), batches, loss_of), **how)

    return make


def our_pissa(model: nn.Module, batches: list[Tensor]) -> nn.Module:
    """PiSSA."""
    from noisewise.adapters import pissa

    return pissa(model, _config())


def our_lora_one(model: nn.Module, batches: list[Tensor]) -> nn.Module:
    """LoRA-One."""
    from noisewise.adapters import gradients, lora_one

    return lora_one(model, _config(), gradients(model, _config(), batches, loss_of))


def everything(model: nn.Module, batches: list[Tensor]) -> nn.Module:
    """Full fine-tuning of the same eight matrices."""
    model.requires_grad_(False)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in LAYER_NAMES:
            module.weight.requires_grad_(True)
    return model


# Our starts. The default scale is "stable"; with "adam" the first step of Adam is as long as that
# of full fine-tuning.
OURS: dict[str, Callable[[nn.Module, list[Tensor]], nn.Module]] = {
    "ours stable": ours(),
    "ours gd": ours(scale="gd"),
    "ours adam": ours(scale="adam"),
    "ours adam sign": ours(scale="adam", answer="sign"),
    "ours adam solve": ours(scale="adam", answer="solve"),
    "ours moved stable": ours(mutate_base=True),
    "ours moved gd": ours(mutate_base=True, scale="gd"),
    "ours moved adam": ours(mutate_base=True, scale="adam"),
    "ours moved sign": ours(mutate_base=True, answer="sign"),
    "ours moved solve": ours(mutate_base=True, answer="solve"),
}


def with_pro(make: Callable[[nn.Module, list[Tensor]], nn.Module], name: str) -> dict[str, Method]:
    """A start with LoRA-Pro before AdamW, and inside it."""
    return {f"{name} + Pro": Method(make, "factors"), f"{name} + ProAdamW": Method(make, "full")}


METHODS: dict[str, Method] = {
    "full": Method(everything),
    "full cut to rank 4": Method(everything, cut=RANK),
    "full cut to rank 8": Method(everything, cut=2 * RANK),
    "LoRA": Method(plain()),
    "LoRA+ x8": Method(plain(), b_ratio=8.0),
    "rsLoRA": Method(plain(use_rslora=True)),
    "DoRA": Method(plain(use_dora=True)),
    "AdaLoRA": Method(adalora),
    "PiSSA": Method(our_pissa),
    "LoRA-One": Method(our_lora_one),
    "lora_ga (PEFT)": Method(peft_lora_ga),
    **{name: Method(make) for name, make in OURS.items()},
    **with_pro(plain(), "LoRA"),
}
for _name, _make in OURS.items():
    METHODS |= with_pro(_make, _name.replace("moved stable", "moved"))
