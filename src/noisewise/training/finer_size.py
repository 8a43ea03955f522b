"""What training costs at the size that keeps the detail of the files; the default stops at 64."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noisewise.pictures.headers import usable

if TYPE_CHECKING:
    import torch

    from noisewise.pictures.pictures import Pictures

_TIMED = 256  # pixels: a larger net is not timed but computed from this one
_FEW, _MANY = 4, 64  # pictures that are timed; on an accelerator a few would show nothing
_TIMES = 10  # that each picture is seen: about as often as a first result needs


def finer_size(pictures: Pictures) -> int | None:
    """The size that would keep the detail of the files; None if theirs does, or is unknown.

    It is for squares: a size with two sides was set by hand.
    """
    if not pictures.side or not isinstance(pictures.size, int):
        return None
    size = usable(pictures.side)
    return size if size > pictures.size else None


def about_finer_size(pictures: Pictures, device: torch.device) -> str:
    """What training costs at that size, in one sentence; "" if there is none.

    Takes about a second of a processor, for a few steps of the net of that size.
    """
    size = finer_size(pictures)
    if size is None:
        return ""
    speed = images_per_second(size, pictures.channels, device)
    minutes = _TIMES * (pictures.total or len(pictures)) / speed / 60
    return (
        f"--size {size} keeps the detail of these files: about {speed:.2g} images a second here, "
        f"{in_words(minutes)} to see each picture {_TIMES} times"
    )


def images_per_second(size: int, channels: int, device: torch.device) -> float:
    """Speed of training with the usual net of a size, roughly: a few steps of a few pictures.

    Above 256 pixels the net of 256 is timed, and the speed falls as the arithmetic grows.
    """
    from noisewise.nets.costs import costs_of
    from noisewise.nets.derive import build, derive
    from noisewise.nets.timing import rough_speed

    timed = derive(min(size, _TIMED), channels).net
    speed = rough_speed(build(timed), device, _FEW if device.type == "cpu" else _MANY)
    if size <= _TIMED:
        return speed
    return speed * costs_of(timed).flops / costs_of(derive(size, channels).net).flops


def in_words(minutes: float) -> str:
    """A length of time, rounded for people.

    Example:
        >>> in_words(0.4), in_words(16.4), in_words(200), in_words(9000)
        ('1 minute', '16 minutes', '3.3 hours', '6.2 days')
    """
    if minutes < 120:
        whole = max(1, round(minutes))
        return f"{whole} minute{'' if whole == 1 else 's'}"
    hours = minutes / 60
    return f"{hours:.2g} hours" if hours < 48 else f"{hours / 24:.2g} days"
