"""Changed pictures: exact changes, an even draw, and a net told of them that does not show them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from noisewise.nets import build, derive
from noisewise.nets.layers import NoiseEmbedding
from noisewise.pictures.pictures import Pictures
from noisewise.training.devices.engine import Engine
from noisewise.training.devices.processes import Ranks
from noisewise.training.in_memory import train
from noisewise.training.models.model_folder import build_denoiser
from noisewise.training.settings.augment import CHANGES, Change
from noisewise.training.settings.config import TrainConfig
from noisewise.training.settings.recipes import TeacherRecipe
from noisewise.training.stages.augmentation import Augmentation, border_colour
from noisewise.training.stages.batches import Batches
from noisewise.training.stages.heldout_loss import HeldOutBatch
from noisewise.training.stages.plan import TeacherPlan, plan_teacher
from noisewise.training.stages.told import Told

RECIPE = TeacherRecipe(batch=16, distance_images=0, sampler_images=0, noise_every=0)
ALL = Augmentation(CHANGES, share=0.5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(count: int = 6, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return torch.randn(count, channels, height, width, generator=seeded(7))


def vector(*values: float, count: int = 6) -> Tensor:
    return torch.tensor(values).expand(count, -1)


# ------------------------------------------------------------------ exact changes
@pytest.mark.parametrize("channels", [3, 4])
def test_the_vector_zero_changes_nothing(channels: int) -> None:
    x0 = some(channels=channels)
    assert torch.equal(ALL.apply(x0, torch.zeros(6, ALL.length)), x0)
    filled = replace(ALL, fill=(0.0,) * channels)
    assert torch.equal(filled.apply(x0, torch.zeros(6, ALL.length)), x0)


def test_flips_and_turns_are_those_of_torch_and_come_back() -> None:
    flips, turns, x0 = Augmentation(("flips",)), Augmentation(("turns",)), some()
    mirrored = flips.apply(x0, vector(1.0))
    assert torch.equal(mirrored, x0.flip(3))
    assert torch.equal(flips.apply(mirrored, vector(1.0)), x0)
    for quarters in (1, 2, 3):
        told = torch.nn.functional.one_hot(torch.tensor([quarters - 1] * 6), 3).float()
        turned = x0
        for _ in range(4):
            turned = turns.apply(turned, told)
        assert torch.equal(turns.apply(x0, told), x0.rot90(quarters, (2, 3)))
        assert torch.equal(turned, x0)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 6)])
@pytest.mark.parametrize("fill", [None, (0.25, -1.0, 0.5)])
def test_shifts_are_those_of_a_padded_picture_and_come_back(
    height: int, width: int, fill: tuple[float, ...] | None
) -> None:
    shifts, x0 = Augmentation(("shifts",), reach=0.25, fill=fill), some(1, 3, height, width)
    most = shifts.most((height, width))
    padded = np.pad(x0[0].numpy(), ((0, 0), (most[0],) * 2, (most[1],) * 2), "edge")
    if fill is not None:
        padded[:] = np.array(fill, np.float32)[:, None, None]
        padded[:, most[0] : -most[0], most[1] : -most[1]] = x0[0].numpy()
    for down in range(-most[0], most[0] + 1):
        for right in range(-most[1], most[1] + 1):
            told = torch.tensor([[down / most[0], right / most[1]]])
            found = shifts.apply(x0, told)
            top, left = most[0] - down, most[1] - right
            wanted = padded[:, top : top + height, left : left + width]
            assert np.array_equal(found[0].numpy(), wanted)
            inside = (..., slice(most[0], -most[0]), slice(most[1], -most[1]))
            assert torch.equal(shifts.apply(found, -told)[inside], x0[inside])


def test_orders_of_channels_come_back_and_hue_is_a_rotation_about_grey() -> None:
    channels, hue, x0 = Augmentation(("channels",)), Augmentation(("hue",)), some()
    orders = torch.eye(5)
    for told in orders:
        there = channels.apply(x0, told.expand(6, -1))
        back = [channels.apply(there, other.expand(6, -1)) for other in orders]
        assert any(torch.equal(one, x0) for one in back)
        assert not torch.equal(there, x0)

    def turned(x: Tensor, degrees: float) -> Tensor:
        angle = math.radians(degrees)
        return hue.apply(x, vector(math.cos(angle) - 1, math.sin(angle)))

    torch.testing.assert_close(turned(turned(x0, 50), -50), x0)
    torch.testing.assert_close(turned(turned(x0, 50), 70), turned(x0, 120))
    torch.testing.assert_close(turned(x0, 33).mean(1), x0.mean(1))
    torch.testing.assert_close(turned(x0, 33).square().sum(1), x0.square().sum(1))
    # A third of the circle is a change of channels: red becomes green.
    torch.testing.assert_close(turned(x0, 120), x0.roll(1, 1))
    grey = x0[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(turned(grey, 77), grey)


def test_colours_change_and_the_fourth_channel_stays() -> None:
    x0 = some(channels=4)
    for name, length in (("hue", 2), ("channels", 5)):
        told = torch.zeros(6, length)
        told[:, 0] = -1.0 if name == "hue" else 1.0
        changed = Augmentation((name,)).apply(x0, told)
        assert torch.equal(changed[:, 3], x0[:, 3])
        assert not torch.equal(changed[:, :3], x0[:, :3])
    with pytest.raises(ValueError, match="grey"):
        Augmentation(("hue",)).apply(some(channels=1), torch.zeros(6, 2))


# ------------------------------------------------------------------ the draw
def test_each_change_is_made_as_often_as_it_should_and_evenly() -> None:
    n, share = 20_000, 0.2
    told = Augmentation(CHANGES, share).draw(n, 16, seeded())
    assert torch.equal(told, Augmentation(CHANGES, share).draw(n, 16, seeded()))
    flips, turns, shifts, hue, channels = told.split([1, 3, 2, 2, 5], 1)
    near = 5 * math.sqrt(share * (1 - share) / n)
    assert abs(flips.mean() - share) < near
    assert ((turns.mean(0) - share / 3).abs() < near).all()
    assert ((channels.mean(0) - share / 5).abs() < near).all()
    assert abs((hue != 0).any(1).float().mean() - share) < near
    pixels, counts = torch.unique(shifts[(shifts != 0).any(1)] * 2, return_counts=True)
    assert pixels.tolist() == [-2, -1, 0, 1, 2]  # an eighth of 16 pixels
    moved = counts[pixels != 0]  # pictures that were not moved at all are not counted
    assert moved.max() < 1.2 * moved.min()
    both = ((flips != 0).any(1) & (hue != 0).any(1)).float().mean()
    assert abs(both - share**2) < near  # independent


def test_pictures_that_are_not_square_are_turned_upside_down_alone() -> None:
    told = Augmentation(("turns",), 1.0).draw(50, (8, 12), seeded())
    assert torch.equal(told, torch.tensor([[0.0, 1.0, 0.0]]).expand(50, -1))
    x0 = some(50, 3, 8, 12)
    assert torch.equal(Augmentation(("turns",), 1.0).apply(x0, told), x0.flip((2, 3)))


def test_it_is_written_and_read() -> None:
    made = Augmentation(("shifts", "hue"), 0.3, 0.25, (0.1, -1.0, 1.0))
    for one in (made, replace(made, fill=None)):
        assert Augmentation.from_dict(one.to_dict()) == one


def test_the_colour_of_borders_is_that_of_most_of_their_pixels() -> None:
    x0 = some(10)
    assert border_colour(x0)[0] is None
    ground = torch.tensor([0.5, -1.0, 0.25]).view(1, 3, 1, 1).expand(10, 3, 8, 8).clone()
    ground[:, :, 2:6, 2:] = x0[:, :, 2:6, 2:]  # 4 of the 28 pixels of a border
    found, share = border_colour(ground)
    assert found == pytest.approx((0.5, -1.0, 0.25))
    assert share == pytest.approx(24 / 28)


# ------------------------------------------------------------------ what the net is told
NETS = {
    "unet": derive(8, 3, widths=(8, 8), num_classes=2).net,
    "pyramid": derive(64, 3, widths=(8, 8, 8, 8), architecture="pyramid").net,
    "vit": {"name": "vit", "channels": 3, "size": 8, "width": 32, "depth": 1, "patch": 4},
    "uvit": {"name": "uvit", "channels": 3, "size": 8, "width": 32, "depth": 1, "widths": [8]},
}


@pytest.mark.parametrize("name", list(NETS))
def test_a_net_that_is_told_of_nothing_is_the_net_itself(name: str) -> None:
    config = NETS[name]
    net = build(config).eval()
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=seeded())
    x, level = some(4, 3, config["size"], config["size"]), torch.linspace(-2, 2, 4)
    labels = torch.tensor([0, 1, 0, 1]) if config.get("num_classes") else None
    embedding = net.get_submodule("embedding")
    assert isinstance(embedding, NoiseEmbedding)
    told = Told(ALL.length, embedding.width, seed=0)
    vectors = ALL.draw(4, 8, seeded())
    plain = net(x, level, labels)
    assert torch.equal(net(x, level, labels, told(torch.zeros(4, ALL.length))), plain)
    assert not torch.equal(net(x, level, labels, told(vectors)), plain)


# ------------------------------------------------------------------ what leaks
@pytest.mark.parametrize("name", ["flips", "turns", "hue", "channels"])
def test_the_best_linear_guess_leaks_nothing_if_it_is_told(name: Change) -> None:
    """Without noise to look through, a net can only guess the mean of the pictures.

    The mean of changed pictures is linear in what is told, so least squares finds the mean of the
    set as it is; without being told it finds that of the changed ones.
    """
    augmentation, n = Augmentation((name,), share=0.5), 4000
    mean = some(1)[:, :, :4, :4]
    x0 = mean + 0.1 * torch.randn((n, 3, 4, 4), generator=seeded(1))
    told = augmentation.draw(n, 4, seeded(2))
    changed = augmentation.apply(x0, told).flatten(1).double()
    ones = torch.ones(n, 1, dtype=torch.float64)
    guess = torch.linalg.lstsq(torch.cat([ones, told.double()], 1), changed).solution[0]
    naive = torch.linalg.lstsq(ones, changed).solution[0]
    assert (guess - mean.flatten()).abs().max() < 0.02
    assert (naive - mean.flatten()).abs().max() > 0.2


def arrows(count: int = 48) -> Pictures:
    """Grey pictures, bright on the left side, of several brightnesses."""
    generator = np.random.default_rng(0)
    images = np.full((count, 8, 8, 1), 60, np.uint8)
    images[:, :, :3] = generator.integers(150, 250, (count, 1, 1, 1))
    return Pictures(images, None, (), (), (), "", "arrows", (), twins=())


def trained(config: TrainConfig) -> tuple[Tensor, Tensor]:
    """The guess at a noise that hides the picture, and what is drawn in three steps from there."""
    pictures = arrows()
    plan = plan_teacher(config, pictures, Engine.choose("cpu", threads=1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = build_denoiser(plan.net, plan.sigma_data, plan.prediction)
    for _ in train(pictures, denoiser, config):  # pyrefly: ignore[bad-argument-type]
        pass
    with torch.no_grad():
        x = 20 * torch.randn((64, 1, 8, 8), generator=seeded(3))
        guess = denoiser.eval()(x, torch.full((64,), 20.0))
        for sigma in (2.0, 0.5, 0.2):
            x = guess if sigma == 2.0 else x
            noise = torch.randn(x.shape, generator=seeded(4))
            x = denoiser(x + sigma * noise, torch.full((64,), sigma))
    return guess, x


def lean(images: Tensor) -> Tensor:
    """How much brighter the left side is than the right one."""
    return images[..., :3].mean((1, 2, 3)) - images[..., 5:].mean((1, 2, 3))


def test_a_trained_net_draws_the_pictures_as_they_are() -> None:
    """Half of the training pictures are mirrored: told, no picture is drawn so; untold, many are.

    Of the set, the left side is brighter by 140 of 127.5, 1.1.
    """
    shared = TrainConfig(
        budget="4800images", widths=(8, 8), kinds=0, flips="off", seed=1, augment="none",
        recipe=replace(RECIPE, changed_share=0.5),
    )  # fmt: skip
    guess, drawn = trained(replace(shared, augment="flips"))
    leaking, naive = trained(replace(shared, flips="on"))
    assert lean(guess).mean() == pytest.approx(1.1, abs=0.2)
    assert lean(leaking).mean() == pytest.approx(0.0, abs=0.3)
    assert (lean(drawn) > 0.5).all()
    assert (lean(naive) < -0.5).float().mean() > 0.15


# ------------------------------------------------------------------ batches and held-out loss
def planned(augment: str, pictures: Pictures | None = None) -> tuple[Pictures, TeacherPlan]:
    config = TrainConfig(budget="64images", widths=(8,), kinds=0, augment=augment, recipe=RECIPE)
    pictures = pictures or arrows()
    return pictures, plan_teacher(config, pictures, Engine.choose("cpu", threads=1))


def test_the_processes_of_a_batch_change_their_own_parts_of_it() -> None:
    pictures, plan = planned("turns,shifts")
    plan = replace(plan, augment={**plan.augment, "share": 0.5})
    engine, training = Engine.choose("cpu", threads=1), pictures.split(0)[0]

    def batch(rank: int, world: int) -> tuple[Tensor, Tensor]:
        made = Batches(pictures, training, plan, 3, replace(engine, ranks=Ranks(rank, world)))
        found = made.next(0)
        assert found.told is not None
        return found.x0, found.told

    x0, told = batch(0, 1)
    first, second = batch(0, 2), batch(1, 2)
    assert torch.equal(torch.cat([first[0], second[0]]), x0)
    assert torch.equal(torch.cat([first[1], second[1]]), told)
    untouched = (told == 0).all(1)
    assert 0 < int(untouched.sum()) < len(x0)


def test_batches_without_changes_are_those_of_before() -> None:
    """An old run resumes with the same random numbers."""
    pictures, plan = planned("none")
    made = Batches(pictures, pictures.split(0)[0], plan, 3, Engine.choose("cpu", threads=1))
    batch = made.next(0)
    assert batch.told is None
    generator = torch.Generator().manual_seed(3)
    if plan.flips:
        torch.rand((16, 1, 1, 1), generator=generator)
    from noisewise.diffusion import stratified

    assert torch.equal(batch.sigma, stratified(plan.noise, 16, generator, torch.device("cpu")))


def test_the_held_out_loss_sees_no_changed_picture() -> None:
    pictures, plain = planned("none")
    changing = planned("flips,turns,shifts")[1]
    engine = Engine.choose("cpu", threads=1)
    denoiser = build_denoiser(plain.net, plain.sigma_data, plain.prediction)
    held = pictures.tensor(pictures.split(0)[1])
    losses = [HeldOutBatch(held, None, plan, engine).loss(denoiser) for plan in (plain, changing)]
    assert changing.augment
    assert losses[0] == losses[1]
