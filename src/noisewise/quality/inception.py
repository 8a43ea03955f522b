"""FID and KID as papers report them, through torchmetrics and the weights that papers use.

Papers: Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash
equilibrium" (FID); Binkowski et al. 2018, "Demystifying MMD GANs" (KID); Parmar et al. 2022, "On
aliased resizing and surprising subtleties in GAN evaluation" (how pictures are resized matters).

Nothing is downloaded: you give the file with the weights. These numbers are for comparing with
papers. InceptionV3 has learnt photographs and reads pictures at 299 pixels: for judging sprites,
scans or small pictures, the distance of this package sees more.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from noisewise.quality.eight_bits import levels
from noisewise.quality.features import check_images

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
# The file is a pickle, which could run anything: it is read only if it is exactly this one.
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
_WHERE = "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0"
_BATCH = 32
_SUBSETS, _SUBSET = 100, 1000  # of KID, as torchmetrics and papers have them


@dataclass(frozen=True)
class InceptionDistance:
    """FID and KID of two sets of pictures.

    Attributes:
        fid: Frechet distance; it is biased upwards, more so with fewer pictures: papers use 50,000
            generated ones. Compare at equal numbers only.
        kid: mean of the unbiased squared MMD over random subsets; papers often give 1000 times it.
        kid_deviation: standard deviation over the subsets.
        subset_size: pictures in a subset.
        num_generated: number of generated pictures.
        num_real: number of real pictures.
    """

    fid: float
    kid: float
    kid_deviation: float
    subset_size: int
    num_generated: int
    num_real: int


def inception_distance(
    generated: Tensor,
    real: Tensor,
    weights: str | Path,
    generator: torch.Generator | None = None,
) -> InceptionDistance:
    """Return FID and KID of generated pictures.

    ``FID = |m_g - m_r|^2 + tr(C_g + C_r - 2 (C_g C_r)^1/2)`` of the 2,048 last features of
    InceptionV3; KID is the MMD of `mmd` in them, over 100 subsets of up to 1,000 pictures. Pictures
    are rounded to 8 bits and resized as TensorFlow 1 did (bilinear, not antialiased). Grey becomes
    colour, and what is transparent becomes white.

    Args:
        generated: float [n, c, h, w] in [-1, 1], n >= 2, c 1, 3 or 4.
        real: float [m, c, h, w], m >= 2.
        weights: the file "weights-inception-2015-12-05-6726825d.pth" (96 MB) of torch-fidelity;
            pytorch-fid has the same as "pt_inception-2015-12-05-6726825d.pth".
        generator: draws the subsets of KID; None: seed 0.

    Raises:
        ValueError: if the file is missing or another one, the extra "fid" is not installed, or
            there are too few pictures.

    Source: Heusel et al. 2017, equation 6; Binkowski et al. 2018, section 4.

    Example:
        >>> inception_distance(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), "missing.pth")
        Traceback (most recent call last):
        ValueError: missing.pth does not exist: FID and KID need weights-inception-2015-12-05-...
    """
    check_weights(weights)
    net = _net(Path(weights))
    return scores(_features(net, generated), _features(net, real), generator)


def scores(
    generated: Tensor, real: Tensor, generator: torch.Generator | None = None
) -> InceptionDistance:
    """Return FID and KID, as torchmetrics computes them, of features that are there already.

    Args:
        generated: features [n, d], n >= 2.
        real: features [m, d], m >= 2.
        generator: draws the subsets of KID; None: seed 0.

    Raises:
        ValueError: if the extra "fid" is not installed, or a set has fewer than two rows.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError as error:
        raise _not_installed() from error
    if min(len(generated), len(real)) < 2:
        raise ValueError(
            f"There are {len(generated)} generated and {len(real)} real pictures: "
            "give two or more of each, and as many as the paper you compare with."
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    seed = int(torch.randint(2**31, (), generator=generator))
    size = min(_SUBSET, len(generated), len(real))
    given = _Given(generated.shape[1])
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # it says that it keeps all features in memory
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")
        torch.manual_seed(seed)
        fid = FrechetInceptionDistance(feature=given)
        kid = KernelInceptionDistance(feature=given, subsets=_SUBSETS, subset_size=size)
        for metric in (fid, kid):
            metric.update(generated.double(), real=False)
            metric.update(real.double(), real=True)
        mean, deviation = kid.compute()
        return InceptionDistance(
            fid=float(fid.compute()),
            kid=float(mean),
            kid_deviation=float(deviation),
            subset_size=size,
            num_generated=len(generated),
            num_real=len(real),
        )


class _Given(nn.Module):
    """Passes features on, so that both numbers share one pass through the net."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _not_installed() -> ValueError:
    return ValueError(
        "FID and KID need torchmetrics and torch-fidelity: run pip install noisewise[fid]."
    )


def check_weights(weights: str | Path) -> None:
    """Refuse anything but the one file, before pictures are drawn for it.

    Args:
        weights: as for `inception_distance`.

    Raises:
        ValueError: if the file is missing or another one, or the extra "fid" is not installed.
    """
    path = Path(weights)
    if not path.is_file():
        wrong = "is no file" if path.exists() else "does not exist"
        raise ValueError(
            f"{path} {wrong}: FID and KID need {WEIGHTS} (96 MB), which nothing here "
            f"downloads; get it from {_WHERE} and give its path."
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"{path} is not {WEIGHTS} (its SHA-256 starts with {digest[:8]}): numbers of other "
            f"weights cannot be compared with papers; get the file from {_WHERE}."
        )
    if find_spec("torchmetrics") is None or find_spec("torch_fidelity") is None:
        raise _not_installed()


def _net(path: Path) -> nn.Module:
    """InceptionV3 with the weights of a file that was checked."""
    try:
        import torch_fidelity  # noqa: F401 - torchmetrics misses it only when the net is made
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError as error:
        raise _not_installed() from error
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        raise ValueError(
            f"torchvision does not fit torch {torch.__version__}, and torch-fidelity needs it: "
            "install the torchvision that was built for this torch."
        ) from error
    return NoTrainInceptionV3(
        name="inception-v3-compat",
        features_list=["2048"],
        feature_extractor_weights_path=str(path),
        antialias=False,
    )


def _features(net: nn.Module, images: Tensor) -> Tensor:
    """Features [n, 2048] on the CPU."""
    check_images(images, "images")
    if images.shape[1] not in (1, 3, 4):
        raise ValueError(
            f"Pictures have {images.shape[1]} channels: give 1 (grey), 3 (RGB) or 4 (RGBA)."
        )
    with torch.no_grad():
        parts = [net(levels(_on_white(part))).float().cpu() for part in images.split(_BATCH)]
    return torch.cat(parts)


def _on_white(images: Tensor) -> Tensor:
    """Colour pictures [n, 3, h, w]."""
    if images.shape[1] != 4:
        return images.expand(-1, 3, -1, -1)
    opacity = (images[:, 3:].clamp(-1, 1) + 1) / 2
    return (images[:, :3] - 1) * opacity + 1
