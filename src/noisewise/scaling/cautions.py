"""What an advice warns of: the measurement, the size of the change, limits of the laws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from noisewise.scaling.advice import Hold, short
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.warning_codes import CodedWarning

__all__ = ["edge_warnings", "warnings_of", "when_measured", "when_warnings"]

_FAR = 16.0  # factor between two batches above which the advice warns
_EARLY = 1 / 3  # share of the training before which a measurement at one time is early


def when_measured(ms: Sequence[Measurement]) -> str:
    """Return when in the training it was measured, in words.

    Args:
        ms: one or more measurements of one training.
    """
    known = [m for m in ms if not math.isnan(m.ended)]
    if not known:
        return "when in the training it was measured is not known"
    if len(known) == 1 and known[0].ended - known[0].begun > 0.01:
        one = known[0]
        return f"from {100 * one.begun:.0f} to {100 * one.ended:.0f} % of the training"
    shares = ", ".join(f"{100 * m.ended:.0f}" for m in known)
    return f"after {shares} % of the training"


def when_warnings(ms: Sequence[Measurement]) -> Iterator[CodedWarning]:
    """Warn of a measurement at one time, above all of an early one."""
    if len(ms) > 1 or len(ms[0].scales) > 1:
        return
    one, what = ms[0], "measure again after a third and two thirds of it, and give all the files"
    if math.isnan(one.ended):
        yield (
            "when_measured",
            "It was measured at one time of the training, and the best rate moves with it: to know "
            f"how far, {what}.",
        )
    elif one.ended < _EARLY:
        yield (
            "when_measured",
            f"Measured after {100 * one.ended:.0f} % of the training: the edge of stability still "
            f"moves, and later measurements ask for other rates; {what}.",
        )
    else:
        yield (
            "when_measured",
            f"Measured once, after {100 * one.ended:.0f} % of the training: how far the best rate "
            "moves over the training is not seen; a second measurement at another time narrows "
            "the band.",
        )


def warnings_of(
    m: Measurement, batch: float, batch0: float, lr0: float, hold: Hold
) -> Iterator[CodedWarning]:
    """Yield what a user must know, most important first."""
    yield from (w for w in m.coded_warnings() if w[0] != "counted_in_labels")
    if not m.noise.identifiable and "noise_not_known" not in m.warning_codes:
        more = m.noise.more_needed() * m.noise.num_micro
        yield (
            "noise_not_known",
            f"{m.noise.why_not_known()}; collect about {more:,} more micro-batches.",
        )
    times = max(batch / batch0, batch0 / batch)
    if times > _FAR:
        yield (
            "far_batch",
            f"The batch changes by a factor of {short(times)}: measure again at one in between.",
        )
    yield from _range_warnings(m, batch, batch0)
    scale = m.b_noise if m.b_noise.bounded else m.b_simple
    if scale.bounded and batch > 4 * scale.value:
        yield (
            "above_noise_scale",
            f"The new batch is far above the noise scale of {scale.value:.3g} examples: a batch "
            "this large hardly reduces the number of steps any more.",
        )
    if hold == "trajectory" and scale.bounded and max(batch, batch0) > scale.value:
        yield (
            "no_same_path",
            "Above the noise scale, no learning rate keeps the same path through the weights.",
        )
    yield from _bound_warnings(m, batch0, lr0)
    yield from _surge_warnings(m, batch)
    if m.clipped_share > 0.05:
        yield (
            "clipped",
            f"{100 * m.clipped_share:.0f} % of the steps were clipped: clipping fixes the length "
            "of a step, so the learning rate matters less than stated here; scale the clipping "
            "threshold as well.",
        )
    yield (
        "whole_schedule",
        "Scale the whole schedule (warm-up and decay, counted in examples), not only its peak.",
    )


def edge_warnings(m: Measurement, lr0: float, lr: float) -> Iterator[CodedWarning]:
    """A law that ignores the edge, such as the lower bound, may advise a rate above it."""
    if m.edge.bounded and lr0 > 0.9 * m.edge.value:
        yield (
            "at_edge",
            f"The present learning rate {lr0:.3g} is at the edge of stability, {m.edge}: the "
            "sharpest direction of the loss limits it at every batch, so this measurement cannot "
            "tell the rate for a smaller batch.",
        )
    elif m.edge.bounded and lr > m.edge.value:
        yield (
            "beyond_edge",
            f"The advised learning rate {lr:.3g} is above the edge of stability, {m.edge}: many "
            "steps at this rate are likely to be unstable.",
        )


def _range_warnings(m: Measurement, batch: float, batch0: float) -> Iterator[CodedWarning]:
    """SGD's curve is exact at every batch; Adam's is extrapolated outside the measured batches."""
    law = m.preconditioned()
    if law is None or m.optimizer.family != "adam":
        return
    outside = [f"{at:g}" for at in sorted({batch, batch0}) if not law.covers(at)]
    if outside:
        yield (
            "extrapolated",
            f"The law was measured from batch {law.batches[0]:g} to {law.batches[-1]:g} and is "
            f"extrapolated to {' and '.join(outside)}: there its band reaches from no further "
            "change to the square root; measure again at a batch closer to it.",
        )


def _bound_warnings(m: Measurement, batch0: float, lr0: float) -> Iterator[CodedWarning]:
    law = m.preconditioned()
    if law is None:
        return
    bound = law.lr(batch0) * m.optimizer.lr_per_effective
    if bound > 0 and lr0 > 8 * bound:
        yield (
            "above_one_step_optimum",
            f"The present learning rate {lr0:.3g} is far above the one-step optimum {bound:.3g}: "
            "the weights bounce along the sharpest directions of the loss; a lower rate may work "
            "better.",
        )


def _surge_warnings(m: Measurement, batch: float) -> Iterator[CodedWarning]:
    """Warn of a surge: the best learning rate falls again at large batches.

    It needs the curvature of the signal's sign to be clearly twice that of the noise's sign.
    """
    noise = m.curvature.get("sign_noise", Estimate.unknown())
    signal = m.curvature.get("sign_curvature", Estimate.unknown())
    closed = m.soft_sign()
    if closed is None or not noise.value > 0:
        return
    # The closed form with the measured curvature of the noise instead of tr H.
    corrected = replace(closed, diagonal=noise.value)
    supported = signal.low > 2 * noise.high
    if supported and batch > corrected.batch_peak:
        yield (
            "surge",
            "Surge: with less noise the curvature of an update doubles, so the best learning rate "
            f"may fall again above a batch of about {corrected.batch_peak:.3g}.",
        )
    elif closed.surges and not supported and batch > closed.batch_peak / 4:
        yield (
            "surge_not_supported",
            "The closed form predicts that the best learning rate falls again above a batch of "
            f"about {closed.batch_peak:.3g} (surge); the measured curvature of the noise "
            f"({noise.value:.3g}, tr H {closed.diagonal:.3g}) does not support this.",
        )
