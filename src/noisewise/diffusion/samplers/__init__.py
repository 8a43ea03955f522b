"""Samplers: each one is a short file that defines one value, and `listing` names them all.

To add one, write a file like ddim.py and list its value in listing.py.
"""

from noisewise.diffusion.samplers.listing import SAMPLERS, sampler_named
from noisewise.diffusion.samplers.sampler import Denoise, Normal, Sampler, State, Walk, sample

__all__ = ["SAMPLERS", "Denoise", "Normal", "Sampler", "State", "Walk", "sample", "sampler_named"]
