"""Adapting a teacher: its weights are frozen and small adapters are trained, or all weights are.

Papers: Hu et al. 2022 (LoRA); Wang et al. 2024 (LoRA-GA), for the start.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from noisewise.diffusion import denoising_loss, stratified
from noisewise.pictures.pictures import Pictures
from noisewise.sizes import num_pixels
from noisewise.training.models.networks import network, with_network
from noisewise.training.settings.config import AdaptConfig, AdapterStart
from noisewise.training.stages.at_once import at_once
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.stage import Judgement
from noisewise.training.stages.started_teacher import StartedStage

if TYPE_CHECKING:
    from peft import LoraConfig

    from noisewise.adapters import Gradients

_BATCHES = 8  # least number of these batches: their differences show the gradient noise


class AdaptStage(StartedStage):
    """Training of a teacher with adapters; see `TeacherStage`."""

    def begin(self, seconds: float | None) -> Judgement:
        """Prepare as for a teacher; say how many weights are trained."""
        judgement = super().begin(seconds)
        free = sum(p.numel() for p in self.denoiser.parameters() if p.requires_grad)
        event = f"{judgement.event}; {free:,} trainable weights"
        return replace(judgement, event=event)

    def merged(self) -> nn.Module:
        """The best weights with the adapter added in float32: an ordinary denoiser."""
        best = copy.deepcopy(self.best())
        if has_adapter(best):
            from noisewise.adapters import merge

            return with_network(best, merge(network(best)))  # pyrefly: ignore
        return best

    def _compile(self) -> str:
        """Do not compile: `nets.timing` works only with the nets of noisewise."""
        return ""


def has_adapter(denoiser: nn.Module) -> bool:
    """Whether this denoiser's network has an adapter of PEFT."""
    return hasattr(network(denoiser), "peft_config")


def adapted_net(
    denoiser: nn.Module,
    start: AdapterStart,
    rank: int,
    gradients: Callable[[Any], Gradients] | None = None,
) -> nn.Module:
    """Copy a denoiser and add a trainable adapter to every layer that can have one.

    Args:
        denoiser: a trained denoiser.
        start: "lora-ga", "lora", or "full" (no adapters, all weights are trained).
        rank: rank of each adapter; smaller layers get their own full rank.
        gradients: for "lora-ga": returns the full gradients for a PEFT configuration; None: a
            checkpoint will fill in the adapters.

    Raises:
        ValueError: if no layer can have an adapter.
    """
    made = copy.deepcopy(denoiser)
    if start == "full":
        made.requires_grad_(True)
        return made
    from noisewise.adapters import lora_ga
    from noisewise.adapters.layers import wrapped

    made.requires_grad_(False)
    config = adapter_config(network(made), rank, "use --start full", any_rank=True)
    if start == "lora" or gradients is None:
        return with_network(made, wrapped(network(made), config))
    return with_network(made, lora_ga(network(made), config, gradients(config)))


def adapter_config(net: nn.Module, rank: int, instead: str, any_rank: bool = False) -> LoraConfig:
    """PEFT's configuration of an adapter on every layer that can have one, with scaling 1.

    Args:
        net: the net, without adapters.
        rank: rank of each adapter; smaller layers get their own full rank.
        instead: what to do if no layer can have an adapter, in words.
        any_rank: take a rank that no layer can have for the full rank of each.

    Raises:
        ValueError: if PEFT is missing, no layer can have an adapter, or the rank is too large.
    """
    from noisewise.adapters.layers import as_matrix, complaint, need_peft, target_names
    from noisewise.adapters.saving import plain_ranks

    need_peft()
    from peft import LoraConfig

    full = {
        name: min(as_matrix(module, module.get_parameter("weight")).shape)
        for name, module in net.named_modules()
        if not complaint(name, module)
    }
    if not full:
        raise ValueError(f"no layer of this net can have an adapter; {instead}")
    if rank > max(full.values()) and not any_rank:
        raise ValueError(
            f"rank {rank} is above the width of this net: no layer has a rank above "
            f"{max(full.values())}; use a lower --rank, best 4 to 32"
        )
    ranks = {name: min(rank, most) for name, most in full.items()}
    return LoraConfig(target_modules=target_names(net, ranks), **plain_ranks(ranks))


class StoppedError(Exception):
    """`stop` returned true before the first step."""


def start_gradients(
    denoiser: nn.Module,
    pictures: Pictures,
    plan: TeacherPlan,
    config: AdaptConfig,
    stop: Callable[[], bool] | None = None,
) -> Callable[[Any], Gradients]:
    """Make a function of a PEFT configuration: the full gradients of the loss on the new pictures.

    It calls `stop` before every batch, and raises StoppedError if that returns true.
    """
    from noisewise.adapters import gradients

    chosen = pictures.split(config.seed)[0]
    generator = torch.Generator().manual_seed(config.seed)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        left, chunk = (
            config.samples,
            min(at_once(num_pixels(plan.size)), max(1, config.samples // _BATCHES)),
        )
        while left > 0:
            if stop is not None and stop():
                raise StoppedError
            count = min(chunk, left, len(chosen))
            order = torch.randperm(len(chosen), generator=generator)[:count].numpy()
            x0 = pictures.tensor(chosen[order])
            sigma = stratified(plan.noise, count, generator, torch.device("cpu"))
            noise = torch.randn(x0.shape, generator=generator)
            labels = None
            if plan.classes:
                assert pictures.labels is not None
                labels = torch.from_numpy(pictures.labels[chosen[order]].astype("int64"))
            left -= count
            yield x0, sigma, noise, labels

    def loss(net: nn.Module, batch: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> Tensor:
        x0, sigma, noise, labels = batch
        return denoising_loss(
            with_network(denoiser, net), x0, sigma, noise, plan.weight, labels, plan.multiscale
        ).mean()

    return lambda peft_config: gradients(network(denoiser), peft_config, batches(), loss)
