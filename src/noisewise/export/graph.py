"""The graph that is exported: a generator with its calls, or a teacher's denoiser; and its check.

A graph has no ifs: what depends on the values of a tensor (a check, a class by name, guidance)
stays outside. The number of pictures is free.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from noisewise.diffusion import in_calls
from noisewise.pictures.palette_files import written_out
from noisewise.quality.flats import FlatValue, snapped_in_graph
from noisewise.quality.premultiplied import premultiplied, straight
from noisewise.quality.snap_colours import snapped_to_in_graph
from noisewise.sizes import sides
from noisewise.training.models.models import Generator, Teacher

Module = TypeVar("Module", bound=nn.Module)
Run = Callable[..., Tensor]
"""An exported model as a function: tensors in, a tensor out."""

TOLERANCE = 1e-3  # on the scale of -1 to 1; half of an 8-bit level is 4e-3
_OTHER_FLATS = 1e-3  # share of pixels at a border, of a flat say, which rounding may put beside it
_TRACED, _CHECKED = 3, (1, 5)  # pictures in a batch
_LEAST_SIGMA, _MOST_SIGMA = 0.01, 80.0


class DiffersError(RuntimeError):
    """An exported model does not compute what the model computes."""


class AllCalls(nn.Module):
    """Noise (and a class) in, pictures out: all calls of a generator, finished.

    Exact flats are in it, and the nearest colours of a palette; not the choice of a few of them for
    each picture, which depends on values.

    RGBA comes out as files hold it: straight colour, and opacity 0 or 1 if that is how it was
    trained.

    Args:
        generator: its denoiser is a part of this module.
    """

    def __init__(self, generator: Generator) -> None:
        """Take the denoiser and the noise level of each call."""
        super().__init__()
        self.denoiser = generator.denoiser
        self.sigmas = generator.sigmas
        self.alpha = generator.config.alpha
        flats = generator.config.flats
        self.level = flats.level
        self.values = [FlatValue(value, 0.0, 0.0) for value in flats.values] if flats.level else []
        self.register_buffer("colours", generator.config.palette.tensor, persistent=False)

    def forward(
        self, z: Tensor, label: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Draw pictures, float [n, c, h, w] in [-1, 1], from noise of that shape.

        The noise of the calls after the first is [n, calls - 1, c, h, w].
        """
        later = () if noise is None else noise.unbind(1)
        pictures = in_calls(self.denoiser, z, self.sigmas, later, label).clamp(-1, 1)
        rgba, colours = self.alpha != "none", self.get_buffer("colours")
        if rgba:
            pictures = straight(pictures, self.alpha == "binary")
        if self.values:
            pictures = snapped_in_graph(pictures, self.values, self.level)
        if len(colours):
            pictures = snapped_to_in_graph(pictures, colours)
        if rgba and (self.values or len(colours)):  # neither leaves a hidden colour
            pictures = straight(premultiplied(pictures), self.alpha == "binary")
        return pictures


class OneDenoise(nn.Module):
    """``D(x, sigma[, label]) -> x0``, with ``x = x0 + sigma * noise``; not guided.

    RGBA is premultiplied, before and after.

    Args:
        teacher: its denoiser is a part of this module.
    """

    def __init__(self, teacher: Teacher) -> None:
        """Take the denoiser."""
        super().__init__()
        self.denoiser = teacher.denoiser

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Denoise x, float [n, c, h, w], at sigma, float [n]."""
        return self.denoiser(x, sigma, label)


@dataclass(frozen=True, eq=False)
class Graph:
    """A module to export, with inputs to trace it.

    Attributes:
        module: in eval mode; a plain copy of the model's weights, each with a memory of its own.
        inputs: one tensor for each name; the first dimension is free.
        output: name of what comes out.
        model: that it was made from.
    """

    module: AllCalls | OneDenoise
    inputs: dict[str, Tensor]
    output: str
    model: Generator | Teacher

    @classmethod
    def of(cls, model: Generator | Teacher) -> Graph:
        """The graph of a model."""
        inputs = example(model, _TRACED)
        return cls(
            plain_copy(module_of(model)),
            inputs,
            "pictures" if isinstance(model, Generator) else "x0",
            model,
        )

    def traced(self) -> torch.export.ExportedProgram:
        """The graph as torch.export finds it, with a free number of pictures."""
        with torch.no_grad():
            return torch.export.export(
                self.module, (), kwargs=dict(self.inputs), dynamic_shapes=self.free("n")
            )

    def free(self, name: str) -> dict[str, dict[int, torch.export.Dim]]:
        """The first dimension of each input, which may be any number."""
        number = torch.export.Dim(name)
        return {key: {0: number} for key in self.inputs}

    def largest_difference(self, run: Run) -> float:
        """Compare an exported model with torch, for batches that it was not traced with.

        Raises:
            DiffersError: if it computes something else.
        """
        found, original = 0.0, module_of(self.model)
        for count in _CHECKED:
            inputs = example(self.model, count)
            with torch.no_grad():
                expected = original(**inputs)
            found = max(found, self._difference(expected, run(**inputs)))
        return found

    def _difference(self, expected: Tensor, got: Tensor) -> float:
        if got.shape != expected.shape:
            raise DiffersError(f"the export gives {list(got.shape)}, not {list(expected.shape)}")
        if isinstance(self.module, AllCalls) and self.module.alpha != "none":
            got, expected = premultiplied(got), premultiplied(expected)  # what can be seen of them
        apart = (got.double() - expected.double()).abs() / expected.abs().amax().clamp_min(1)
        wrong = apart > TOLERANCE
        allowed = _OTHER_FLATS if self._has_borders else 0.0
        if not bool(apart.isfinite().all()) or wrong.double().mean().item() > allowed:
            raise DiffersError(
                f"the export differs from the model by {apart.max().item():.2g}; nothing was "
                "written (please report this, with the versions of torch and of the format's "
                "packages)"
            )
        return float(apart[~wrong].max())

    @property
    def _has_borders(self) -> bool:
        """Whether rounding may put a pixel on the other side: of a flat, opacity 1/2, a colour."""
        graph = self.module
        if not isinstance(graph, AllCalls):
            return False
        return bool(graph.values or graph.alpha == "binary" or len(graph.get_buffer("colours")))

    @property
    def checked(self) -> str:
        """What is compared, in words."""
        batches = " and ".join(str(count) for count in _CHECKED)
        return f"batches of {batches} for the same noise"


def module_of(model: Generator | Teacher) -> AllCalls | OneDenoise:
    """What is exported of a model, with the model's own weights."""
    return (AllCalls(model) if isinstance(model, Generator) else OneDenoise(model)).eval()


