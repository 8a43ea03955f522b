"""Evaluates a teacher during training: held-out loss, judge, best weight average, sampler.

While the teacher is in training, the judge reads frozen features alone. Once its weights are
chosen, it reads the teacher's own features too: they see the faults that people see.

Paper: Karras et al. 2024 (EDM2) for choosing among weight averages after training.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from noisewise.diffusion import draw_to_dict
from noisewise.quality.enough import LEAST
from noisewise.quality.judge import Floors, Judge
from noisewise.sizes import num_pixels
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.master_weights import MasterWeights
from noisewise.training.devices.sharding import copy_tensors
from noisewise.training.models.model_config import (
    Flats,
    ModelConfig,
    SamplerSettings,
    guided_interval,
)
from noisewise.training.models.models import Teacher
from noisewise.training.models.palette import NO_PALETTE, Palette
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.choose_flats import choose_level, flats_of, seconds_of
from noisewise.training.stages.choose_palette import choose_tolerance
from noisewise.training.stages.choose_sampler import choose_sampler, sampler_of_bands
from noisewise.training.stages.evaluation_times import (
    FILLED,
    Deadline,
    EvaluationTimes,
    seconds_a_call,
)
from noisewise.training.stages.guards import LossGuard
from noisewise.training.stages.heldout_loss import HeldOutBatch
from noisewise.training.stages.lost_classes import loses_a_class
from noisewise.training.stages.plan import TeacherPlan
from noisewise.training.stages.real_judge import (
    frozen_distance,
    real_indices,
    real_judge,
    told_floors,
)
from noisewise.training.stages.stage import Judgement
from noisewise.training.stages.weight_averages import EMA

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.budget import Budget

_SHEET, _SHEET_PIXELS = 64, 2**24  # pictures, and pixels, on a sample sheet
_CALLS_AN_IMAGE = 1.0  # network calls of a choice or a distance for each image of a budget
_FRESH = 1_000_000  # pictures from here on have chosen nothing, so their floors are not too low
_TELLING = 128  # with fewer generated or real pictures, the weights are chosen by the loss alone
_LATE = "; this took longer than the budget, so some choices of the judge may be missing"
_LABELLED = 600  # training pictures that show whether guidance loses a class
_WASTED = 0.8  # if the held-out loss was lowest before this share of the run, the user is told


class TeacherJudge:
    """Evaluates every weight average of a teacher, and keeps the best weights.

    Args:
        shadow: a frozen copy of the denoiser; averages are written into it for evaluation.
        quick: `shadow` with a copy in the computing precision.
        ema: the weight averages.
        pictures: all pictures.
        split: indices of the training pictures and of the held-out pictures.
        plan: the values derived from the pictures.
        recipe: how often to evaluate, and on how many pictures.
        budget: budget of the training; it limits the choice of the sampler.
        engine: device and precision.
    """

    def __init__(
        self,
        shadow: nn.Module,
        quick: MasterWeights,
        ema: EMA,
        pictures: Pictures,
        split: tuple[np.ndarray, np.ndarray],
        plan: TeacherPlan,
        recipe: TeacherRecipe,
        budget: Budget,
        engine: Engine,
    ) -> None:
        """Keep the current weights as the best; nothing is measured yet."""
        self._shadow, self._quick, self._ema = shadow, quick, ema
        self._pictures, self._plan, self._recipe = pictures, plan, recipe
        self._training, self._held_out = split
        self._budget, self._engine = budget, engine
        self.guard = LossGuard()
        self.preview: Tensor | None = None
        self.stats: dict[str, Any] = {}
        self.kept = [p.detach().clone() for p in shadow.parameters()]
        self.kept_as: dict[str, Any] = {"loss": math.inf, "share": None, "images": 0}
        self.losses: list[float] = []
        self._against = ""
        self._sampler = SamplerSettings(
            sigma_max=plan.sigma_max,
            sigma_min=recipe.sigma_min,
            num_steps=recipe.num_steps,
            guidance_interval=guided_interval(plan.sigma_data),
        )
        if plan.prediction == "bands":
            self._sampler = sampler_of_bands(self._sampler, plan.net)
        self._flats, self._palette = Flats(), plan.palette
        self._judge: Judge | None = None
        self._held: HeldOutBatch | None = None
        self._num_held: int | None = None  # a resumed training keeps its number
        averages, clock = len(recipe.ema_shares), engine.ranks.clock
        self._times = EvaluationTimes(num_pixels(plan.size), averages, budget.seconds, clock)

    def prepare(self) -> dict[str, float] | None:
        """Draw the held-out noise, and compute the features of the real pictures.

        Returns:
            What a held-out loss and a distance will take, in seconds; None with a budget of images.
        """
        times = self._times
        if times.budget is not None:
            times.call = seconds_a_call(
                Teacher(self._quick.module, self.model_config()), self._engine
            )
        if self._num_held is None:
            self._num_held = times.num_held(self._recipe.heldout_images)
        self._held = self._held_batch(self._num_held)
        if self._recipe.distance_images:
            real, self._against = self.real_indices()
            self._judge = real_judge(self._pictures, real, late=times.late_for_real())
        if times.budget is None:
            return None
        heldout = times.heldout(len(self._held))
        calls = self._sampler.calls
        drawn = times.drawing(times.num_drawn(calls), calls)
        return {"heldout": heldout, "distance": heldout + drawn}

    @torch.no_grad()
    def judge(self, seen: int, full: bool, seconds: float | None) -> Judgement:
        """Measure every average's held-out loss and the best one's distance; keep the best ever.

        Args:
            seen: number of images seen so far.
            full: whether to measure the distance.
            seconds: approximate time limit of the distance; None: no limit.
        """
        self.losses = losses = self._heldout_losses()
        best = min(range(len(losses)), key=lambda at: (math.isnan(losses[at]), losses[at]))
        loss, kept = losses[best], self.kept_as
        trouble = self.guard.climbed(loss, kept["loss"])
        self._ema.copy_to(self._shadow, best)
        # Without held-out pictures the loss cannot tell learning from memorising.
        if not trouble and (loss < kept["loss"] or not len(self._held_out)):
            share = self._recipe.ema_shares[best]
            self.kept_as = {"loss": loss, "share": share, "images": seen}
            copy_tensors(self.kept, list(self._shadow.parameters()))
        measures = full and self._judge is not None and math.isfinite(loss)
        found = self._measured(seconds) if measures else None
        return Judgement(
            loss if math.isfinite(loss) else None,
            frozen_distance(found),
            told_floors(found),
            trouble=trouble,
        )

    def finish(self, seen: int, seconds: float | None, left: float | None = None) -> Judgement:
        """Choose the weights by held-out loss and by the judge, then their sampler; measure both.

        The weights with the lowest held-out loss ever are kept, unless the pictures of the last
        averages are surely nearer to real ones.

        Args:
            seen: number of images seen.
            seconds: about how long one evaluation may take; None: no limit.
            left: seconds after which nothing more is chosen, as on a machine that became slow;
                None: no limit.
        """
        times, clock = self._times, self._times.clock
        deadline = Deadline(clock, math.inf if left is None else clock() + left)
        judgement = Judgement(self.kept_as["loss"])
        if not self.losses or deadline.fits(times.heldout(len(self._held or ()))):
            judgement = self.judge(seen, False, seconds)
        if self.kept_as["share"] is None:
            return judgement
        overruled = self._overrule(seen, seconds, deadline)
        kept = self.kept_as
        self.stats |= {
            "ema_share": kept["share"],
            "heldout_loss": kept["loss"],
            "kept_after_images": kept["images"],
        }
        self.best()
        why, found = self._last_choices(seconds, deadline)
        late = _LATE if deadline.late() else ""
        event = f"kept {self._kept_in_words(seen)}{overruled}{why}{late}"
        if found is not None:
            told = told_floors(found)
            far = "too few pictures to tell how far" if told is None else f"{told:.2g} floors"
            event += f"; {far} from {self._against}"
        return Judgement(kept["loss"], frozen_distance(found), told_floors(found), event=event)

    def _last_choices(self, seconds: float | None, deadline: Deadline) -> tuple[str, Floors | None]:
        """Choose sampler and flats, and measure the last distance, as far as time allows.

        Each part leaves the time of a distance on few pictures to those that follow.
        """
        if self._judge is None:
            return "", None
        why, calls = "", self._sampler.calls
        last = self._times.drawing(self._least_drawn(), calls)
        if not deadline.fits(last):
            return "; the budget left no time to draw pictures: their distance is not known", None
        judge = self._complete_judge(deadline, last)
        if deadline.fits(last + self._times.drawing(self._times.group, calls)):
            why = self._choose_sampler(judge, self._times.choosing(seconds, deadline, last))
        pixels, real = self._times.pixels, len(self._training)
        if deadline.fits(2 * last + seconds_of(pixels, self._least_drawn(), real)):
            why += self._choose_flats(judge, seconds)
        found = self._measured(seconds, judge, _FRESH, deadline=deadline)
        again = self._times.drawing(self._least_drawn(), self._sampler.calls)
        limit = None if math.isinf(deadline.end) else deadline.left - again
        self.preview = self._drawn(self._sheet(), limit) if deadline.fits(again) else None
        self.stats |= {
            "distance": frozen_distance(found),
            "distance_against": self._against,
            "floors": found.to_dict(),
        }
        return why, found

    def _kept_in_words(self, seen: int) -> str:
        kept = self.kept_as
        shares = self._recipe.ema_shares
        text = f"the weight average with look-back {kept['share']:g}"
        if kept["images"] < seen:
            text += (
                f" from {kept['images']:,} of {seen:,} images, where the held-out loss was lowest "
                f"({kept['loss']:.4f})"
            )
        if kept["images"] < _WASTED * seen:
            text += (
                "; training after that made it worse: use more pictures, a shorter budget or a "
                "lower learning rate"
            )
        losses = zip(shares, self.losses, strict=True)
        listed = ", ".join(f"{x:.4f} at {s:g}" for s, x in losses)
        return f"{text}; held-out loss at the end for each look-back: {listed}"

    def _overrule(self, seen: int, seconds: float | None, deadline: Deadline) -> str:
        """Keep one of the last averages if its pictures are surely nearer; say so, or ""."""
        judge = self._judge
        if judge is None or min(len(judge), self._recipe.distance_images) < _TELLING:
            return ""
        calls, times = self._sampler.calls, self._times
        too_few = times.drawing(_TELLING - times.group, calls) > (seconds or math.inf)
        if too_few or not deadline.fits(times.drawing(self._least_drawn(), calls)):
            return ""
        self.best()
        kept = self._measured(seconds, judge)
        if kept.num_a < _TELLING:
            return ""
        by_loss, best, best_share = dict(self.kept_as), kept, None
        for index, share in enumerate(self._recipe.ema_shares):
            if (seen, share) == (by_loss["images"], by_loss["share"]):
                continue
            if not deadline.fits(times.drawing(kept.num_a, calls)):
                break
            self._ema.copy_to(self._shadow, index)
            found = self._measured(None, judge, num_images=kept.num_a)
            if found.minus(kept).surely_less and found.value < best.value:
                best, best_share = found, share
                self.kept_as = {"loss": self.losses[index], "share": share, "images": seen}
                copy_tensors(self.kept, list(self._shadow.parameters()))
        self.stats["floors_by_loss"] = kept.at_standard
        if best_share is None:
            return ""
        return (
            f"; its held-out loss is not the lowest, but its pictures are surely nearer to real "
            f"ones: {best.at_standard:.2g} floors, and {kept.at_standard:.2g} for the lowest"
        )

    # ------------------------------------------------------------------ the best model so far
    @torch.no_grad()
    def write_best(self, denoiser: nn.Module) -> None:
        """Write the best weights so far into a denoiser of the same architecture."""
        copy_tensors(list(denoiser.parameters()), self.kept)

    def best(self) -> nn.Module:
        """A denoiser with the best weights, in eval mode; later calls reuse it."""
        self.write_best(self._shadow)
        return self._shadow

    def best_so_far(self) -> dict[str, Any] | None:
        """Which weights `best` has; None before the first evaluation."""
        return self.kept_as if self.kept_as["images"] else None

    def model_config(self) -> ModelConfig:
        """The content of teacher/config.json."""
        plan, pictures = self._plan, self._pictures
        return ModelConfig(
            kind="teacher",
            net=plan.net,
            sigma_data=plan.sigma_data,
            prediction=plan.prediction,
            size=plan.size,
            channels=plan.channels,
            noise=draw_to_dict(plan.noise),
            noise_scale=plan.noise_scale,
            loss=plan.loss,
            multiscale=plan.multiscale,
            classes=plan.classes,
            label_histogram=pictures.label_histogram if plan.classes else (),
            sampler=self._sampler,
            flats=self._flats,
            alpha=pictures.alpha,
            palette=self._palette,
            stats={
                "num_pictures": len(pictures),
                "fingerprint": pictures.fingerprint,
                **({"kinds": pictures.kinds} if pictures.kinds else {}),
                **self.stats,
            },
        )

    # ------------------------------------------------------------------ for checkpoints
    def state_dict(self) -> dict[str, Any]:
        """Best weights, sampler, guard and measurements."""
        return {
            "kept": self.kept,
            "kept_as": self.kept_as,
            "sampler": asdict(self._sampler),
            "flats": asdict(self._flats),
            "palette": self._palette.to_dict(),
            "stats": self.stats,
            "guard": self.guard.state,
            "num_held": self._num_held,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        self.guard.state = state.get("guard", self.guard.state)  # older versions had none
        self._num_held = state.get("num_held", self._recipe.heldout_images)
        self.stats = state["stats"]
        copy_tensors(self.kept, state["kept"])
        self.kept_as = state["kept_as"]
        self._sampler = SamplerSettings(**state["sampler"])
        self._flats = Flats.from_dict(state.get("flats", {}))  # older versions had none
        self._palette = Palette.from_dict(state.get("palette", {}))

    # ------------------------------------------------------------------ measuring
    def real_indices(self) -> tuple[np.ndarray, str]:
        """Indices of the real pictures that the judge reads, and their name."""
        most = self._recipe.reference_images
        return real_indices(self._training, self._held_out, self._plan.size, most)

    def _complete_judge(self, deadline: Deadline, last: float) -> Judge:
        """The judge with the features of the chosen weights beside the frozen ones.

        On fewer pictures where time is short; without any of these features where even 64 pictures
        take too long. The last distance needs `last` seconds.
        """
        frozen = self._judge
        assert frozen is not None
        if not deadline.fits(last + self._times.features(LEAST)):
            return frozen
        self._quick.update_copy()
        real, _ = self.real_indices()
        real, conditioned = real[: len(frozen)], bool(self._plan.classes)
        return real_judge(
            *(self._pictures, real, self._quick.module, conditioned),
            frozen=frozen,
            late=lambda: not deadline.fits(last),
        )

    def _least_drawn(self) -> int:
        """Pictures of a distance however little time is meant for it."""
        return self._times.num_drawn(self._sampler.calls)

    def _sheet(self) -> int:
        """Pictures on a sample sheet."""
        return max(1, min(_SHEET, _SHEET_PIXELS // self._times.pixels))

    def _held_batch(self, most: int) -> HeldOutBatch:
        chosen = self._held_out[:most]
        if not len(chosen):  # there are too few pictures to hold any out
            chosen = self._training[:most]
        labels = None
        if self._plan.classes:
            assert self._pictures.labels is not None
            labels = torch.from_numpy(self._pictures.labels[chosen].astype(np.int64))
            labels = labels.to(self._engine.device)
        return HeldOutBatch(self._pictures.tensor(chosen), labels, self._plan, self._engine)

    def _heldout_losses(self) -> list[float]:
        assert self._held is not None
        losses, start = [], self._times.clock()
        for index in range(len(self._recipe.ema_shares)):
            self._ema.copy_to(self._shadow, index)
            self._quick.update_copy()
            losses.append(self._held.loss(self._quick.module))
        self._times.heldout_took(len(self._held), self._times.clock() - start)
        return losses

    def _choose_flats(self, judge: Judge, seconds: float | None) -> str:
        """Measure how pictures take flats and the palette; return the reason for flats, or ""."""
        flats = flats_of(self._pictures, self._training) if self._recipe.snap_flats else Flats()
        palette, self._flats, self._palette = self._palette, Flats(), NO_PALETTE
        if flats.values or palette:  # both are measured on what the net draws
            pictures = self._drawn(self._enough(seconds), seconds)
            self._palette = choose_tolerance(pictures, palette)
            self._flats = choose_level(pictures, flats, judge, self._palette)
        return f"; flats: {self._flats.reason}" if flats.values else ""

    def _measured(
        self,
        seconds: float | None,
        judge: Judge | None = None,
        first: int = 0,
        num_images: int | None = None,
        deadline: Deadline | None = None,
    ) -> Floors:
        """How far the shadow's pictures are from real ones, on as many as the time allows.

        With a deadline, on as many as tell something, if they fit before it.
        """
        judge = judge or self._judge
        assert judge is not None
        least = self._least_drawn()
        if deadline is not None and not math.isinf(deadline.end):
            least = self._times.num_drawn(self._sampler.calls, FILLED * deadline.left)
        pictures = self._drawn(num_images or self._enough(seconds), seconds, first, least)
        if not first:  # the sheets during training all start from the same noise
            self.preview = pictures[: self._sheet()]
        return judge.measure(pictures)

    def _enough(self, seconds: float | None) -> int:
        """Pictures for a distance: as many as the recipe says, or the budget of images allows."""
        wanted, images = self._recipe.distance_images, self._budget.images
        if seconds is not None or images is None:
            return wanted
        calls = Teacher(self._quick.module, self.model_config()).network_calls()
        return min(wanted, max(LEAST, int(_CALLS_AN_IMAGE * images) // calls))

    def _drawn(
        self, wanted: int, seconds: float | None, first: int = 0, least: int | None = None
    ) -> Tensor:
        """Pictures of the shadow, on the CPU; if the time is over only the least number."""
        self._quick.update_copy()
        teacher = Teacher(self._quick.module, self.model_config())
        least, clock = self._least_drawn() if least is None else least, self._times.clock
        start, parts, drawn, group = clock(), [], 0, self._times.group
        while drawn < wanted:
            count = min(group, wanted - drawn)
            parts.append(teacher.draw(0, first + drawn, count).float().cpu())
            drawn += count
            late = seconds is not None and clock() - start > seconds
            if late and drawn >= least:
                break
        return torch.cat(parts)

    def _choose_sampler(self, judge: Judge, seconds: float | None) -> str:
        """Measure the best sampler settings; return the reason for the log, or ""."""
        if not self._recipe.sampler_images:
            return ""
        model = Teacher(self._quick.module, self.model_config())

        def inputs(start: int, count: int) -> tuple[Tensor, Tensor | None]:
            return model.noise(0, start, count), model.labels(0, start, count, None)

        # A budget of images has no time limit; the number of training images limits the choice.
        num_images, calls = self._recipe.sampler_images, None
        if seconds is None:
            calls = _CALLS_AN_IMAGE * (self._budget.images or 0) / num_images
        choice = choose_sampler(
            *(model, judge, inputs, self._sampler, num_images),
            *(seconds, calls, self._times.clock, model.of_all_classes(), self._loses_a_class),
            as_shown=model.config.as_shown,
            palette=self._palette,
            sigma_data=self._plan.sigma_data,
        )
        self._sampler = choice.settings
        self.stats["sampler"] = choice.to_dict()
        return f"; sampler: {choice.settings.reason}"

    def _loses_a_class(self, guided: Tensor, plain: Tensor) -> bool:
        """Whether guided pictures lose a class that plain ones have."""
        labels, chosen = self._pictures.labels, self._training[:_LABELLED]
        assert labels is not None
        named = torch.from_numpy(labels[chosen].astype(np.int64))
        real = self._pictures.shown(chosen)
        return loses_a_class(guided, plain, real, named, self._plan.classes)
