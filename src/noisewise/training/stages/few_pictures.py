"""What few pictures need, by how often each will be seen: changed pictures and dropout.

A picture that is seen hundreds of times is learnt by heart. Paper: Karras et al. 2022 (EDM),
appendix F.2, for changed pictures of which the net is told; its dropout of .05 to .25, the more the
fewer pictures there are. From how many looks on they help is not settled: `few_looks` and
`few_dropout` of the recipe are provisional until benchmarks/pictures/few_pictures.py decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from noisewise.training.settings.augment import Change, changes_of
from noisewise.training.stages.augmentation import Augmentation, border_colour

if TYPE_CHECKING:
    from noisewise.pictures.pictures import Pictures
    from noisewise.training.settings.config import TrainConfig

_MEASURED = 256  # pictures whose borders are read
_COLOURED: tuple[Change, ...] = ("hue", "channels")


@dataclass(frozen=True)
class FewPictures:
    """The derived values.

    Attributes:
        augment: an `Augmentation` as a dict; empty: pictures are not changed.
        dropout: share of features dropped at the lowest resolution of the net.
        reasons: of both, by name.
    """

    augment: dict[str, Any]
    dropout: float
    reasons: dict[str, str]


def plan_few(
    config: TrainConfig, pictures: Pictures, images: float | None, flips: bool
) -> FewPictures:
    """Derive changes and dropout.

    Args:
        config: `augment`, `shard` and recipe.
        pictures: all pictures.
        images: pictures that the budget trains on, each repetition counted; None: unknown.
        flips: whether half of the pictures are mirrored without telling the net.

    Raises:
        ValueError: if changes were set by hand that the pictures cannot have.
    """
    recipe, wanted = config.recipe, changes_of(config.augment)
    by_recipe = "as the recipe says"
    if wanted is not None:
        augment, why = _by_hand(config, pictures, wanted, flips)
        return FewPictures(augment, recipe.dropout, {"augment": why, "dropout": by_recipe})
    looks = (images or 0.0) / max(1, pictures.num_training)
    seen = f"each picture is seen about {_rounded(looks)} times"
    if looks < recipe.few_looks:
        why = f"none: {seen}, and {recipe.few_looks:g} times would be many"
        return FewPictures({}, recipe.dropout, {"augment": why, "dropout": by_recipe})
    many = f"{seen}, which is many (from {recipe.few_looks:g} on)"
    dropout, why_dropout = recipe.dropout, by_recipe
    if recipe.few_dropout > dropout:
        dropout, why_dropout = recipe.few_dropout, many
    if config.shard:
        augment, why = {}, "none: a net in shards is told nothing"
    else:
        augment, why = _derived(config, pictures)
        why = f"{many}; {why}"
    return FewPictures(augment, dropout, {"augment": why, "dropout": why_dropout})


def _by_hand(
    config: TrainConfig, pictures: Pictures, wanted: tuple[Change, ...], flips: bool
) -> tuple[dict[str, Any], str]:
    if pictures.channels < 3 and (asked := [name for name in wanted if name in _COLOURED]):
        raise ValueError(
            f"augment has {asked[0]}, which changes colours, and the pictures are grey; leave it "
            "out"
        )
    if not wanted:
        return {}, "none, set by hand"
    kept = tuple(name for name in wanted if not (name == "flips" and flips))
    mirrored = "" if kept == wanted else "; half are mirrored anyway, and the net need not be told"
    augment, about = _made(config, pictures, kept)
    return augment, f"set by hand{about}{mirrored}"


def _derived(config: TrainConfig, pictures: Pictures) -> tuple[dict[str, Any], str]:
    """Shifts always, turns and hue where the pictures allow them."""
    allowed = pictures.suggest_changes()
    changes: tuple[Change, ...] = ("shifts",)
    if allowed["turns"][0]:
        changes = ("turns", *changes)
    if allowed["hue"][0]:
        changes = (*changes, "hue")
    augment, about = _made(config, pictures, changes)
    why = [
        f"{name if used else f'no {name}'}: {reason}" for name, (used, reason) in allowed.items()
    ]
    return augment, "; ".join([f"{', '.join(changes)}{about}", *why])


def _made(
    config: TrainConfig, pictures: Pictures, changes: tuple[Change, ...]
) -> tuple[dict[str, Any], str]:
    """The augmentation, and what it does in words."""
    if not changes:
        return {}, ""
    recipe, fill, about = config.recipe, None, ""
    if "shifts" in changes:
        some = np.random.default_rng(0).permutation(len(pictures))[:_MEASURED]
        fill, share = border_colour(pictures.tensor(np.sort(some)))
        filled = "its border repeated" if fill is None else f"the colour of {share:.0%} of borders"
        about = f"; what a shift leaves empty gets {filled}"
    made = Augmentation(changes, recipe.changed_share, recipe.shift_reach, fill)
    often = f"each for {recipe.changed_share:.0%} of the pictures, and the net is told"
    return made.to_dict(), f", {often}{about}"


def _rounded(looks: float) -> str:
    """Two digits: the speed of a machine is not known more exactly."""
    return f"{float(f'{looks:.2g}'):,.0f}" if looks >= 1 else f"{looks:.1g}"
