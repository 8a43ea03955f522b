"""Batch size and learning rate: measure the gradient's noise, get a learning rate and a band.

In any training loop:

    monitor = scaling.watch(model, optimizer)  # before the loop; then accumulate and step as usual
    print(monitor.report())
    print(monitor.recommend(batch=1024).text())

At frozen weights, with curvature, which Adam's law needs:

    found = scaling.calibrate(model, loss, micro_batches, optimizer, batch=256)
    print(scaling.advise(found, batch=1024, hold="examples").text())

Which batch at all: `branch` tries larger ones from a checkpoint, `batch_warmup` makes a schedule.
"""

from __future__ import annotations

from noisewise.scaling.advice import Advice, Curve
from noisewise.scaling.advise import advise
from noisewise.scaling.batch_warmup import BatchStage, BatchWarmup, batch_warmup
from noisewise.scaling.branching import Branching, Trial, branch
from noisewise.scaling.exact_laws import GaussianSoftSign
from noisewise.scaling.flat import Flat, gradient
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.laws import (
    SGD,
    Constant,
    Frontier,
    Law,
    Linear,
    Momentum,
    Muon,
    SquareRoot,
    VarianceRule,
)
from noisewise.scaling.measure import calibrate
from noisewise.scaling.measurement import Measurement
from noisewise.scaling.noise import GradientNoise, Noise, measure_noise, unbiased_moments
from noisewise.scaling.preconditioned import Preconditioned
from noisewise.scaling.sign_laws import SignDescent, SoftSign
from noisewise.scaling.sources import per_sample_gradients, rank_moments
from noisewise.scaling.stability import EdgeOfStability, sharpness
from noisewise.scaling.watch import Monitor, watch

__all__ = [
    "SGD",
    "Advice",
    "BatchStage",
    "BatchWarmup",
    "Branching",
    "Constant",
    "Curve",
    "EdgeOfStability",
    "Estimate",
    "Flat",
    "Frontier",
    "GaussianSoftSign",
    "GradientNoise",
    "Law",
    "Linear",
    "Measurement",
    "Momentum",
    "Monitor",
    "Muon",
    "Noise",
    "Preconditioned",
    "SignDescent",
    "SoftSign",
    "SquareRoot",
    "Trial",
    "VarianceRule",
    "advise",
    "batch_warmup",
    "branch",
    "calibrate",
    "gradient",
    "measure_noise",
    "per_sample_gradients",
    "rank_moments",
    "sharpness",
    "unbiased_moments",
    "watch",
]
