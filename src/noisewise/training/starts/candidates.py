"""What a training could start from, each with the plan that it would have: bases, and nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from noisewise.nets.carry_over import followed
from noisewise.sizes import written
from noisewise.training.models.model_folder import Build, build_denoiser
from noisewise.training.run.resumed_plan import with_scaled_lr
from noisewise.training.settings.config import TrainConfig
from noisewise.training.stages.plan import TeacherPlan, plan_teacher
from noisewise.training.stages.step_plan import check_time
from noisewise.training.starts.base import AUTO, Base, load_base, packaged_bases

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.devices.engine import Engine

NOTHING = "nothing"
_MUCH_LARGER = 1.5  # times the arithmetic of the derived net
_FEWEST_STEPS = 10  # that a budget of time must have for the net of a base


@dataclass(frozen=True)
class Candidate:
    """A start with its plan.

    Attributes:
        base: the base; None: nothing.
        plan: of the training from it.
        share: of the weights of the new net that come from the base.
        same_kinds: whether the pictures were sorted into the kinds of the base.
    """

    base: Base | None
    plan: TeacherPlan
    share: float = 0.0
    same_kinds: bool = False

    @property
    def name(self) -> str:
        """Of the base; "nothing"."""
        return NOTHING if self.base is None else self.base.name


@dataclass(frozen=True)
class Candidates:
    """All starts of a training; the last one is nothing.

    Attributes:
        starts: in this order.
        given: whether the base was named by the user.
        left_out: why packaged bases do not fit, one sentence each.
    """

    starts: tuple[Candidate, ...]
    given: bool
    left_out: tuple[str, ...] = ()

    @property
    def first(self) -> Candidate:
        """The base that the user named, or the first one that fits; else nothing."""
        return self.starts[0]


def candidates(
    config: TrainConfig,
    cold: TeacherPlan,
    pictures: Pictures,
    engine: Engine,
    build: Build | None = None,
) -> Candidates | None:
    """Find what a training could start from; None if the settings ask for no start.

    Args:
        config: the settings.
        cold: the plan of a training from nothing.
        pictures: training pictures, already sorted into kinds if there are kinds.
        engine: device and precision.
        build: makes the net from its configuration; None: the nets of noisewise.

    Raises:
        ValueError: if the base that the user named cannot be used; with "auto", never because a
            packaged base does not fit.
    """
    if config.start_from is None:
        return None
    nothing = Candidate(None, cold)
    if config.start_from != AUTO:
        base = load_base(config.start_from, build)
        return Candidates(
            (planned_from(base, config, cold, pictures, engine, build), nothing), True
        )
    found, left_out = [], []
    for base in packaged_bases():
        if base.net.get("name") != cold.net["name"]:
            left_out.append(_other_net(base, cold))
            continue
        try:
            found.append(planned_from(base, config, cold, pictures, engine, build))
        except ValueError as error:
            left_out.append(str(error))
    found.sort(key=lambda one: (-one.share, one.name))
    return Candidates((*found, nothing), False, tuple(left_out))


def planned_from(
    base: Base,
    config: TrainConfig,
    cold: TeacherPlan,
    pictures: Pictures,
    engine: Engine,
    build: Build | None = None,
) -> Candidate:
    """The plan of a training from a base: widths and depth of its net, unless set by hand.

    Args:
        base: the base.
        config: as for `candidates`.
        cold: as for `candidates`.
        pictures: as for `candidates`.
        engine: as for `candidates`.
        build: as for `candidates`.

    Raises:
        ValueError: if nothing of the base fits, or its net is too large for the time.
    """
    same = base.net.get("name") == cold.net["name"]
    follows = same and not config.widths and base.net.get("widths", base.net.get("width"))
    plan = cold
    if follows:
        widths, depth = followed(base.net, cold.net)
        depth = config.depth if config.depth is not None else depth
        like = replace(config, net=cold.net["name"], widths=widths, depth=depth)
        plan = plan_teacher(like, pictures, engine)
        plan, _ = with_scaled_lr(plan, config, None)
        plan = replace(plan, reasons={**plan.reasons, "net": f"as in {base.name}"})
    check_steps(base.name, config, plan, cold)
    try:
        share = shared(base, plan, build)
    except ValueError as error:
        if same or "name" not in base.net:
            raise
        why = f"{_other_net(base, cold)}, and no weight fits"
        raise ValueError(f"{why}; use another base, another --net, or --from none") from error
    why = f"{percent(share)} of the weights come from {base.name}"
    if not same and base.net.get("name"):
        why += f"; {_other_net(base, cold)}, so little is carried over"
    elif same and not follows:
        why += "; the widths were set by hand"
    plan = replace(plan, start=base.name, reasons={**plan.reasons, "start": why})
    return Candidate(base, plan, share)


def shared(base: Base, plan: TeacherPlan, build: Build | None = None) -> float:
    """The share of the weights of a plan's net that come from a base, 0 to 1.

    Raises:
        ValueError: if nothing fits.
    """
    denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction, build)
    return base.into(denoiser, plan).share


def check_steps(name: str, config: TrainConfig, plan: TeacherPlan, cold: TeacherPlan) -> None:
    """Refuse a base whose net is too large for a budget of time, and larger than the derived one.

    Args:
        name: of the base.
        config: the settings.
        plan: with the speed of that net, if it was measured.
        cold: the plan from nothing; on a slow machine its net may have few steps too.

    Raises:
        ValueError: if the budget has few steps.
    """
    seconds, speed = config.amount.seconds, plan.cost.get("images_per_second")
    if seconds is None or not speed:
        return
    steps = int(seconds * speed / plan.batch)
    costs = [one.cost.get("gflops_a_picture", 0.0) for one in (plan, cold)]
    if steps < _FEWEST_STEPS and costs[0] > _MUCH_LARGER * costs[1]:
        raise ValueError(
            f"the net of {name} is too large for this budget: {config.budget} are about {steps} "
            f"steps of {plan.batch} pictures on this machine; use a longer --budget, a smaller "
            "--batch, or --from none"
        )
    check_time(config, plan.size, plan.batch, speed)


def percent(share: float) -> str:
    """A share as people read it; never 100 % of what is not the whole.

    Example:
        >>> percent(1.0), percent(0.9999), percent(0.004)
        ('100 %', '99 %', '0.4 %')
    """
    if share < 0.01:
        return f"{100 * share:.1g} %"
    return f"{100 if share == 1 else min(99, round(100 * share))} %"


def _other_net(base: Base, cold: TeacherPlan) -> str:
    return (
        f"{base.name} has the net {base.net.get('name')}, and {written(cold.size)} pixels take the "
        f"net {cold.net['name']}"
    )
