"""Batch size and learning rate: measure the gradient, get the answer with its uncertainty."""

from __future__ import annotations

from noisewise.scaling.flat import Flat, gradient
from noisewise.scaling.intervals import Estimate
from noisewise.scaling.noise import GradientNoise, Noise, measure_noise, unbiased_moments
from noisewise.scaling.sources import per_sample_gradients, rank_moments

__all__ = [
    "Estimate",
    "Flat",
    "GradientNoise",
    "Noise",
    "gradient",
    "measure_noise",
    "per_sample_gradients",
    "rank_moments",
    "unbiased_moments",
]
