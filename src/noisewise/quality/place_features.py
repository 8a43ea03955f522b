"""Features of the places of a picture, in a trained denoiser or in the frozen random filters."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisewise.quality.denoiser_maps import DenoiserMaps
from noisewise.quality.features import check_images
from noisewise.quality.picture_pairs import PLACES, reduced
from noisewise.quality.random_features import convolved, layers, opponent

PlaceFeatures = Callable[[Tensor], Tensor]
"""Any callable from pictures, float [n, c, h, w] in [-1, 1], to features, float [n, places, d]."""

_BATCH = 64
_OCTAVES = 3
_KEPT = 64  # directions in which places differ most
_SAMPLE = 512  # pictures that the directions are found from


class DenoiserPlaces:
    """Activations of a denoiser at 4 x 4 places: mean and energy of every map of every block.

    Attributes:
        name: "denoiser-places-", the start of the SHA-256 of the weights, and the noise level.

    Example:
        >>> net = nn.Conv2d(1, 4, 3, padding=1)
        >>> features = DenoiserPlaces(net, call=lambda x, sigma, condition: net(x))
        >>> features(torch.zeros(5, 1, 16, 16)).shape
        torch.Size([5, 16, 8])
    """

    def __init__(
        self,
        denoiser: nn.Module,
        sigma: float = 0.1,
        conditioned: bool = False,
        call: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None,
    ) -> None:
        """Find the blocks; the arguments are those of `DenoiserFeatures`."""
        self._maps = DenoiserMaps(denoiser, sigma, conditioned, call)
        self.name = f"denoiser-places-{self._maps.name}"

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 [n, 16, d] of pictures, float [n, c, h, w] in [-1, 1]."""
        return self._maps.pooled(images, _at_places)


class NativePlaces:
    """Responses of the frozen random filters at 4 x 4 places, for runs without a teacher.

    Example:
        >>> NativePlaces()(torch.zeros(5, 1, 16, 16)).shape
        torch.Size([5, 16, 240])
    """

    name = "native-places"

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 [n, 16, d] of pictures, float [n, c, h, w] in [-1, 1], c 1, 3 or 4."""
        check_images(images, "images")
        with torch.no_grad():
            return torch.cat([_responses(reduced(part)) for part in images.split(_BATCH)])


class PlaceBasis:
    """The directions in which the places of a set differ most: makes features small.

    Args:
        features: of a few hundred pictures of the set, float [n, places, d].

    Example:
        >>> basis = PlaceBasis(torch.randn(20, 16, 100))
        >>> basis(torch.zeros(3, 16, 100)).shape
        torch.Size([3, 16, 64])
    """

    def __init__(self, features: Tensor) -> None:
        """Find the directions; strong ones are weakened, by the root of their deviation."""
        rows = features[:_SAMPLE].flatten(0, 1).double()
        self._mean = rows.mean(0)
        spread = rows.std(0, correction=0)
        self._scale = spread.clamp_min(1e-4 * float(spread.max()) + 1e-12)
        rows = (rows - self._mean) / self._scale
        strength, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
        strength = strength[-_KEPT:].clamp_min(1e-6)
        self._directions = directions[:, -_KEPT:] * strength.pow(-0.25)

    def __call__(self, features: Tensor) -> Tensor:
        """Return float32 [n, places, at most 64] of features [n, places, d]."""
        return ((features.double() - self._mean) / self._scale @ self._directions).float()


def _at_places(h: Tensor) -> Tensor:
    means = F.adaptive_avg_pool2d(h, PLACES)
    energies = F.adaptive_avg_pool2d(h * h, PLACES).clamp_min(0).sqrt()
    return torch.cat([means, energies], 1).flatten(2).mT


def _responses(images: Tensor) -> Tensor:
    x = opponent(images)
    found = []
    for octave, (first, second) in enumerate(layers(_OCTAVES)):
        if octave:
            x = F.avg_pool2d(x, 2)
        if min(x.shape[2:]) < 3:  # too small to be mirrored at its edges
            break
        h1 = convolved(x, first)
        found += [_at_places(h1), _at_places(convolved(F.relu(h1), second))]
    return torch.cat(found, 2)
