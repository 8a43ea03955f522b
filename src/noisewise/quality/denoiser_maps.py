"""The activations of a denoiser on pictures with a little noise, recorded block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from noisewise.quality.features import check_images
from noisewise.quality.premultiplied import premultiplied

_BATCH, _PIXELS = 64, 2**18  # pictures, and pixels, in the net at once


class DenoiserMaps:
    """Records the activations of every block of a denoiser.

    The noise is the same for every picture. A block is a child of a ModuleList, or else every
    convolution and linear layer. Where the net knows classes, every embedding gives its mean: what
    is found must not depend on a class that nobody knows.

    Attributes:
        name: the start of the SHA-256 of the weights, and the noise level.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        sigma: float,
        conditioned: bool,
        call: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None,
    ) -> None:
        """Find the blocks; arguments and errors are those of `DenoiserFeatures`."""
        self._denoiser, self._sigma, self._conditioned = denoiser, sigma, conditioned
        self._call = call or denoiser
        self._blocks = _blocks(denoiser)
        if not self._blocks:
            raise ValueError(
                f"{type(denoiser).__name__} has no layer whose activations could be read; "
                "use NativeFeatures instead."
            )
        self.name = f"{_digest(denoiser)}@{sigma:g}"

    def pooled(self, images: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what `pool` makes of the maps, side by side in the last dimension.

        Args:
            images: float [n, c, h, w] in [-1, 1], of four channels straight: the denoiser gets them
                premultiplied.
            pool: from the maps of one block, float32 [n, width, rows, columns], to [n, ..., d].

        Returns:
            float32 [n, ..., d] on the device of the pictures, without gradient.
        """
        check_images(images, "images")
        device = next(self._denoiser.parameters()).device
        shape = images.shape[1:]
        noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)) * self._sigma
        found = []
        with torch.no_grad(), _in_eval(self._denoiser), _mean_embeddings(self._denoiser):
            for part in images.split(max(1, min(_BATCH, _PIXELS // shape[1:].numel()))):
                noisy = premultiplied(part.to(device).float()) + noise.to(device)
                sigma = noisy.new_full((len(part),), self._sigma)
                labels = None
                if self._conditioned:
                    labels = torch.zeros(len(part), dtype=torch.int64, device=device)
                with _recorded(self._blocks) as seen:
                    self._call(noisy, sigma, labels)
                found.append(
                    torch.cat([pool(_laid_out(h, *shape[1:])) for h in seen], -1).to(images.device)
                )
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


def _laid_out(h: Tensor, height: int, width: int) -> Tensor:
    """Tokens as places of the picture, in its shape, or as one row; maps as they are."""
    if h.ndim == 4:
        return h
    n, tokens, length = h.shape
    rows = max(1, round((tokens * height / width) ** 0.5))
    columns = rows * width // height
    rows, columns = (rows, columns) if rows * columns == tokens else (1, tokens)
    return h.mT.reshape(n, length, rows, columns)


def _digest(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in net.state_dict().items():
        digest.update(name.encode())
        whole = value.full_tensor() if hasattr(value, "full_tensor") else value  # sharded nets
        digest.update(whole.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
