"""Teachers from folders of diffusers: the denoiser is theirs, and a distilled net goes back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

diffusers = pytest.importorskip("diffusers", reason="needs the extra: noisewise[diffusers]")

from noisewise.app import cli  # noqa: E402
from noisewise.training.load import load  # noqa: E402
from noisewise.training.models.diffusers_folder import read_diffusers  # noqa: E402
from noisewise.training.models.diffusers_net import (  # noqa: E402
    check_description,
    diffusers_denoiser,
)
from noisewise.training.models.models import Generator, Teacher  # noqa: E402
from noisewise.training.run.run import Run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of diffusers, about itself
UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
DIT: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 3,
    "patch_size": 2,
    "num_layers": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "num_embeds_ada_norm": 3,
}


def unet(**more: Any) -> Any:  # noqa: ANN401 (classes of an extra)
    torch.manual_seed(0)  # diffusers draws its first weights from the global state
    net = diffusers.UNet2DModel(**{**UNET, **more})
    with torch.no_grad():
        net.conv_out.weight.mul_(3)
    return net.eval()


def dit(**more: Any) -> Any:  # noqa: ANN401
    torch.manual_seed(0)
    net = diffusers.DiTTransformer2DModel(**{**DIT, **more})
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return net.eval()


def saved(folder: Path, net: Any, scheduler: Any) -> Path:  # noqa: ANN401
    """A pipeline's folder, as diffusers writes it."""
    name = "transformer" if "DiT" in type(net).__name__ else "unet"
    net.save_pretrained(folder / name)
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": diffusers.__version__,
        name: ["diffusers", type(net).__name__],
        "scheduler": ["diffusers", type(scheduler).__name__],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def described(net: Any, scheduler: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "name": "diffusers",
        "class": type(net).__name__,
        "config": dict(net.config),
        "scheduler": {"class": type(scheduler).__name__, "config": dict(scheduler.config)},
    }


def denoiser_of(net: Any, scheduler: Any) -> Any:  # noqa: ANN401
    denoiser = diffusers_denoiser(described(net, scheduler))
    (inner,) = denoiser.children()
    inner.load_state_dict(net.state_dict())
    return denoiser.eval()


def noised() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------- the denoiser is what their scheduler says
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("t", [0, 37, 500, 999])
@torch.no_grad()
def test_time_steps_give_the_picture_that_ddim_gives(prediction: str, clip: bool, t: int) -> None:
    net = unet()
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, clip_sample=clip)
    scheduler.set_timesteps(1000)
    x_t = noised()
    theirs = scheduler.step(net(x_t, t).sample, t, x_t).pred_original_sample
    alpha = scheduler.alphas_cumprod[t]
    sigma = ((1 - alpha) / alpha).sqrt()
    ours = denoiser_of(net, scheduler)(x_t / alpha.sqrt(), sigma.expand(2))
    scale = theirs.abs().max().clamp(min=1)
    torch.testing.assert_close(ours / scale, theirs / scale, atol=2e-3, rtol=0)
    assert not clip or ours.abs().max() <= 1


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
@torch.no_grad()
def test_edm_gives_the_picture_that_its_scheduler_gives(prediction: str, sigma: float) -> None:
    net = unet()
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction, sigma_data=0.4)
    x = noised() * sigma
    given = scheduler.precondition_inputs(x, sigma)
    out = net(given, scheduler.precondition_noise(sigma)).sample
    theirs = scheduler.precondition_outputs(x, out, sigma)
    ours = denoiser_of(net, scheduler)(x, torch.full((2,), sigma))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_flow_gives_the_picture_of_one_eulers_step_to_the_end() -> None:
    net = unet()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.7])
    x_s, t = noised(), scheduler.timesteps[0]
    theirs = scheduler.step(net(x_s, t).sample, t, x_s).prev_sample
    sigma = torch.full((2,), 0.7 / 0.3)
    ours = denoiser_of(net, scheduler)(x_s / 0.3, sigma)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_schedule_of_zero_terminal_snr_loses_its_last_steps_alone() -> None:
    scheduler = diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", clip_sample=False
    )
    denoiser = denoiser_of(unet(), scheduler)
    assert 900 < len(denoiser.log_sigmas) < 1000
    assert 100 < denoiser.sigma_max < 225


