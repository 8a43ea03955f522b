"""Native features see detail that thumbnails lose; they are frozen, and know opacity."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from noisewise.quality import DenoiserFeatures, Judge, NativeFeatures, RandomConvFeatures


def pictures(num_images: int, size: int, seed: int, channels: int = 3) -> Tensor:
    """Smooth pictures: coarse noise, enlarged."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_images, channels, 6, 6, generator=g) * 1.6 - 0.8
    return nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("size", [96, 200])
def test_fine_noise_on_large_pictures_is_seen_where_thumbnails_are_blind(size: int) -> None:
    real, more = pictures(40, size, 0), pictures(40, size, 1)
    noisy = more + 0.05 * torch.randn(more.shape, generator=torch.Generator().manual_seed(2))
    native = Judge(real, [NativeFeatures()]).measure(noisy)
    thumbnails = Judge(real, [RandomConvFeatures()]).measure(noisy)
    assert native.value > 5
    assert thumbnails.value < 2


def test_they_are_frozen() -> None:
    t = torch.linspace(-1, 1, 40)
    picture = (t[:, None] * t[None, :]).expand(1, 1, 40, 40)
    found = NativeFeatures()(picture)[0, ::400]
    known = torch.tensor([0.00056, 0.0, 0.07981, 0.00177, 0.03352])
    torch.testing.assert_close(found, known, atol=2e-5, rtol=1e-4)


def test_colour_of_transparent_pixels_does_not_count_and_opacity_does() -> None:
    rgb = pictures(2, 32, 0)
    opaque, clear = torch.ones(2, 1, 32, 32), torch.full((2, 1, 32, 32), -1.0)
    features = NativeFeatures()
    torch.testing.assert_close(features(rgb), features(torch.cat([rgb, opaque], 1)))
    other = features(torch.cat([rgb.flip(0), clear], 1))
    torch.testing.assert_close(features(torch.cat([rgb, clear], 1)), other)
    assert not torch.allclose(features(torch.cat([rgb, clear], 1)), features(rgb))


def test_the_cost_is_bounded_by_reading_parts() -> None:
    assert NativeFeatures()(torch.zeros(1, 1, 1024, 512)).shape[1] == (
        NativeFeatures()(torch.zeros(1, 1, 128, 64)).shape[1] + 4 * 3 * 40 * 2
    )


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        NativeFeatures()(torch.zeros(1, 2, 16, 16))


class Tiny(nn.Module):
    """A denoiser with two blocks and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = nn.Embedding(3, 8)
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        h = self.stem(x) + self.labels(condition)[:, :, None, None]
        for block in self.blocks:
            h = torch.relu(block(h))
        return x


def test_denoiser_features_read_every_block_and_leave_the_net_as_it_was() -> None:
    torch.manual_seed(0)
    net = Tiny().train()
    features = DenoiserFeatures(net, conditioned=True)
    x = torch.rand(5, 1, 16, 16)
    found = features(x)
    assert found.shape == (5, 2 * 8 * 4 * 2)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    torch.testing.assert_close(found[3:], features(x[3:]), atol=1e-5, rtol=1e-4)


def test_denoiser_features_do_not_depend_on_a_class_and_name_their_net() -> None:
    torch.manual_seed(0)
    net = Tiny()
    before = DenoiserFeatures(net, conditioned=True)
    with torch.no_grad():
        swapped = net.labels.weight.flip(0).clone()
        found = before(torch.zeros(1, 1, 8, 8))
        net.labels.weight.copy_(swapped)  # the mean over classes is the same
        torch.testing.assert_close(before(torch.zeros(1, 1, 8, 8)), found, atol=1e-6, rtol=1e-4)
        net.stem.weight.mul_(2)
    assert DenoiserFeatures(net, conditioned=True).name != before.name
    assert before.name.startswith("denoiser-")


def test_a_net_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer"):
        DenoiserFeatures(nn.Identity())
