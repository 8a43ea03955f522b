"""Exports to diffusers: a pipeline folder, without code in it.

A generator of one call and square pictures names diffusers' own `ConsistencyModelPipeline`, whose
one step is ours, so that `DiffusionPipeline.from_pretrained` finds a class. Other models name our
pipeline (that of diffusers takes one step unless it is told how many).
In both cases `noisewise.export.pipeline` has to be imported first: diffusers takes parts from a
module that a folder names only if the caller imported it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from noisewise.export.card import pipeline_card
from noisewise.export.graph import TOLERANCE, DiffersError
from noisewise.export.source import Source, Written
from noisewise.quality.premultiplied import premultiplied
from noisewise.training.files.atomic import read_json, write_json, write_text
from noisewise.training.files.sample_sheet import png
from noisewise.training.models.models import Generator, Teacher

_SHARED = "ConsistencyModelPipeline"
_COMPARED = 3


def write(source: Source, place: Path) -> Written:
    """Write the folder, load it as a pipeline and compare its pictures.

    Raises:
        ValueError: if the net is not part of noisewise.
        DiffersError: if the pipeline draws other pictures.
    """
    from noisewise.export.pipeline import NoisewiseModel, NoisewisePipeline

    with _quiet():
        NoisewisePipeline(NoisewiseModel.of(source.model), _scheduler(source)).save_pretrained(
            place
        )
        index = read_json(place / "model_index.json")
        if _is_shared(source):
            index["_class_name"] = _SHARED
        write_json(place / "model_index.json", index)
        (place / "samples.png").write_bytes(png(source.model.grid(64)))
        write_text(place / "README.md", pipeline_card(source, place.name))
        loaded = NoisewisePipeline.from_pretrained(place)
        difference = _difference(source, loaded)
    return Written(difference, f"{_COMPARED} pictures of the loaded pipeline, for the same noise")


def _is_shared(source: Source) -> bool:
    """Whether the pipeline of diffusers draws what ours draws."""
    model = source.model
    one_call = isinstance(model, Generator) and len(model.sigmas) == 1
    return one_call and isinstance(source.config.size, int)


def _scheduler(source: Source) -> Any:  # noqa: ANN401 (diffusers is imported when it is used)
    """The sampler of a teacher; of a generator the level of each call."""
    from noisewise.export.scheduler import NoisewiseScheduler

    model, config = source.model, source.config
    finish: dict[str, Any] = {"flats": asdict(config.flats), "palette": config.palette.to_dict()}
    finish["alpha"] = config.alpha
    if isinstance(model, Generator):
        low = model.sigma_init / 2  # with one level it is not used
        if len(model.sigmas) == 1:
            return NoisewiseScheduler("ddim", model.sigma_init, low, 1, **finish)
        calls, count = list(model.sigmas), len(model.sigmas)
        return NoisewiseScheduler("ddim", calls[0], calls[-1], count, calls=calls, **finish)
    own = model.sampler
    levels = (own.sigma_max, own.sigma_min, own.num_steps, own.rho)
    return NoisewiseScheduler(own.name, *levels, **finish)


def _difference(source: Source, pipe: Any) -> float:  # noqa: ANN401
    """Largest difference of a few pictures from those that the model draws.

    A sampler that adds noise takes it from elsewhere in diffusers: then one call is compared. The
    noise between a generator's calls is drawn alike on both sides.

    Raises:
        DiffersError: if it is more than rounding.
    """
    model, count = source.model, _COMPARED
    noise, labels = model.noise(0, 0, count), model.labels(0, 0, count)
    if isinstance(model, Teacher) and model.sampler.sampler.stochastic:
        sigma = torch.full((count,), model.sampler.sigma_max)
        with torch.no_grad():
            expected = model.guided()(noise * sigma[0], sigma, labels)
            got = pipe.unet(noise * sigma[0], sigma, labels).sample
    else:
        expected = _with_end(model).sample(count)
        source_of_noise = torch.Generator().manual_seed(0)
        if isinstance(model, Generator) and len(model.sigmas) > 1:
            again = torch.Generator().manual_seed(0)
            later = [torch.randn(noise.shape, generator=again) for _ in model.sigmas[1:]]
            with torch.no_grad():
                drawn = model(noise, labels, torch.stack(later, 1))
            expected = model.config.finished(drawn)
        pipe.set_progress_bar_config(disable=True)
        drawn = pipe(
            latents=noise, class_labels=labels, generator=source_of_noise, output_type="pt"
        )
        got = drawn.images * 2 - 1
    if source.config.alpha != "none":  # what can be seen of them
        got, expected = premultiplied(got), premultiplied(expected)
    apart = float((got - expected).abs().max())
    if not apart <= TOLERANCE:
        raise DiffersError(
            f"the pipeline draws pictures that differ by {apart:.2g}; nothing was written (please "
            "report this, with the versions of torch and diffusers)"
        )
    return apart


def _with_end(model: Generator | Teacher) -> Generator | Teacher:
    """The model with its palette at the end alone: a scheduler makes no calls of its own."""
    found, palette = copy.copy(model), model.config.palette
    found.config = replace(model.config, palette=replace(palette, way="end"))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the bars of diffusers for loading parts."""
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
