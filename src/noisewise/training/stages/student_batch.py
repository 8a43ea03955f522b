"""How many pictures a step of distillation has: fewer large ones, and no more than fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from noisewise.nets.costs import costs_of
from noisewise.sizes import mean_side, spelled

if TYPE_CHECKING:
    from noisewise.training.models.model_config import ModelConfig
    from noisewise.training.settings.config import DistillConfig

_NETS = 3  # teacher, fake score and generator: all of them keep what the backward pass needs
_GUIDED = 2  # more calls of a step that is guided: of the teacher, and of the fake score
_SHARE = 0.7  # of the free memory that a step may take
_SIDE = 64  # pixels; above, a batch has fewer pictures
_OURS = ("unet", "pyramid", "uvit", "vit")


def student_batch(
    config: DistillConfig, teacher: ModelConfig, memory: int | None = None
) -> tuple[int, str]:
    """Return the number of pictures in a step, and the reason.

    ``batch = 64 min(1, 64 / side)``, halved until the step fits into the memory.

    Args:
        config: of the distillation; a batch that was set by hand is taken as it is.
        teacher: what its config.json says.
        memory: free bytes; None: it is not looked at.

    Raises:
        ValueError: if the batch does not fit; the message has one that would, if there is one.
    """
    given = config.batch
    batch, why = (given, "set by hand") if given is not None else _by_size(config, teacher)
    nets = 1 if config.student == "lora" else _NETS
    kept = _NETS + (_GUIDED if config.guidance != 1 else 0)
    fitting = batch if memory is None else _fitting(teacher.net, memory, nets, kept)
    if memory is None or fitting is None or batch <= fitting:
        return batch, why
    if given is not None and fitting:
        raise ValueError(
            f"a step of {batch} pictures of {spelled(teacher.size)} pixels does not fit into the "
            f"free memory; use --batch {fitting}"
        )
    if fitting < 1:
        raise ValueError(
            f"distilling pictures of {spelled(teacher.size)} pixels needs three nets, and one "
            f"picture does not fit into the {memory / 2**30:.1f} GiB that are free; free memory, "
            "or train a teacher of smaller pictures"
        )
    while batch > fitting:
        batch //= 2
    return batch, "as many as fit into the free memory with three nets"


def _by_size(config: DistillConfig, teacher: ModelConfig) -> tuple[int, str]:
    usual = config.recipe.batch
    side = mean_side(teacher.size)
    if side <= _SIDE:
        return usual, "at least 64, as in SiD on small sets"
    batch = max(1, 2 ** int(math.log2(usual * _SIDE / side)))
    return batch, "fewer than of small pictures: steps are slow, and a budget needs many"


def _fitting(net: Mapping[str, Any], memory: int, nets: int, kept: int) -> int | None:
    """Pictures at once that fit; None: a net that is not ours, of unknown costs."""
    if net.get("name") not in _OURS:
        return None
    costs = costs_of(net)
    room = int(_SHARE * memory) - nets * costs.fixed_bytes
    return max(0, room // (kept * costs.picture_bytes))
