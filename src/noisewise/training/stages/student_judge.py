"""Evaluates a generator during training: how far its pictures are from its teacher's; second call.

No training pictures are read: the judge reads pictures that the teacher draws with its sampler, in
frozen features and in the teacher's own, and the larger number counts. (Training follows the
teacher, so its features alone could be pleased by pictures that nobody else takes for real.)
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from noisewise.diffusion import in_calls
from noisewise.quality.enough import LEAST
from noisewise.quality.features import Extractor
from noisewise.quality.judge import Floors, Judge
from noisewise.quality.native_features import NativeFeatures
from noisewise.quality.premultiplied import premultiplied
from noisewise.quality.variety import Variety, variety
from noisewise.sizes import num_pixels
from noisewise.training.devices.engine import Engine
from noisewise.training.models.model_config import Flats
from noisewise.training.models.models import Teacher, second_call
from noisewise.training.models.palette import Palette
from noisewise.training.settings.recipes import StudentRecipe
from noisewise.training.stages.at_once import at_once
from noisewise.training.stages.choose_flats import choose_level
from noisewise.training.stages.choose_palette import choose_tolerance
from noisewise.training.stages.evaluation_times import Deadline
from noisewise.training.stages.real_judge import frozen_distance, teacher_features, told_floors
from noisewise.training.stages.stage import Judgement
from noisewise.training.stages.student_nets import StudentNets
from noisewise.training.stages.teacher_steps import (
    Row,
    affordable_steps,
    in_words,
    teacher_steps,
)
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.training.settings.budget import Budget

_STEPS_SHARE = 0.5  # of the time for the teacher's own pictures, for those in few steps
_SHEET = 64  # pictures on a sample sheet
_FEWEST = 128  # least number of pictures for a distance
_LAST = 4  # calls for each picture of the last distance, with those that try a second call
_IMAGES_A_PICTURE = 12  # with a budget of images: at most one picture for each 12 images
ALIKE = 0.25  # variety below which the finished generator is said to draw the same few pictures
_SEED = 0  # of the measured pictures
_FRESH = 1_000_000  # pictures from here on have chosen nothing
_LATER = 1000  # streams of noise of the calls after the first


class StudentJudge:
    """Evaluates every weight average of a generator, and keeps the best weights.

    Args:
        teacher: frozen, on the device; it draws the reference pictures with its sampler.
        nets: the generator in training, whose first weights are the best ones at the start, and
            a frozen one that averages are written into for evaluation.
        ema: the weight averages.
        sigmas: noise level of each of the generator's calls.
        recipe: how often to evaluate, and on how many pictures.
        budget: budget of the training; it limits the number of pictures.
        engine: device and precision.
        guidance: of the teacher's own pictures, which the generator learns.
    """

    def __init__(
        self,
        teacher: Teacher,
        nets: StudentNets,
        ema: EMA,
        sigmas: tuple[float, ...],
        recipe: StudentRecipe,
        budget: Budget,
        engine: Engine,
        guidance: float = 1.0,
    ) -> None:
        """Keep the current weights as the best; nothing is measured yet."""
        self._teacher, self._nets, self._ema = teacher, nets, ema
        self._generator, self._shadow = nets.generator, nets.shadow
        self._sigmas, self._recipe = sigmas, recipe
        self._budget, self._engine, self._guidance = budget, engine, guidance
        self.preview: Tensor | None = None
        self.stats: dict[str, Any] = {}
        self.reference: Judge | None = None
        self._teachers: Tensor | None = None
        self.num_images = 0
        self.flats, self.palette = Flats(), teacher.config.palette
        self.most_varied = 0.0  # the highest variety so far
        self._clock = engine.ranks.clock
        self._call = 0.0  # seconds of a network call for a picture
        self._milliseconds: float | None = None
        self._cost, self._group = 0.0, at_once(num_pixels(teacher.config.size))
        self.best_weights = [p.detach().clone() for p in nets.generator.parameters()]
        self.best_as: dict[str, Any] = {}

    def begin(self, seconds: float | None) -> tuple[Judgement, float | None]:
        """Draw the teacher's own pictures, and measure the generator before its first step.

        Returns:
            The judgement, and the standard deviation of the generator's first pictures (None after
            a resume).
        """
        self._teachers = self._teachers_pictures(seconds)
        self.reference = Judge(self._teachers, self._extractors())
        if self.best_as:
            return Judgement(), None
        start = self._clock()
        pictures = self.pictures(self._generator, self.num_images)
        milliseconds = 1000 * (self._clock() - start) / self.num_images
        rgba = self._teacher.config.alpha != "none"
        spread = (premultiplied(pictures) if rgba else pictures).std().item()
        pictures = self._finished(pictures)
        found = self.reference.measure(pictures)
        self._cost = (self._clock() - start) / self.num_images
        self._keep(found, share=None)
        self.preview = pictures[:_SHEET]
        varied = self._variety(pictures)
        self.most_varied = varied.value
        # Three digits, but all written out: 1,140 and not 1.14e+03.
        floors = float(f"{found.at_standard:.3g}")
        event = (
            f"before training: {self._called} of the teacher {self._is} {floors:,g} "
            f"floors from its sampler, on {self.num_images} pictures"
        )
        rows = self._few_steps(seconds)
        if told := in_words(rows):
            event += f"; {told}"
        judgement = _judgement(found, varied, event=event)
        return replace(judgement, teacher_steps=rows or None, milliseconds=milliseconds), spread

    def _few_steps(self, seconds: float | None) -> tuple[Row, ...]:
        """What the teacher draws in few steps, as far as there is time to measure it.

        With a budget of images it takes no more calls than the budget has images.
        """
        assert self.reference is not None
        limit = float(self._budget.images or 0)
        if seconds is not None:
            limit = _STEPS_SHARE * seconds / max(self._call, 1e-9)
        steps, count = affordable_steps(self.num_images, limit)
        teacher, group, clock = self._teacher, self._group, self._clock
        return teacher_steps(teacher, self.reference, steps, count, group, self._guidance, clock)

    @torch.no_grad()
    def judge(self, seconds: float | None) -> Judgement:
        """Measure every average against the teacher's own pictures; keep the best ever."""
        assert self.reference is not None
        found, num_images = [], self._affordable(seconds)
        varied: list[Variety] = []
        for index, share in enumerate(self._recipe.ema_shares):
            self._ema.copy_to(self._shadow, index)
            pictures = self.pictures(self._shadow, num_images)
            if not pictures.isfinite().all():
                return Judgement(trouble="a generated pixel is not a number")
            pictures = self._finished(pictures)
            floors = self.reference.measure(pictures)
            found.append(floors)
            varied.append(self._variety(pictures))
            if floors.at_standard < self.best_as["floors"] and not self._collapsed(varied[-1]):
                self._keep(floors, share)
                self.preview = pictures[:_SHEET]
        index = min(range(len(found)), key=lambda i: found[i].value)
        nearest, most = found[index], varied[index]
        limit = self._recipe.distance_jump * max(self.best_as["high"], 0.0)
        climbed = nearest.low * nearest.to_standard > limit
        worse = nearest.at_standard > self.best_as["floors"]
        trouble = (
            f"the distance rose to {nearest.at_standard:.3g} floors from "
            f"{self.best_as['floors']:.3g}"
        )
        collapsed = self._collapsed(most)
        # more than the teacher's is noise, and losing it is no fault
        self.most_varied = max(self.most_varied, min(most.value, 1.0))
        return _judgement(nearest, most, trouble=trouble if climbed and worse else collapsed)

    def finish(self, seconds: float | None, left: float | None = None) -> Judgement:
        """Choose the best weights, and whether a second call makes them better, by the judge.

        Args:
            seconds: about how long one evaluation may take; None: no limit.
            left: seconds after which nothing more is chosen; None: no limit.
        """
        clock = self._clock
        deadline = Deadline(clock, math.inf if left is None else clock() + left)
        judgement = replace(self.judge(seconds), trouble=None)
        best = self.best_as
        one, second, varied = self._last_floors(deadline)
        kept = (
            "the weights from before training"
            if best["share"] is None
            else f"the weight average with look-back {best['share']:g}"
        )
        self.stats |= {
            "distance": one.parts[0].value,
            "floors": one.to_dict(),
            "distance_against": "the teacher's own pictures",
            "variety": varied.to_dict(),
            **({} if self._guidance == 1 else {"guidance": self._guidance}),
            "ema_share": best["share"],
        }
        flats = f"; flats: {self.flats.reason}" if self.flats.level else ""
        far = f"{one.at_standard:.3g} floors from the teacher's pictures"
        alike = self._alike(varied)
        event = f"kept {kept}: {far}{alike}; {second}{flats}"
        told = {"distance": one.parts[0].value, "floors": told_floors(one)}
        ms = self._milliseconds  # of a picture: in the log alone, as no two runs have the same
        return replace(judgement, event=event, variety=varied.value, milliseconds=ms, **told)

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
            "most_varied": self.most_varied,
            "flats": asdict(self.flats),
            "palette": self.palette.to_dict(),
            "stats": self.stats,
            "preview": self.preview,  # drawn again when an evaluation finds no better weights
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        torch._foreach_copy_(self.best_weights, state["best_weights"])
        self.best_as, self.stats = state["best"], state["stats"]
        if self.best_as:  # older versions kept no floors: whatever is measured next is better
            self.best_as.setdefault("floors", math.inf)
        self.preview = state.get("preview")
        self.most_varied = state.get("most_varied", 0.0)  # older versions did not measure it
        self.flats = Flats.from_dict(state.get("flats", {}))  # older versions had none
        self.palette = Palette.from_dict(state.get("palette", {}))
        self.num_images, self._cost = state["num_images"], state["cost"]

    @torch.no_grad()
    def pictures(
        self, denoiser: nn.Module, num_images: int, first: int = 0, calls: int | None = None
    ) -> Tensor:
        """Draw pictures, float [num_images, c, h, w] in [-1, 1], on the CPU.

        Args:
            denoiser: of a generator.
            num_images: number of pictures.
            first: number of the first one, which its noise depends on.
            calls: the first so many calls; None: all.
        """
        parts, quick = [], self._nets.computing(denoiser)
        sigmas = self._sigmas[:calls]
        for start in range(0, num_images, self._group):
            count = min(self._group, num_images - start)
            z = self._teacher.noise(_SEED, first + start, count, stream=1)
            labels = self._teacher.labels(_SEED, first + start, count, None)
            later = [
                self._teacher.noise(_SEED, first + start, count, _LATER + i)
                for i in range(len(sigmas) - 1)
            ]
            drawn = in_calls(quick, z, sigmas, later, labels)
            parts.append(self._teacher.config.as_shown(drawn.float().clamp(-1, 1)).cpu())
        return torch.cat(parts)

    def _finished(self, pictures: Tensor) -> Tensor:
        """What the net drew as people get it: with flats, once they are chosen, on the palette."""
        return self.palette.applied(self.flats.applied(pictures))

    def _variety(self, pictures: Tensor, first: int = 0) -> Variety:
        """How much pictures differ from each other, over the teacher's own."""
        assert self._teachers is not None
        teacher, count = self._teacher, len(self._teachers)
        return variety(
            pictures,
            self._teachers,
            teacher.labels(_SEED, first, len(pictures), None),
            teacher.labels(_SEED, 0, count, None),
        )

    def _collapsed(self, varied: Variety) -> str | None:
        """Say that the pictures became alike; None if they did not."""
        if varied.value >= self._recipe.variety_fall * self.most_varied:
            return None
        where = self._named(varied)
        return (
            f"the pictures{where} became alike: they differ {varied.value:.2g} times as much as "
            f"the teacher's, after {self.most_varied:.2g} times"
        )

    def _named(self, varied: Variety) -> str:
        """The least varied class in words, if it is less varied than all together."""
        if varied.lowest is None or varied.value == varied.overall:
            return ""
        return f" of {self._teacher.classes[varied.lowest]}"

    def _extractors(self) -> list[Extractor]:
        """Frozen features, and those of the teacher if it has layers that could be read."""
        teacher = self._teacher
        seen = teacher_features(teacher.denoiser, bool(teacher.classes), teacher.config.sigma_range)
        return [NativeFeatures()] if seen is None else [NativeFeatures(), seen]

    def _keep(self, found: Floors, share: float | None) -> None:
        """Remember the weights of an average, or of the start (share None), as the best so far."""
        weights = self._generator if share is None else self._shadow
        torch._foreach_copy_(self.best_weights, [p.detach() for p in weights.parameters()])
        self.best_as = {
            "distance": found.parts[0].value,
            "floors": found.at_standard,
            "high": found.high * found.to_standard,
            "share": share,
        }

    def _teachers_pictures(self, seconds: float | None) -> Tensor:
        """Draw pictures with the teacher's sampler, as many as time allows; the same on resume."""
        wanted = self.num_images or self._recipe.distance_images
        if self._budget.images is not None:  # there is no time limit, so the budget is the limit
            wanted = min(wanted, max(_FEWEST, self._budget.images // _IMAGES_A_PICTURE))
        start, parts, drawn = self._clock(), [], 0
        while drawn < wanted:
            count = min(self._group, wanted - drawn)
            # with the guidance that is distilled, and not that of its sampler
            pictures = self._teacher.draw(_SEED, drawn, count, guidance=self._guidance)
            parts.append(pictures.float().cpu())
            drawn += count
            late = seconds is not None and self._clock() - start > seconds
            if not self.num_images and late and drawn >= LEAST:
                break
        self.num_images = drawn
        calls = self._teacher.network_calls(guidance=self._guidance)
        self._call = (self._clock() - start) / (drawn * calls)
        return torch.cat(parts)

    def _affordable(self, seconds: float | None) -> int:
        """Number of pictures of each average that can be evaluated in this time."""
        if seconds is None or not self._cost:
            return self.num_images
        most = int(seconds / (self._cost * len(self._recipe.ema_shares)))
        return min(max(most, _FEWEST), self.num_images)

    def _alike(self, varied: Variety) -> str:
        """Say of the kept weights that they draw few pictures, or ""."""
        if varied.value >= ALIKE:
            return ""
        share = f"{varied.value:.2g} of the teacher's variety"
        return f"; its pictures{self._named(varied)} are too alike ({share})"

    def _last_floors(self, deadline: Deadline) -> tuple[Floors, str, Variety]:
        """The pictures, measured again; in words, what more calls do; the variety.

        The number that chose the weights is the lowest of many, and so too low: new pictures are
        measured. The best noise before a second call is chosen on one half of them, and the call is
        offered if the other half says that it surely makes the pictures better.
        """
        assert self.reference is not None
        count = self.num_images
        if self._cost and not math.isinf(deadline.end):
            affordable = int(deadline.left / (_LAST * self._cost))
            count = min(count, max(LEAST, affordable))
        denoiser, start = self.best(), self._clock()
        pictures = self.pictures(denoiser, count, _FRESH)
        self._milliseconds = 1000 * (self._clock() - start) / count
        self.palette = choose_tolerance(pictures, self.palette)
        known = self._teacher.config.flats
        self.flats = choose_level(pictures, known, self.reference, self.palette)
        shown = self._finished(pictures)
        one = self.reference.measure(shown)
        varied = self._variety(shown, _FRESH)
        if len(self._sigmas) > 1:
            return one, self._call_by_call(one, deadline), varied
        half = max(2, len(pictures) // 2)
        tried: dict[float, float] = {}
        for sigma in self._recipe.two_call_sigmas:
            if not deadline.fits(2 * half * self._cost):  # this try, and the decision
                break
            tried[sigma] = self._measured_twice(pictures[:half], sigma, _FRESH).at_standard
        if not tried:
            self.stats["two_call_sigma"] = None
            return one, "the budget left no time to try a second call, so it is not offered", varied
        sigma = min(tried, key=tried.__getitem__)
        rest = pictures[-half:]
        two = self._measured_twice(rest, sigma, _FRESH + len(pictures) - half)
        difference = two.minus(self.reference.measure(shown[-half:]))
        self.stats |= {
            "two_call_sigma": sigma if difference.surely_less else None,
            "two_call_floors": {f"{s:g}": f for s, f in tried.items()},
            "distance_two_calls": two.parts[0].value,
            "two_calls_minus_one": [difference.low, difference.high],
        }
        if difference.surely_less:
            better = f"{-difference.value:.2g} floors nearer"
            return one, f"a second call with noise {sigma:g} before it is {better}", varied
        return one, "a second call is not surely better, so it is not offered", varied

    def _call_by_call(self, last: Floors, deadline: Deadline) -> str:
        """How far the pictures are after each of several calls; in words."""
        assert self.reference is not None
        found: dict[int, float] = {}
        count = max(2, self.num_images // 2)
        for calls in range(1, len(self._sigmas)):
            if not deadline.fits(count * self._cost):
                break
            pictures = self.pictures(self.best(), count, _FRESH, calls)
            found[calls] = self.reference.measure(self._finished(pictures)).at_standard
        found[len(self._sigmas)] = last.at_standard
        self.stats |= {
            "two_call_sigma": None,
            "floors_by_call": {str(calls): floors for calls, floors in found.items()},
        }
        told = ", ".join(f"{floors:.3g} after {calls}" for calls, floors in found.items())
        return f"drawn in {len(self._sigmas)} calls; floors: {told}"

    @property
    def _called(self) -> str:
        return "one call" if len(self._sigmas) == 1 else f"{len(self._sigmas)} calls"

    @property
    def _is(self) -> str:
        return "is" if len(self._sigmas) == 1 else "are"

    def _measured_twice(self, pictures: Tensor, sigma: float, first: int) -> Floors:
        """How far pictures are after a second call, as they would be drawn."""
        assert self.reference is not None
        return self.reference.measure(self._finished(self._second_calls(pictures, sigma, first)))

    @torch.no_grad()
    def _second_calls(self, pictures: Tensor, sigma: float, first: int) -> Tensor:
        parts, own = [], self._teacher.config
        for start in range(0, len(pictures), self._group):
            part = pictures[start : start + self._group].to(self._engine.device)
            part = part if own.alpha == "none" else premultiplied(part)
            noise = self._teacher.noise(_SEED, first + start, len(part), stream=3)
            labels = self._teacher.labels(_SEED, first + start, len(part), None)
            drawn = second_call(self._teacher.denoiser, part, sigma, noise, labels)
            parts.append(own.as_shown(drawn.float()).cpu())
        return torch.cat(parts)


def _judgement(
    found: Floors, varied: Variety, event: str | None = None, trouble: str | None = None
) -> Judgement:
    return Judgement(
        distance=frozen_distance(found),
        floors=told_floors(found),
        variety=varied.value,
        event=event,
        trouble=trouble,
    )
