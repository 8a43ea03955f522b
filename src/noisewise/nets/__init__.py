"""Nets: modules that take pictures and a noise level; they know nothing of noise schedules."""

from noisewise.nets.derive import Derived, build, derive
from noisewise.nets.timing import Timed, fastest
from noisewise.nets.unet import UNet
from noisewise.nets.uvit import UViT
from noisewise.nets.vit import ViT

__all__ = ["Derived", "Timed", "UNet", "UViT", "ViT", "build", "derive", "fastest"]
