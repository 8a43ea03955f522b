"""Whether guided pictures lose a class or kind that pictures without guidance have.

Guidance moves each picture towards its class, and away from what classes share: a class may shrink
to what is typical of it and look like another. The judge sees one number for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from noisewise.quality.class_shares import class_shares


def loses_a_class(
    guided: Tensor, plain: Tensor, real: Tensor, labels: Tensor, names: Sequence[str]
) -> bool:
    """Whether more classes are surely too rare among guided pictures than among plain ones.

    Args:
        guided: float [n, c, h, w] in [-1, 1].
        plain: the same pictures without guidance.
        real: real pictures, of which a classifier learns.
        labels: their classes, int64.
        names: of the classes.
    """
    if len(labels.unique()) < 2:
        return False
    rare = []
    for pictures in (guided, plain):
        shares = class_shares(pictures, real, labels, names)
        rare.append(sum(one.verdict in ("missing", "too rare") for one in shares.classes))
    return rare[0] > rare[1]
