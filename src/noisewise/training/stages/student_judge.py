"""Evaluates a generator during training: distance to the teacher's own pictures, second call.

No training pictures are read: the reference pictures are drawn by the teacher with its sampler.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from noisewise.quality.distance import Reference
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.master_weights import MasterWeights
from noisewise.training.models.models import Teacher, one_call, second_call
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.stage import Judgement
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.training.settings.config import Budget

_SHEET = 64  # pictures on a sample sheet
_CHUNK = 64  # pictures drawn at once
_FEWEST = 128  # least number of pictures for a distance
_IMAGES_A_PICTURE = 12  # with a budget of images: at most one picture for each 12 images
_SEED = 0  # of the measured pictures


class StudentJudge:
    """Evaluates every weight average of a generator, and keeps the best weights.

    Args:
        teacher: frozen, on the device; it draws the reference pictures with its sampler.
        generator: the model in training; its first weights are the best ones at the start.
        shadow: a frozen copy; averages are written into it for evaluation.
        ema: the weight averages.
        sigma_init: noise level of the generator's input.
        recipe: how often to evaluate, and on how many pictures.
        budget: budget of the training; it limits the number of pictures.
        engine: device and precision.
    """

    def __init__(
        self,
        teacher: Teacher,
        generator: nn.Module,
        shadow: nn.Module,
        ema: EMA,
        sigma_init: float,
        recipe: StudentRecipe,
        budget: Budget,
        engine: Engine,
    ) -> None:
        """Keep the current weights as the best; nothing is measured yet."""
        self._teacher, self._generator, self._shadow, self._ema = teacher, generator, shadow, ema
        self._sigma_init, self._recipe = sigma_init, recipe
        self._budget, self._engine = budget, engine
        self.preview: Tensor | None = None
        self.stats: dict[str, Any] = {}
        self.reference: Reference | None = None
        self.num_images = 0
        self._cost = 0.0
        self.best_weights = [p.detach().clone() for p in generator.parameters()]
        self.best_as: dict[str, Any] = {}

    def begin(self, seconds: float | None) -> tuple[Judgement, float | None]:
        """Draw the teacher's own pictures, and measure the generator before its first step.

        Returns:
            The judgement, and the standard deviation of the generator's first pictures (None after
            a resume).
        """
        self.reference = Reference(self._teachers_pictures(seconds))
        if self.best_as:
            return Judgement(), None
        start = time.monotonic()
        pictures = self.pictures(self._generator, self.num_images)
        spread = pictures.std().item()
        distance = self.reference.distance(pictures)
        self._cost = (time.monotonic() - start) / self.num_images
        self._keep(distance.value, distance.high, share=None)
        self.preview = pictures[:_SHEET]
        event = (
            f"before training: distance {distance.value:.4f} between one call of the teacher and "
            f"its sampler, on {self.num_images} pictures"
        )
        return Judgement(distance=float(distance.value), event=event), spread

    @torch.no_grad()
    def judge(self, seconds: float | None) -> Judgement:
        """Measure every average's distance to the teacher's own pictures; keep the best ever."""
        assert self.reference is not None
        found, num_images = [], self._affordable(seconds)
        for index, share in enumerate(self._recipe.ema_shares):
            self._ema.copy_to(self._shadow, index)
            pictures = self.pictures(self._shadow, num_images)
            if not pictures.isfinite().all():
                return Judgement(trouble="a generated pixel is not a number")
            distance = self.reference.distance(pictures)
            found.append(distance)
            if distance.value < self.best_as["distance"]:
                self._keep(distance.value, distance.high, share)
                self.preview = pictures[:_SHEET]
        nearest = min(found, key=lambda distance: distance.value)
        limit = self._recipe.distance_jump * max(self.best_as["high"], 0.0)
        climbed = nearest.low > limit and nearest.value > self.best_as["distance"]
        trouble = f"the distance rose to {nearest.value:.4f} from {self.best_as['distance']:.4f}"
        return Judgement(distance=float(nearest.value), trouble=trouble if climbed else None)

    def finish(self, seconds: float | None) -> Judgement:
        """Choose the best weights, and the noise before a second call, by distance."""
        judgement = replace(self.judge(seconds), trouble=None)
        best = self.best_as
        one, sigma, two = self._last_distances()
        kept = (
            "the weights from before training"
            if best["share"] is None
            else f"the weight average with look-back {best['share']:g}"
        )
        event = (
            f"kept {kept}: distance {one:.4f} in one call, {two:.4f} in two calls with noise "
            f"{sigma:g} between them"
        )
        self.stats |= {
            "distance": one,
            "distance_two_calls": two,
            "distance_against": "the teacher's own pictures",
            "ema_share": best["share"],
        }
        return replace(judgement, event=event, distance=one)

    @torch.no_grad()
    def best(self) -> nn.Module:
        """A denoiser with the best weights so far, in eval mode; later calls reuse it."""
        torch._foreach_copy_(list(self._shadow.parameters()), self.best_weights)
        return self._shadow

    def state_dict(self) -> dict[str, Any]:
        """Best weights and where they come from, measurements, and pictures of the last sheet."""
        return {
            "best_weights": self.best_weights,
            "best": self.best_as,
            "num_images": self.num_images,
            "cost": self._cost,
            "stats": self.stats,
            "preview": self.preview,  # drawn again when an evaluation finds no better weights
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        torch._foreach_copy_(self.best_weights, state["best_weights"])
        self.best_as, self.stats = state["best"], state["stats"]
        self.preview = state.get("preview")
        self.num_images, self._cost = state["num_images"], state["cost"]

    @torch.no_grad()
    def pictures(self, denoiser: nn.Module, num_images: int) -> Tensor:
        """Draw pictures in one call: float [num_images, c, h, w] in [-1, 1], on the CPU."""
        parts, quick = [], MasterWeights(denoiser, self._engine.dtype).module
        for start in range(0, num_images, _CHUNK):
            count = min(_CHUNK, num_images - start)
            z = self._teacher.noise(_SEED, start, count, stream=1)
            labels = self._teacher.labels(_SEED, start, count, None)
            drawn = one_call(quick, z, self._sigma_init, labels)
            parts.append(drawn.float().clamp(-1, 1).cpu())
        return torch.cat(parts)

    def _keep(self, value: float, high: float, share: float | None) -> None:
        """Remember the weights of an average, or of the start (share None), as the best so far."""
        weights = self._generator if share is None else self._shadow
        torch._foreach_copy_(self.best_weights, [p.detach() for p in weights.parameters()])
        self.best_as = {"distance": float(value), "high": float(high), "share": share}

    def _teachers_pictures(self, seconds: float | None) -> Tensor:
        """Draw pictures with the teacher's sampler, as many as time allows; the same on resume."""
        wanted = self.num_images or self._recipe.distance_images
        if self._budget.images is not None:  # there is no time limit, so the budget is the limit
            wanted = min(wanted, max(_FEWEST, self._budget.images // _IMAGES_A_PICTURE))
        start, parts, drawn = time.monotonic(), [], 0
        while drawn < wanted:
            count = min(_CHUNK, wanted - drawn)
            parts.append(self._teacher.draw(_SEED, drawn, count).float().cpu())
            drawn += count
            if not self.num_images and seconds is not None and time.monotonic() - start > seconds:
                break
        self.num_images = drawn
        return torch.cat(parts)

    def _affordable(self, seconds: float | None) -> int:
        """Number of pictures of each average that can be evaluated in this time."""
        if seconds is None or not self._cost:
            return self.num_images
        most = int(seconds / (self._cost * len(self._recipe.ema_shares)))
        return min(max(most, _FEWEST), self.num_images)

    def _last_distances(self) -> tuple[float, float, float]:
        """Distance in one call; the best noise before a second call; the distance in two calls.

        They are measured again on all pictures: the distance that chose the weights is the lowest
        of many, and so too low.
        """
        assert self.reference is not None
        pictures = self.pictures(self.best(), self.num_images)
        one = float(self.reference.distance(pictures).value)
        tried = {}
        for sigma in self._recipe.two_call_sigmas:
            distance = self.reference.distance(self._second_calls(pictures, sigma))
            tried[sigma] = float(distance.value)
        sigma = min(tried, key=tried.__getitem__)
        self.stats |= {
            "two_call_sigma": sigma,
            "two_call_distances": {f"{s:g}": d for s, d in tried.items()},
        }
        return one, sigma, tried[sigma]

    @torch.no_grad()
    def _second_calls(self, pictures: Tensor, sigma: float) -> Tensor:
        parts = []
        for start in range(0, len(pictures), _CHUNK):
            part = pictures[start : start + _CHUNK].to(self._engine.device)
            noise = self._teacher.noise(_SEED, start, len(part), stream=3)
            labels = self._teacher.labels(_SEED, start, len(part), None)
            drawn = second_call(self._teacher.denoiser, part, sigma, noise, labels)
            parts.append(drawn.float().cpu())
        return torch.cat(parts)
