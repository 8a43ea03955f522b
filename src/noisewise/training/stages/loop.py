"""The training loop of every stage: budget, learning rate, evaluations, going back after trouble.

A stage (`teacher.TeacherStage`, `student.StudentStage`) trains one step and evaluates itself. The
loop tracks the budget, sets the learning rate, decides when to evaluate, and goes back to a good
state when training fails. It yields one Record per step and writes no files:

    for record in Loop(stage, budget, pace).records():
        print(record.step, record.loss)

Between two records the loop can be saved (`state_dict`) and continued in another process
(`load_state_dict`). On a CPU, with a budget of images, the result equals that of an uninterrupted
run bit for bit.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from noisewise.training.devices.processes import Ranks
from noisewise.training.settings.recipes import lr_factor
from noisewise.training.stages.record import Kind, Record
from noisewise.training.stages.speed import Speed, SpeedWatch
from noisewise.training.stages.stage import Judgement, Pace, Stage
from noisewise.training.stages.timetable import Counters, Judging, Timetable

if TYPE_CHECKING:
    from noisewise.training.settings.budget import Budget

_RESET_TRIES = 0.1  # share of the budget without trouble that resets the count of tries


class TrainingFailed(RuntimeError):
    """Training failed more often than the recipe allows; the message says why and what to do."""


class Loop:
    """Trains a stage until its budget is used up.

    Attributes:
        speed: time and images of the steps of this call, with a budget of time.

    Args:
        stage: the model in training.
        budget: how long to train.
        pace: the schedule.
        clock: returns seconds that only increase; None: the clock of the machine.
        ranks: the processes that run this loop together; None: only this one.
    """

    def __init__(
        self,
        stage: Stage,
        budget: Budget,
        pace: Pace,
        clock: Callable[[], float] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """Start at step 0."""
        self.stage = stage
        self.budget = budget
        self._times = Timetable(budget, pace, stage.finish_cost)
        self._pace = pace
        self.ranks = ranks or Ranks()
        self._clock = clock or self.ranks.clock
        self._zero = self._clock()
        self._good: dict[str, Any] = {}
        self._unread: list[Tensor] = []
        self._unread_since = 0.0
        self._step_seconds = 0.0  # of the last step
        self.speed = Speed(possible=stage.speed)
        # With a budget of images the log must not depend on the machine's speed.
        timed = budget.seconds
        self._watch = None if timed is None else SpeedWatch(self.speed, timed)
        self._resumed = False
        self._failed = ""

    @property
    def at(self) -> Counters:
        """The progress of the loop, as counters."""
        return self._times.at

    @property
    def progress(self) -> float:
        """Share of the budget used, 1 at the end; time for the final evaluation is reserved."""
        return self._times.progress

    @property
    def finished(self) -> bool:
        """Whether the budget is used up and the final weights are chosen."""
        return self.at.finished

    @property
    def can_be_saved(self) -> bool:
        """Whether the numbers of every step were checked and training has not failed."""
        return not self._unread and not self._failed

    def records(self, stop: Callable[[], bool] | None = None) -> Iterator[Record]:
        """Train and yield one Record per step, until the budget is used up or `stop` returns true.

        A stopped loop ends with a record of kind "stopped" and is not `finished`; it can be saved
        and resumed.

        Raises:
            TrainingFailed: if training went back `pace.tries` times and failed again, each time
                within a tenth of the budget after the last; the last record says so too.
        """
        if self.finished:
            return
        self._zero = self._clock() - self.at.seconds
        resumed = self._resumed
        judgement = self._agreed(self.stage.begin(self._times.allowance(begin=True)))
        self._times.expect(judgement.expected)
        if not self._good:
            self._remember_as_good()
        if resumed:
            yield self._record("resumed", f"resumed at step {self.at.step}")
        else:
            yield self._record("begun", judgement.event, judged=judgement)
        while self.progress < 1 and self._has_room():
            if stop is not None and self.ranks.any(stop()):
                yield from self._stop()
                break
            yield self._step()
            if self._failed:
                break
        else:
            trouble = self._read()[1]  # with check_every > 1 the last steps are not checked yet
            if trouble:
                yield self._record(*self._go_back(trouble))
            if not self._failed:
                yield self._finish()
        if self._failed:
            raise TrainingFailed(self._failed)

    def already_finished(self) -> Record:
        """The record of a finished loop that is started again."""
        at = self.at
        event = (
            f"already finished with this budget ({self.budget}); to train longer, give a larger one"
        )
        return Record(
            self.stage.name, at.step, at.images, at.seconds, event=event, kind="already_finished"
        )

    @property
    def good(self) -> dict[str, Any]:
        """The learned state at the last evaluation without trouble: training goes back to it."""
        return self._good

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resume needs, as tensors and JSON values."""
        rest, learned = self.stage.rest(), self.stage.learned()
        return {"counters": dict(vars(self.at)), "learned": learned, "rest": rest}

    def load_state_dict(self, state: dict[str, Any], good: dict[str, Any] | None = None) -> None:
        """Restore the result of `state_dict`; with a larger budget a finished loop continues.

        Args:
            state: result of `state_dict`.
            good: `good` at that time; None: `state` is also the state to go back to.
        """
        self.stage.load_learned(state["learned"])
        self.stage.load_rest(state["rest"])
        self._times.resume(Counters(**state["counters"]))
        self._good = good or {}
        self._resumed = True

    def _step(self) -> Record:
        self._tick()
        at, pace = self.at, self._pace
        if not self._unread:
            self._unread_since = at.seconds
        progress = self.progress
        factor = at.lr_scale * lr_factor(progress, pace.warmup, pace.decay_from, pace.begins)
        self._unread.append(self.stage.step(at.step, at.images, factor, progress))
        at.step += 1
        at.images += self.stage.batch
        self._tick()
        if len(self._unread) < self.stage.check_every:
            return self._record()
        steps = len(self._unread)
        measured, trouble = self._read()
        self._tick()
        self._step_seconds = (at.seconds - self._unread_since) / steps
        slow = self._slow(steps)
        judgement = None if trouble else self._judge_if_due()
        if judgement is not None:
            trouble = judgement.trouble
        found = judgement or Judgement()
        kind, event = self._go_back(trouble) if trouble else ("step", found.event)
        if slow:
            kind = "slowed" if kind == "step" else kind
            event = "; ".join(filter(None, (event, slow)))
        self._tick()
        return self._record(
            kind,
            event,
            measured,
            lr=self.stage.lr * factor,
            judged=found,
        )

    def _has_room(self) -> bool:
        """Whether another step ends in time; the first one is always taken."""
        return not self.at.step or self._times.has_room(self._step_seconds)

    def _stop(self) -> Iterator[Record]:
        """Check the last steps, then yield the last records of a stopped loop."""
        trouble = self._read()[1]
        if trouble:
            yield self._record(*self._go_back(trouble))
        if not self._failed:
            yield self._record("stopped", "stopped on request")

    def _read(self) -> tuple[dict[str, float], str | None]:
        """Read the numbers of the last steps; return the last row, and what is wrong or None."""
        if not self._unread:
            return {}, None
        rows = torch.stack(self._unread).tolist()
        self._unread.clear()
        row: dict[str, float] = {}
        for values in rows:
            row = dict(zip(self.stage.measures, values, strict=True))
            bad = [name for name, value in row.items() if not math.isfinite(value)]
            trouble = f"{bad[0].strip('_')} is {row[bad[0]]}" if bad else None
            trouble = trouble or self.stage.trouble(row, self.progress)
            if trouble:
                return row, trouble
        return row, None

    def _slow(self, steps: int) -> str:
        """Count the time of the last steps; say if they were much slower than possible, or ""."""
        if self._watch is None or self.budget.seconds is None or not self.stage.at_full_size:
            return ""  # coarse scales are many times as fast: next to them the rest looks slow
        self._tick()
        at = self.at
        left = self.budget.seconds - at.seconds
        seconds = at.seconds - self._unread_since
        return self._watch.step(seconds, steps * self.stage.batch, steps, left)

    def _judge_if_due(self) -> Judgement | None:
        """Evaluate if it is time and the budget allows it; remember a state without trouble."""
        kind = self._times.due()
        if kind is None:
            return None
        judgement = self._judge(kind)
        if not judgement.trouble:
            self._remember_as_good()
        return judgement

    def _remember_as_good(self) -> None:
        self._good = copy.deepcopy(self.stage.learned())
        self.at.good_step = self.at.step

    def _judge(self, kind: Judging) -> Judgement:
        start = self._clock()
        judged = self.stage.judge(kind == "distance", self._times.allowance())
        judgement = self._agreed(judged)
        self._times.spent(kind, self._clock() - start)
        return judgement

    def _agreed(self, judgement: Judgement) -> Judgement:
        """The judgement of the first process, so that all processes do the same."""
        return Judgement(**self.ranks.agree(asdict(judgement)))

    def _go_back(self, trouble: str) -> tuple[Kind, str]:
        """Go back to the last good state with half the learning rate, or give up; say which."""
        at = self.at
        if self.progress - at.tried_at > _RESET_TRIES:
            at.tries = 0
        at.tries, at.tried_at = at.tries + 1, self.progress
        if at.tries > self._pace.tries:
            return self._give_up(
                f"{self.stage.name} training failed {at.tries} times, the last time at step "
                f"{at.step} because {trouble}"
            )
        self.stage.load_learned(self._good)
        at.lr_scale /= 2
        change = self.stage.retreat()
        count = f"try {at.tries} of {self._pace.tries}"
        changes = f"learning rate halved{', ' + change if change else ''}"
        return "went_back", f"went back to the last good state: {trouble}; {changes} ({count})"

    def _give_up(self, why: str) -> tuple[Kind, str]:
        self._failed = (
            f"{why}; train again in a new folder with a lower learning rate or another seed (a run "
            "keeps its first settings)"
        )
        return "failed", f"gave up: {self._failed}"

    def _finish(self) -> Record:
        judgement = self._agreed(self.stage.finish(self._times.allowance(), self._times.left()))
        self._tick()
        if judgement.trouble:
            why = f"{self.stage.name} training gave no usable weights"
            return self._record(*self._give_up(f"{why}: {judgement.trouble}"))
        self.at.finished = True
        return self._record(
            "finished",
            f"finished: {judgement.event}",
            judged=judgement,
        )

    def _tick(self) -> None:
        self.at.seconds = self._clock() - self._zero

    def _record(
        self,
        kind: Kind = "step",
        event: str | None = None,
        measured: dict[str, float] | None = None,
        lr: float | None = None,
        judged: Judgement | None = None,
    ) -> Record:
        values, judged = measured or {}, judged or Judgement()
        return Record(
            stage=self.stage.name,
            step=self.at.step,
            images=self.at.images,
            seconds=self.at.seconds,
            loss=values.get("loss"),
            heldout_loss=judged.heldout_loss,
            lr=lr,
            grad_norm=values.get("grad_norm"),
            noise_scale=self.stage.noise_scale() if values else None,
            distance=judged.distance,
            floors=judged.floors,
            event=event,
            fake_loss=values.get("fake_loss"),
            fisher=values.get("fisher"),
            variety=judged.variety,
            teacher_steps=judged.teacher_steps,
            milliseconds=judged.milliseconds,
            kind=kind,
        )


def good_step(state: dict[str, Any]) -> int | None:
    """The step of the good state of a saved loop; None if `state` is not from a loop."""
    counters = state.get("counters")
    step = counters.get("good_step") if isinstance(counters, dict) else None
    return step if isinstance(step, int) else None
