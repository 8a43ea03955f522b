"""Features of pictures in a trained denoiser: what it has learnt about a set is what matters in it.

Papers: Baranchuk et al. 2022, "Label-efficient semantic segmentation with diffusion models" (arXiv
2112.03126): the activations of a denoiser describe what a picture shows; Yang and Wang 2023 (arXiv
2303.09769) for their use as features of whole pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.quality.features import check_images

_SIGMA = 0.1
_GRID = 2  # cells per side
_BATCH = 64


class DenoiserFeatures:
    """Activations of a denoiser on pictures with a little noise.

    The noise is the same for every picture. Of every block (a child of a ModuleList, or else every
    convolution and linear layer) ``mean(h)`` and ``sqrt(mean(h^2))`` over 2 x 2 cells are taken;
    tokens are laid out as a square, or taken as a whole. Where the net knows classes, every
    embedding gives its mean: the features must not depend on a class that nobody knows.

    Attributes:
        name: "denoiser-", the start of the SHA-256 of the weights, and the noise level: distances
            in the features of two nets cannot be compared.

    Example:
        >>> net = nn.Conv2d(1, 4, 3, padding=1)
        >>> features = DenoiserFeatures(net, call=lambda x, sigma, condition: net(x))
        >>> features(torch.zeros(5, 1, 16, 16)).shape
        torch.Size([5, 32])
    """

    def __init__(
        self,
        denoiser: nn.Module,
        sigma: float = _SIGMA,
        conditioned: bool = False,
        call: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None,
    ) -> None:
        """Find the blocks.

        Args:
            denoiser: ``D(x, sigma, condition) -> x0``.
            sigma: noise level, above 0, in the units of pictures in [-1, 1].
            conditioned: the denoiser needs a class for each picture.
            call: replaces the call of the denoiser.

        Raises:
            ValueError: if the denoiser has no layer that could be read.
        """
        self._denoiser, self._sigma, self._conditioned = denoiser, sigma, conditioned
        self._call = call or denoiser
        self._blocks = _blocks(denoiser)
        if not self._blocks:
            raise ValueError(
                f"{type(denoiser).__name__} has no layer whose activations could be read; "
                "use NativeFeatures instead."
            )
        self.name = f"denoiser-{_digest(denoiser)}@{sigma:g}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of pictures, without gradient.

        Args:
            images: float [n, c, h, w] in [-1, 1], as the denoiser takes them.

        Returns:
            float32 [n, d] on the device of the pictures.
        """
        check_images(images, "images")
        device = next(self._denoiser.parameters()).device
        shape = images.shape[1:]
        noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)) * self._sigma
        found = []
        with torch.no_grad(), _in_eval(self._denoiser), _mean_embeddings(self._denoiser):
            for part in images.split(_BATCH):
                noisy = part.to(device).float() + noise.to(device)
                sigma = noisy.new_full((len(part),), self._sigma)
                labels = None
                if self._conditioned:
                    labels = torch.zeros(len(part), dtype=torch.int64, device=device)
                with _recorded(self._blocks) as seen:
                    self._call(noisy, sigma, labels)
                found.append(torch.cat([_pooled(h) for h in seen], 1).to(images.device))
        return torch.cat(found)


def _blocks(net: nn.Module) -> list[nn.Module]:
    lists = (nn.ModuleList, nn.Sequential)
    blocks = [c for m in net.modules() if isinstance(m, nn.ModuleList) for c in m.children()]
    outer = [b for b in blocks if not isinstance(b, lists)]
    if outer:
        return outer
    return [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


@contextmanager
def _recorded(blocks: list[nn.Module]) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, tuple):
            output = output[0]
        if isinstance(output, Tensor) and output.ndim in (3, 4):
            seen.append(output.float())

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _mean_embeddings(net: nn.Module) -> Iterator[None]:
    def mean(module: nn.Embedding, inputs: object, output: Tensor) -> Tensor:
        return module.weight.mean(0).expand_as(output)

    handles = [m.register_forward_hook(mean) for m in net.modules() if isinstance(m, nn.Embedding)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _in_eval(net: nn.Module) -> Iterator[None]:
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)


def _pooled(h: Tensor) -> Tensor:
    if h.ndim == 3:
        n, tokens, width = h.shape
        side = round(tokens**0.5)
        rows, columns = (side, side) if side * side == tokens else (1, tokens)
        h = h.mT.reshape(n, width, rows, columns)
    means = F.adaptive_avg_pool2d(h, _GRID)
    energies = F.adaptive_avg_pool2d(h * h, _GRID).clamp_min(0).sqrt()
    return torch.cat([means.flatten(1), energies.flatten(1)], 1)


def _digest(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