# ------------------------------------------------------------------------ folders
def test_a_pipelines_folder_is_a_teacher(tmp_path: Path) -> None:
    net, scheduler = unet(), diffusers.DDPMScheduler()
    folder = saved(tmp_path / "pipe", net, scheduler)
    teacher = read_diffusers(folder)
    assert isinstance(teacher, Teacher)
    assert (teacher.size, teacher.channels, teacher.classes) == (8, 1, ())
    alphas = scheduler.alphas_cumprod.double()
    low, high = ((1 - alphas[[0, -1]]) / alphas[[0, -1]]).sqrt().tolist()
    assert teacher.config.sigma_range == pytest.approx((low, high), rel=1e-5)
    drawn = teacher.sample(64, calls=12, sampler="dpmpp_2m", guidance=1.0)
    assert teacher.config.sigma_data == pytest.approx(drawn.std().item(), rel=1e-5)
    alone = read_diffusers(folder / "unet")
    torch.testing.assert_close(alone.sample(2), teacher.sample(2))
    torch.testing.assert_close(load(folder).sample(2), teacher.sample(2))


def test_half_precision_and_weights_in_parts_are_read(tmp_path: Path) -> None:
    net, scheduler = unet(), diffusers.DDPMScheduler()
    folder = saved(tmp_path / "pipe", net, scheduler)
    whole = read_diffusers(folder).sample(2)
    shutil.rmtree(folder / "unet")
    net.save_pretrained(folder / "unet", max_shard_size="20KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    torch.testing.assert_close(read_diffusers(folder).sample(2), whole)
    shutil.rmtree(folder / "unet")
    unet().half().save_pretrained(folder / "unet", variant="fp16")
    torch.testing.assert_close(read_diffusers(folder).sample(2), whole, atol=0.05, rtol=0)


def test_a_hubs_links_are_followed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "pipe", unet(), diffusers.DDPMScheduler())
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    assert read_diffusers(folder).sample(1).isfinite().all()


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_classes_keep_their_names(tmp_path: Path, kind: str) -> None:
    net = unet(num_class_embeds=3) if kind == "unet" else dit()
    folder = saved(tmp_path / "pipe", net, diffusers.DDIMScheduler())
    assert read_diffusers(folder).classes == ("0", "1", "2")
    index = json.loads((folder / "model_index.json").read_text())
    index["id2label"] = {"0": "cat", "1": "dog", "2": "owl"}
    (folder / "model_index.json").write_text(json.dumps(index))
    teacher = read_diffusers(folder)
    assert teacher.classes == ("cat", "dog", "owl")
    assert not torch.equal(teacher.sample(1, label="cat"), teacher.sample(1, label="owl"))


# ------------------------------------------------------------------------ the whole way
@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_a_folder_is_distilled_and_the_net_goes_back_to_diffusers(
    tmp_path: Path, kind: str
) -> None:
    net = unet() if kind == "unet" else dit()
    folder, new = saved(tmp_path / "pipe", net, diffusers.DDIMScheduler()), tmp_path / "new"
    words = ["distill", str(new), "--teacher", str(folder), "--budget", "64images", "--batch", "8"]
    assert cli.main(words) == 0
    generator = load(new)
    assert isinstance(generator, Generator)
    assert generator.config.net["class"] == type(net).__name__
    torch.testing.assert_close(Run(new).teacher().sample(2), read_diffusers(folder).sample(2))
    assert cli.main(["sample", str(new), "-n", "4", "--out", str(tmp_path / "sheet.png")]) == 0

    # back in diffusers: one step of its own scheduler from the generator's noise level
    again = type(net).from_config(net.config).eval()  # in training, a DiT drops labels
    wrapped = generator.denoiser.state_dict()
    again.load_state_dict({name.partition(".")[2]: value for name, value in wrapped.items()})
    scheduler = diffusers.DDIMScheduler()
    sigma = torch.tensor([generator.sigma_init])
    t = generator.denoiser.timestep(sigma)  # pyrefly: ignore
    alpha = 1 / (1 + sigma.square())
    z = generator.noise(0, 0, 2)
    labels = generator.labels(0, 0, 2, None)
    given = (1 - alpha).sqrt() * z
    more = {} if labels is None else {"class_labels": labels}
    with torch.no_grad():
        eps = again(given, t.expand(2), **more).sample
    clip = scheduler.config.clip_sample_range
    x0 = ((given - (1 - alpha).sqrt() * eps) / alpha.sqrt()).clamp(-clip, clip)
    torch.testing.assert_close(x0, generator(z, labels).detach(), atol=1e-3, rtol=0)


