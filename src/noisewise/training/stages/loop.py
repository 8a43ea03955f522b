"""The loop that every stage of training goes through: budget, learning rate, evaluations, safety.

A stage (`teacher.TeacherStage`, `student.StudentStage`) knows how to step and how to judge itself.
The loop knows how far the budget is, what the learning rate is there, when a judgement is due and
affordable, and how to go back when something breaks. It yields a Record a step and writes nothing:

    for record in Loop(stage, budget, pace).records():
        print(record.step, record.loss)

Between two records the loop can be saved (`state_dict`) and continued elsewhere
(`load_state_dict`); with a budget of images the continued run is the uninterrupted one, bit for
bit, on a CPU.
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
from noisewise.training.stages.stage import Judgement, Pace, Stage
from noisewise.training.stages.timetable import Counters, Judging, Timetable

if TYPE_CHECKING:
    from noisewise.training.settings.config import Budget

_SOUND = 0.1  # of the budget, without trouble: then the tries are counted anew


class TrainingFailed(RuntimeError):
    """Training broke down more often than it may; the message says how and what to change."""


class Loop:
    """Drives a stage through its budget.

    Args:
        stage: what is trained.
        budget: how much.
        pace: when things happen.
        clock: seconds that only go up; None: the machine's.
        ranks: the processes that run this loop together; None: this one alone.
    """

    def __init__(
        self,
        stage: Stage,
        budget: Budget,
        pace: Pace,
        clock: Callable[[], float] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """Nothing runs yet."""
        self.stage = stage
        self.budget = budget
        self._times = Timetable(budget, pace, stage.finish_cost)
        self._pace = pace
        self.ranks = ranks or Ranks()
        self._clock = clock or self.ranks.clock
        self._zero = self._clock()
        self._good: dict[str, Any] = {}
        self._unread: list[Tensor] = []
        self._resumed = False
        self._failed = ""

    @property
    def at(self) -> Counters:
        """Where the loop stands."""
        return self._times.at

    @property
    def progress(self) -> float:
        """Share of the budget used, the judgement at the end left out; 1 is the end."""
        return self._times.progress

    @property
    def finished(self) -> bool:
        """Whether the budget is used up and the weights to keep are chosen."""
        return self.at.finished

    @property
    def settled(self) -> bool:
        """Whether every step taken is known to be good, so that this is a state to save."""
        return not self._unread and not self._failed

    def records(self, stop: Callable[[], bool] | None = None) -> Iterator[Record]:
        """Train, yielding a Record a step, until the budget is used up or `stop` says so.

        A stopped loop ends with an event and is not `finished`; save it and go on later.

        Raises:
            TrainingFailed: if training broke down more often than pace.tries with less than a
                tenth of the budget between; the last record says so too.
        """
        yield from self._records(stop)
        if self._failed:
            raise TrainingFailed(self._failed)

    def _records(self, stop: Callable[[], bool] | None) -> Iterator[Record]:
        if self.finished:
            return
        self._zero = self._clock() - self.at.seconds
        resumed = self._resumed
        judgement = self._agreed(self.stage.begin(self._times.allowance(begin=True)))
        if not self._good:
            self._remember_as_good()
        if resumed:
            yield self._record("resumed", f"resumed at step {self.at.step}")
        else:
            yield self._record("begun", judgement.event, distance=judgement.distance)
        while self.progress < 1:
            if stop is not None and self.ranks.any(stop()):
                yield from self._stop()
                return
            yield self._step()
            if self._failed:
                return
        trouble = self._read()[1]  # where looking costs time, the last steps are not yet looked at
        if trouble:
            yield self._record(*self._retreat(trouble))
        if not self._failed:
            yield self._finish()

    def already_finished(self) -> Record:
        """What to say when a finished loop is asked to go on."""
        at = self.at
        event = f"already finished with this budget ({self.budget}); a larger one goes on"
        return Record(
            self.stage.name, at.step, at.images, at.seconds, event=event, kind="already_finished"
        )

    @property
    def good(self) -> dict[str, Any]:
        """What the stage had learned when it was last judged sound: where training goes back to."""
        return self._good

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resume needs: tensors and JSON values."""
        rest, learned = self.stage.rest(), self.stage.learned()
        return {"counters": dict(vars(self.at)), "learned": learned, "rest": rest}

    def load_state_dict(self, state: dict[str, Any], good: dict[str, Any] | None = None) -> None:
        """Continue where `state_dict` was taken; a larger budget makes a finished run go on.

        Args:
            state: from `state_dict`.
            good: `good` at that time; None goes back to this state itself, if it has to.
        """
        self.stage.load_learned(state["learned"])
        self.stage.load_rest(state["rest"])
        self._times.resume(Counters(**state["counters"]))
        self._good = good or {}
        self._resumed = True

    def _step(self) -> Record:
        self._tick()
        at, pace = self.at, self._pace
        progress = self.progress
        factor = at.lr_scale * lr_factor(progress, pace.warmup, pace.decay_from)
        self._unread.append(self.stage.step(at.step, at.images, factor, progress))
        at.step += 1
        at.images += self.stage.batch
        self._tick()
        if len(self._unread) < self.stage.check_every:
            return self._record()
        measured, trouble = self._read()
        judgement = None if trouble else self._judge_if_due()
        if judgement is not None:
            trouble = judgement.trouble
        found = judgement or Judgement()
        kind, event = self._retreat(trouble) if trouble else ("step", found.event)
        self._tick()
        return self._record(
            kind,
            event,
            measured,
            lr=self.stage.lr * factor,
            heldout_loss=found.heldout_loss,
            distance=found.distance,
        )

    def _stop(self) -> Iterator[Record]:
        """The last records of a loop that somebody stops; its last steps are looked at first."""
        trouble = self._read()[1]
        if trouble:
            yield self._record(*self._retreat(trouble))
        if not self._failed:
            yield self._record("stopped", "stopped on request")

    def _read(self) -> tuple[dict[str, float], str | None]:
        """Read the numbers of the last steps; returns the last row and what is wrong, or None."""
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

    def _judge_if_due(self) -> Judgement | None:
        """Judge when the time has come and the budget allows; a good state is remembered."""
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
        """The first process's judgement: what follows from it must be the same on all."""
        return Judgement(**self.ranks.agree(asdict(judgement)))

    def _retreat(self, trouble: str) -> tuple[Kind, str]:
        """Go back to the last good state with half the learning rate, or give up; what was done."""
        at = self.at
        if self.progress - at.tried_at > _SOUND:
            at.tries = 0
        at.tries, at.tried_at = at.tries + 1, self.progress
        if at.tries > self._pace.tries:
            return self._give_up(
                f"{self.stage.name} training broke down {at.tries} times, at last at step "
                f"{at.step} because {trouble}"
            )
        self.stage.load_learned(self._good)
        at.lr_scale /= 2
        change = self.stage.retreat()
        count = f"{at.tries} of {self._pace.tries}"
        changes = f"learning rate halved{', ' + change if change else ''}"
        return "went_back", f"went back to the last good state ({count}): {trouble}; {changes}"

    def _give_up(self, why: str) -> tuple[Kind, str]:
        self._failed = (
            f"{why}; lower the learning rate or use another seed, in a new folder: this run keeps "
            "the settings that it was begun with"
        )
        return "failed", f"failed: {self._failed}"

    def _finish(self) -> Record:
        allowance = self._times.allowance()
        judgement = self._agreed(self.stage.finish(allowance))
        self._tick()
        if judgement.trouble:
            why = f"nothing that {self.stage.name} training came to can be kept"
            return self._record(*self._give_up(f"{why}: {judgement.trouble}"))
        self.at.finished = True
        return self._record(
            "finished",
            f"finished: {judgement.event}",
            heldout_loss=judgement.heldout_loss,
            distance=judgement.distance,
        )

    def _tick(self) -> None:
        self.at.seconds = self._clock() - self._zero

    def _record(
        self,
        kind: Kind = "step",
        event: str | None = None,
        measured: dict[str, float] | None = None,
        lr: float | None = None,
        heldout_loss: float | None = None,
        distance: float | None = None,
    ) -> Record:
        values = measured or {}
        return Record(
            stage=self.stage.name,
            step=self.at.step,
            images=self.at.images,
            seconds=self.at.seconds,
            loss=values.get("loss"),
            heldout_loss=heldout_loss,
            lr=lr,
            grad_norm=values.get("grad_norm"),
            noise_scale=self.stage.noise_scale() if values else None,
            distance=distance,
            event=event,
            fake_loss=values.get("fake_loss"),
            fisher=values.get("fisher"),
            kind=kind,
        )


def good_step(state: dict[str, Any]) -> int | None:
    """The step of the state that a saved loop goes back to; None if `state` is not a loop's."""
    counters = state.get("counters")
    step = counters.get("good_step") if isinstance(counters, dict) else None
    return step if isinstance(step, int) else None
