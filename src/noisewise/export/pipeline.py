"""Our models as parts of diffusers: a ModelMixin, and a pipeline that draws with it.

    import noisewise.export.pipeline as noisewise_pipeline

    pipe = noisewise_pipeline.NoisewisePipeline.from_pretrained("mine")
    pictures = pipe(batch_size=16, generator=torch.Generator().manual_seed(0)).images

diffusers imports no code that a folder names, unless it is told to trust it. So this module is
imported first, and no code lies in the folder. diffusers is needed to import this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from noisewise.export.scheduler import NoisewiseScheduler
from noisewise.sizes import sides
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import build_denoiser
from noisewise.training.models.models import Generator, Teacher

__all__ = ["NoisewiseModel", "NoisewisePipeline", "NoisewiseScheduler"]


class NoisewiseModel(ModelMixin, ConfigMixin):
    """A denoiser ``D(x, sigma, class) -> x0`` of noisewise: of a generator or of a teacher.

    Args:
        noisewise: description of the model: the config.json of a model folder.
        sample_size: side of the pictures, or [height, width].
        in_channels: channels of the pictures.
        num_class_embeds: number of classes; None: none.

    Raises:
        ValueError: if the description is not that of a model of this version.
    """

    @register_to_config
    def __init__(
        self,
        noisewise: dict[str, Any],
        sample_size: int | list[int],
        in_channels: int,
        num_class_embeds: int | None = None,
    ) -> None:
        """Build the denoiser with fresh weights."""
        super().__init__()
        self.described = ModelConfig.from_dict(dict(noisewise))
        own = self.described
        self.denoiser = build_denoiser(own.net, own.sigma_data, own.prediction)

    @classmethod
    def of(cls, model: Generator | Teacher) -> NoisewiseModel:
        """Copy the weights of a model.

        Raises:
            ValueError: if its net is not part of noisewise.
        """
        config = model.config
        height, width = sides(config.size)
        made = cls(
            config.to_dict(),
            height if height == width else [height, width],
            config.channels,
            len(config.classes) or None,
        )
        made.denoiser.load_state_dict(model.denoiser.state_dict())
        return made.eval().requires_grad_(False)

    def forward(
        self,
        sample: Tensor,
        timestep: float | Tensor,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Denoise.

        Args:
            sample: x, float [n, c, h, w].
            timestep: sigma, one for all pictures or one for each.
            class_labels: class of each picture, [n]; None without classes.
            return_dict: False gives a tuple.
        """
        sigma = torch.as_tensor(timestep, dtype=sample.dtype, device=sample.device)
        sigma = sigma.reshape(-1).expand(sample.shape[0])
        labels = None if class_labels is None else class_labels.long()
        x0 = self._denoise(sample, sigma, labels)
        return UNet2DOutput(sample=x0) if return_dict else (x0,)

    def _denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """A teacher may draw with guidance; its classes can be asked for all at once."""
        if self.described.kind == "teacher":
            return Teacher(self.denoiser, self.described).guided()(x, sigma, labels)
        return self.denoiser(x, sigma, labels)


class NoisewisePipeline(DiffusionPipeline):
    """Draws pictures: a generator in its calls, a teacher in those that were measured as best.

    Args:
        unet: the model.
        scheduler: its sampler.
    """

    model_cpu_offload_seq = "unet"

    def __init__(self, unet: NoisewiseModel, scheduler: NoisewiseScheduler) -> None:
        """Register both parts."""
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: int | str | Sequence[int | str] | Tensor | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw pictures.

        Args:
            batch_size: number of pictures; None: of the latents or of the list of labels, else 1.
            class_labels: class by name or number, or one for each picture; None: as often as in
                the data, drawn with `generator`.
            num_inference_steps: noise levels; None: a generator's calls, the best of a teacher.
            generator: source of noise and classes.
            latents: standard normal noise, [n, c, h, w]; None: drawn with `generator`.
            output_type: "pil", "np" (float [n, h, w, c] from 0 to 1) or "pt" ([n, c, h, w]).
            return_dict: False gives a tuple.

        Raises:
            ValueError: if a label is unknown, shapes do not fit, or the output type is unknown.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type {output_type!r} is unknown; use pil, np or pt")
        device = self._execution_device
        count = self._count(batch_size, class_labels, latents)
        x = self._noise(count, latents, generator, device)
        labels = self._labels(count, class_labels, generator, device)
        self.scheduler.set_timesteps(num_inference_steps, device)
        x = x * self.scheduler.init_noise_sigma
        for sigma in self.progress_bar(self.scheduler.timesteps):
            x0 = self.unet(x, sigma, labels, return_dict=False)[0]
            x = self.scheduler.step(x0, sigma, x, generator, return_dict=False)[0]
        images = self._images(x, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _count(self, batch_size: int | None, labels: object, latents: Tensor | None) -> int:
        if batch_size is not None:
            return batch_size
        if latents is not None:
            return latents.shape[0]
        single = labels is None or isinstance(labels, int | str)
        return 1 if single else len(labels)  # pyrefly: ignore[bad-argument-type]

    def _noise(
        self,
        count: int,
        latents: Tensor | None,
        generator: torch.Generator | list[torch.Generator] | None,
        device: torch.device,
    ) -> Tensor:
        shape = (count, self.unet.config.in_channels, *sides(self.unet.described.size))
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=self.unet.dtype)
        if tuple(latents.shape) != shape:
            raise ValueError(f"latents have shape {tuple(latents.shape)}; give {shape}")
        return latents.to(device, self.unet.dtype)

    def _labels(
        self,
        count: int,
        labels: int | str | Sequence[int | str] | Tensor | None,
        generator: torch.Generator | list[torch.Generator] | None,
        device: torch.device,
    ) -> Tensor | None:
        config = self.unet.described
        if labels is None and config.classes:
            one = generator[0] if isinstance(generator, list) else generator
            where = "cpu" if one is None else one.device
            shares = torch.tensor(config.label_histogram, dtype=torch.float32, device=where)
            return torch.multinomial(shares, count, replacement=True, generator=one).to(device)
        found = Teacher(self.unet.denoiser, config).labels(0, 0, count, labels)
        return None if found is None else found.to(device)

    def _images(self, x: Tensor, output_type: str) -> Any:  # noqa: ANN401 (three types)
        pixels = (x / 2 + 0.5).clamp(0, 1)
        if output_type == "pt":
            return pixels
        array = pixels.float().cpu().permute(0, 2, 3, 1).numpy()
        return array if output_type == "np" else self.numpy_to_pil(array)