def test_a_distillation_of_the_same_folder_goes_on_and_of_another_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = saved(tmp_path / "one", unet(), diffusers.DDIMScheduler())
    words = ["distill", str(tmp_path / "new"), "--budget", "64images", "--batch", "8", "--teacher"]
    assert cli.main([*words, str(one)]) == 0
    assert cli.main([*words, str(one)]) == 0
    two = saved(tmp_path / "two", unet(layers_per_block=2), diffusers.DDIMScheduler())
    assert cli.main([*words, str(two)]) == 2
    assert "has another teacher than" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["diffusers", "hub"])
def test_a_model_with_a_net_of_diffusers_is_exported(tmp_path: Path, to: str) -> None:
    """Each format compares its pictures with those of the model, and refuses if they differ."""
    from noisewise.export import write

    net = unet(num_class_embeds=3)
    teacher = read_diffusers(saved(tmp_path / "pipe", net, diffusers.DDIMScheduler()))
    config = replace(teacher.config, kind="generator", sigma_init=2.5)
    written = write(Generator(teacher.denoiser, config).eval(), to, tmp_path / f"out.{to}")
    assert written.difference is not None
    assert written.difference < 1e-4


# ------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "UNet2DConditionModel"}, "conditioned on text"),
        ({"class": "UNet3DModel"}, "not known"),
        ({"config": {"in_channels": 3, "out_channels": 6}}, "predicts a variance too"),
        ({"config": {"in_channels": 3, "out_channels": 4}}, "3 channels in and 4 out"),
        ({"config": {"block_out_channels": [10**9]}}, "numbers go up to"),
        ({"config": {"class_embed_type": "timestep"}}, "classes by number"),
        ({"config": {"time_embedding_type": "learned"}}, "whole time steps only"),
        ({"scheduler": {"class": "ScoreSdeVeScheduler", "config": {}}}, "is not known; use one"),
        (
            {"scheduler": {"class": "DDPMScheduler", "config": {"num_train_timesteps": 10**9}}},
            "num_train_timesteps",
        ),
        (
            {"scheduler": {"class": "DDPMScheduler", "config": {"variance_type": "learned"}}},
            "learned variance",
        ),
        (
            {"scheduler": {"class": "DDPMScheduler", "config": {"thresholding": True}}},
            "dynamic thresholding",
        ),
        ({"scheduler": None}, "no scheduler"),
    ],
)
def test_what_cannot_be_a_teacher_is_refused_with_the_reason(
    change: dict[str, Any], message: str
) -> None:
    scheduler = {"class": "DDPMScheduler", "config": {}}
    good = {"class": "UNet2DModel", "config": {}, "scheduler": scheduler}
    check_description(good)
    with pytest.raises(ValueError, match=message):
        check_description({**good, **change})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"vae": ["diffusers", "AutoencoderKL"]}, "latent space"),
        ({"text_encoder": ["transformers", "CLIPTextModel"]}, "conditioned by its text_encoder"),
        ({"unet": ["diffusers", "UNet2DConditionModel"]}, "it has UNet2DConditionModel"),
    ],
)
def test_latent_and_text_models_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: dict[str, Any], message: str
) -> None:
    folder = saved(tmp_path / "pipe", unet(), diffusers.DDPMScheduler())
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **part}))
    assert cli.main(["distill", str(tmp_path / "new"), "--teacher", str(folder)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "new").exists()


def test_damaged_folders_are_one_sentence(tmp_path: Path) -> None:
    folder = saved(tmp_path / "pipe", unet(), diffusers.DDPMScheduler())
    place = folder / "unet"
    config, weights = place / "config.json", place / "diffusion_pytorch_model.safetensors"
    whole, values = weights.read_bytes(), json.loads(config.read_text())

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            read_diffusers(folder)

    weights.write_bytes(whole[: len(whole) // 2])
    refused("diffusion_pytorch_model.safetensors")
    weights.unlink()
    refused("safetensors is missing")
    (place / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    refused("weights are a pickle")
    weights.write_bytes(whole)
    for change, message in (
        ({"block_out_channels": [16, 16]}, "do not fit its config"),
        ({"sample_size": None}, "no sample_size"),
        ({"sample_size": 10**6}, "numbers go up to"),
        ({"sample_size": 10**4}, "at most"),
        ({"block_out_channels": "wide"}, "cannot be a teacher"),
        ({"down_block_types": ["Nothing", "DownBlock2D"]}, "cannot be a teacher"),
    ):
        config.write_text(json.dumps({**values, **change}))
        refused(message)
    config.write_text(json.dumps(values))
    shutil.rmtree(folder / "scheduler")
    refused("give the folder of the whole pipeline")