def plain_copy(module: Module) -> Module:
    """A copy whose weights lie in memory in the order of their dimensions.

    Ours may lie with the channels last, which torch.export.save takes for parts of larger tensors.

    Example:
        >>> layer = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
        >>> plain_copy(layer).weight.is_contiguous()
        True
    """
    copied = copy.deepcopy(module)
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return copied


def example(model: Generator | Teacher, count: int) -> dict[str, Tensor]:
    """Inputs of a model's graph for so many pictures: noise, noise levels, classes in turn."""
    noise = model.noise(0, 0, count)
    inputs = {"z": noise}
    if isinstance(model, Teacher):
        low, high = model.config.sigma_range or (_LEAST_SIGMA, _MOST_SIGMA)
        levels = np.geomspace(high, low, count) if count > 1 else [model.sampler.sigma_max]
        sigma = torch.tensor(np.asarray(levels), dtype=torch.float32)
        inputs = {"x": noise * sigma[:, None, None, None], "sigma": sigma}
    if model.classes:
        inputs["label"] = torch.arange(count) % len(model.classes)
    if isinstance(model, Generator) and len(model.sigmas) > 1:
        inputs["noise"] = model.later_noise(0, 0, count)
    return inputs


def described(model: Generator | Teacher) -> dict[str, object]:
    """What a program needs to know to use the graph: plain JSON values."""
    config = model.config
    height, width = sides(config.size)
    return {
        "made_by": "noisewise",
        "kind": config.kind,
        "height": height,
        "width": width,
        "channels": config.channels,
        "classes": list(config.classes),
        "label_histogram": list(config.label_histogram),
        "range": [-1, 1],
        **about_alpha(model),
        **_palette_of(model),
        "sigma_data": config.sigma_data,
        "sigma_init": config.sigma_init,
        "calls": len(config.call_sigmas) or 1,
        "noise": "standard normal",
    }


def about_alpha(model: Generator | Teacher) -> dict[str, str]:
    """How the four channels of RGBA are meant; empty for other models."""
    alpha = model.config.alpha
    if alpha == "none":
        return {}
    colour = "straight" if isinstance(model, Generator) else "premultiplied"
    return {"channel_order": "RGBA", "alpha": alpha, "colour": colour}


def _palette_of(model: Generator | Teacher) -> dict[str, object]:
    """The palette, and what `snapped_to` needs to choose few of its colours; empty without one."""
    palette = model.config.palette
    if not palette:
        return {}
    kept = {"colours": written_out(palette.colours), "most": palette.most}
    return {"palette": {**kept, "tolerance": palette.tolerance}}


def about_finish(model: Generator | Teacher) -> tuple[str, ...]:
    """Notes on what a model does to its pictures and a graph does not."""
    return (*about_guidance(model), *about_palette(model))


def about_palette(model: Generator | Teacher) -> tuple[str, ...]:
    """A note for a model whose pictures have a palette."""
    palette = model.config.palette
    if not palette:
        return ()
    if isinstance(model, Teacher):
        return (f"the pictures of this teacher are put on {len(palette.colours)} colours, which "
                "the exported denoiser does not do",)  # fmt: skip
    if not palette.tolerance and not palette.most:
        return ()
    return (
        "pictures of the exported graph are on the palette, but each may have more of its colours "
        "than those of the model: noisewise.quality.snap_colours.snapped_to chooses few of them, "
        "with the palette of the metadata",
    )


def about_guidance(model: Generator | Teacher) -> tuple[str, ...]:
    """A note for a teacher that draws with guidance, which a graph does not have."""
    if not isinstance(model, Teacher) or model.sampler.guidance == 1:
        return ()
    return (
        f"this teacher draws with guidance {model.sampler.guidance:g}, which the exported denoiser "
        "does not have",
    )
