"""Every way in which PEFT, diffusers, accelerate, Lightning and transformers save and resume."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model, save_model
from torch import nn

from adapter_cases import CASES, Adapted, disturbed, small_unet

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import (  # noqa: E402
    for_checkpoint,
    gradients,
    load,
    lora_ga,
    merge,
    pissa,
    save,
)

NAMES = ["words", "line", "plane", "point", "head"]
Again = Callable[[], Adapted]


def begun(seed: int) -> Adapted:
    """The paper's start from other samples in each script: other factors."""
    model, batches, loss, _, _ = vars(CASES["mixed"]()).values()
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=NAMES, modules_to_save=["space"])
    grads = gradients(model, config, [batches[seed]], loss)
    return lora_ga(model, config, grads, mutate_base=True)


def blank() -> Adapted:
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=NAMES, modules_to_save=["space"])
    return for_checkpoint(CASES["mixed"]().model, config)


def output(model: nn.Module) -> torch.Tensor:
    return CASES["mixed"]().output(model).detach()


def state_dict(adapted: Adapted, _: Path, again: Again) -> Adapted:
    other = again()
    other.load_state_dict(adapted.state_dict())
    return other


def state_dict_assigned(adapted: Adapted, _: Path, again: Again) -> Adapted:
    other = again()
    other.load_state_dict(copy.deepcopy(adapted.state_dict()), assign=True)
    return other


def torch_file(adapted: Adapted, folder: Path, again: Again) -> Adapted:
    torch.save(adapted.state_dict(), folder / "model.pt")
    other = again()
    other.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    return other


def safetensors_file(adapted: Adapted, folder: Path, again: Again) -> Adapted:
    save_model(adapted, str(folder / "model.safetensors"))
    other = again()
    load_model(other, str(folder / "model.safetensors"))
    return other


def lightning(adapted: Adapted, folder: Path, again: Again) -> Adapted:
    """A module that has the model; its checkpoint is the state dict of the whole."""

    class Module(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

    checkpoint = folder / "last.ckpt"
    torch.save({"state_dict": Module(adapted).state_dict(), "epoch": 1}, checkpoint)
    other = Module(again())
    other.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"], strict=True)
    return other.model


def accelerates(adapted: Adapted, folder: Path, again: Again) -> Adapted:
    accelerate = pytest.importorskip("accelerate")

    def accelerator(model: Adapted) -> Adapted:
        made = accelerate.Accelerator(cpu=True)
        free = [p for p in model.parameters() if p.requires_grad]
        made.prepare(model, torch.optim.AdamW(free, lr=1e-3))
        return made

    accelerator(adapted).save_state(str(folder / "state"))
    other = again()
    accelerator(other).load_state(str(folder / "state"))
    return other


def functions_of_peft(adapted: Adapted, _: Path, again: Again) -> Adapted:
    other = again()
    found = peft.set_peft_model_state_dict(other, peft.get_peft_model_state_dict(adapted))
    assert not found.unexpected_keys
    return other


def little_memory(adapted: Adapted, _: Path, again: Again) -> Adapted:
    other = again()
    tensors = peft.get_peft_model_state_dict(adapted)
    peft.set_peft_model_state_dict(other, tensors, low_cpu_mem_usage=True)
    return other


def load_adapter(adapted: Adapted, folder: Path, again: Again) -> Adapted:
    adapted.save_pretrained(str(folder))
    other = again()
    other.load_adapter(str(folder), "default", is_trainable=True)
    return other


def gathered(adapted: Adapted, folder: Path, again: Again) -> Adapted:
    """A sharded trainer passes the dict that it gathered; the model's own tensors are shards."""
    whole = {key: value.clone() for key, value in adapted.state_dict().items()}
    shards = copy.deepcopy(adapted)
    with torch.no_grad():
        for parameter in shards.parameters():
            parameter.zero_()
    shards.save_pretrained(str(folder), state_dict=whole)
    other = again()
    other.load_adapter(str(folder), "default", is_trainable=True)
    return other


def whole_model(adapted: Adapted, _: Path, again: Again) -> Adapted:
    buffer = io.BytesIO()
    torch.save(adapted, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def no_start_no_gradients(adapted: Adapted, folder: Path, again: Again) -> Adapted:
    adapted.save_pretrained(str(folder))
    return load(CASES["mixed"]().model, folder, trainable=True)


ROUTES = [
    state_dict, state_dict_assigned, torch_file, safetensors_file, lightning, accelerates,
    functions_of_peft, little_memory, load_adapter, gathered, whole_model, no_start_no_gradients,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Could not find a config file", "ignore:Careful, disabling")
@pytest.mark.filterwarnings("ignore:Removed shared tensor")
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.__name__)
@pytest.mark.parametrize("script", ["other start", "blank"])
def test_a_resumed_adapter_is_the_one_that_was_saved(
    route: Callable[[Adapted, Path, Again], Adapted], script: str, tmp_path: Path
) -> None:
    if script == "blank" and route in (whole_model, no_start_no_gradients):
        pytest.skip("this way makes no model before")
    adapted = disturbed(begun(0))
    wanted = output(adapted)
    again = route(adapted, tmp_path, (lambda: begun(1)) if script == "other start" else blank)
    again.eval()
    assert torch.equal(output(again), wanted)
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert [n for n, p in again.named_parameters() if p.requires_grad] == trained
    # Training goes on from the same point, and what is saved later is right.
    disturbed(again, 0.1)
    disturbed(adapted, 0.1)
    assert torch.equal(output(again), output(adapted))
    clean = CASES["mixed"]().model
    with again.disable_adapter():
        torch.testing.assert_close(output(again), output(clean), atol=1e-5, rtol=1e-5)
    save(again, tmp_path / "later")
    back = load(clean, tmp_path / "later").eval()
    torch.testing.assert_close(output(back), output(adapted), atol=1e-4, rtol=1e-4)


def test_what_is_saved_by_any_function_is_right_on_the_base_model(tmp_path: Path) -> None:
    adapted = disturbed(begun(0))
    wanted = output(adapted)
    adapted.save_pretrained(str(tmp_path / "own"))
    peft.PeftModel.save_pretrained(adapted, str(tmp_path / "peft"))
    for name in ("own", "peft"):
        back = peft.PeftModel.from_pretrained(CASES["mixed"]().model, str(tmp_path / name))
        assert torch.equal(output(back.eval()), wanted), name
    plain = peft.get_peft_model(CASES["mixed"]().model, adapted.peft_config["default"])
    peft.set_peft_model_state_dict(plain, peft.get_peft_model_state_dict(adapted))
    assert torch.equal(output(plain.eval()), wanted)


def test_half_an_adapter_is_refused() -> None:
    adapted = disturbed(begun(0))
    other = begun(1)
    trained = {n: p.detach() for n, p in adapted.named_parameters() if p.requires_grad}
    with pytest.raises(ValueError, match=r"only the trained half of .*named_parameters"):
        other.load_state_dict(trained, strict=False)
    config = copy.deepcopy(adapted.peft_config["default"])
    config.r = 2
    plain = peft.get_peft_model(CASES["mixed"]().model, config)
    says = "4 ranks here, 2 trained and 2 that subtract"
    with pytest.raises(ValueError, match=says):
        other.load_state_dict(plain.state_dict(), strict=False)
    with pytest.raises(ValueError, match=says):
        peft.set_peft_model_state_dict(other, peft.get_peft_model_state_dict(plain))
    with pytest.raises(RuntimeError, match=r"Missing key.*words.lora_embedding_A.default\""):
        other.load_state_dict({})


def test_checkpoints_of_versions_that_moved_weights_are_refused(tmp_path: Path) -> None:
    adapted = begun(0)
    save(adapted, tmp_path)
    (tmp_path / "noisewise_start.safetensors").touch()
    with pytest.raises(ValueError, match="written by an older version"):
        adapted.load_adapter(str(tmp_path), "default")
    with pytest.raises(ValueError, match="written by an older version"):
        load(CASES["mixed"]().model, tmp_path, trainable=True)
    load(CASES["mixed"]().model, tmp_path)


def test_a_note_of_other_weights_is_not_believed(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(16, 12))
    config = peft.LoraConfig(r=2, target_modules=["0"])
    adapted: Adapted = pissa(copy.deepcopy(net), config)
    adapted.save_pretrained(str(tmp_path))
    plain = peft.get_peft_model(copy.deepcopy(net), peft.LoraConfig(r=4, target_modules=["0"]))
    disturbed(plain).save_pretrained(str(tmp_path))
    back = load(net, tmp_path, trainable=True)
    assert sum(p.numel() for p in back.parameters() if p.requires_grad) == 4 * (16 + 12)


@pytest.mark.filterwarnings("ignore:Could not find a config file")
@pytest.mark.parametrize("metadata", [True, False])
def test_the_scripts_of_diffusers_save_and_resume(metadata: bool, tmp_path: Path) -> None:
    """get_peft_model_state_dict, save_lora_weights, and back by both of their ways."""
    diffusers = pytest.importorskip("diffusers")
    from diffusers.loaders import StableDiffusionLoraLoaderMixin
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft

    class Pipeline(diffusers.DiffusionPipeline, StableDiffusionLoraLoaderMixin):
        """Stable Diffusion's ways of saving and loading, around the U-Net alone."""

        def __init__(self, unet: nn.Module, text_encoder: None) -> None:
            super().__init__()
            self.register_modules(unet=unet, text_encoder=text_encoder)

    net = small_unet()
    clean, other = copy.deepcopy(net), copy.deepcopy(net)
    inputs = (torch.randn(2, 2, 8, 8), torch.tensor([3, 4]), torch.randn(2, 5, 6))
    alpha = 3 if metadata else 2  # a file without metadata has no alpha: it must equal r
    config = peft.LoraConfig(r=2, lora_alpha=alpha, target_modules=["to_q", "to_k", "to_v"])
    adapted = disturbed(pissa(net, config))
    unet = adapted.base_model.model  # what unwrap_model gives in such a script
    tensors = convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(unet))
    more = _collate_lora_metadata({"unet": unet}) if metadata else {}
    Pipeline.save_lora_weights(str(tmp_path), unet_lora_layers=tensors, **more)
    with torch.no_grad():
        wanted = adapted(*inputs).sample
        Pipeline(clean, None).load_lora_weights(str(tmp_path))
        torch.testing.assert_close(clean(*inputs).sample, wanted, atol=1e-5, rtol=1e-5)
        again = for_checkpoint(other, config).eval()
        saved, _ = Pipeline.lora_state_dict(str(tmp_path))
        saved = {key.removeprefix("unet."): value for key, value in saved.items()}
        unet = again.base_model.model
        peft.set_peft_model_state_dict(unet, convert_unet_state_dict_to_peft(saved))
        assert torch.equal(again(*inputs).sample, wanted)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_trainer_of_transformers_goes_on_where_it_stopped(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def run(place: Path, resume: bool, start_seed: int) -> dict[str, torch.Tensor]:
        model, batches, loss, names, _ = vars(CASES["gpt2"]()).values()
        data = torch.cat(batches)
        config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=names)
        chosen = data[torch.randperm(12, generator=torch.Generator().manual_seed(start_seed))[:4]]
        grads = gradients(model, config, [chosen], loss)
        adapted = lora_ga(model, config, grads, mutate_base=True)
        arguments = transformers.TrainingArguments(
            output_dir=str(place),
            max_steps=6,
            save_steps=3,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
        )
        samples = [{"input_ids": row, "labels": row} for row in data]
        trainer = transformers.Trainer(adapted, arguments, train_dataset=samples)
        trainer.train(resume_from_checkpoint=str(place / "checkpoint-3") if resume else None)
        merged = merge(adapted)
        return {key: value.detach().clone() for key, value in merged.state_dict().items()}

    whole = run(tmp_path, False, 1)
    gone_on = run(tmp_path, True, 2)  # from other samples: the checkpoint's start counts
    begun_with = CASES["gpt2"]().model.state_dict()
    for key, value in whole.items():
        change = float((value - begun_with[key]).abs().max())
        assert float((gone_on[key] - value).abs().max()) <= 1e-3 * change, key
    files = load_file(tmp_path / "checkpoint-6" / "adapter_model.safetensors")
    assert {value.shape[0] for key, value in files.items() if "lora_A" in key} == {4}


SHARDED = """
import copy, sys, torch, torch.distributed as dist
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions, get_model_state_dict, set_model_state_dict)
from torch.distributed.fsdp import fully_shard
from noisewise.adapters import for_checkpoint, pissa
rank, place = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + place + "/meet", rank=rank, world_size=2)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8))
clean, x = copy.deepcopy(net), torch.randn(4, 16)
config = LoraConfig(r=2, lora_alpha=3, target_modules=["0", "2"])
one = pissa(copy.deepcopy(net), config)
model = pissa(net, config)
for part in (model.base_model.model[0], model.base_model.model[2], model):
    fully_shard(part)
for m in (one, model):
    optimizer = torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        m(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
wanted = one(x).detach()
torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)
sharded = model.state_dict()
gathered = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in sharded.items()}
torch.testing.assert_close(
    gathered["base_model.model.0.lora_B.default.weight"],
    one.state_dict()["base_model.model.0.lora_B.default.weight"], atol=1e-5, rtol=1e-5)
options = StateDictOptions(full_state_dict=True, cpu_offload=True)
whole = get_model_state_dict(model, options=options)
folder = place + "/adapter%d" % rank
model.save_pretrained(folder, state_dict=gathered)
back = PeftModel.from_pretrained(copy.deepcopy(clean), folder)
torch.testing.assert_close(back(x), wanted, atol=1e-5, rtol=1e-5)
again = for_checkpoint(copy.deepcopy(clean), config)
for part in (again.base_model.model[0], again.base_model.model[2], again):
    fully_shard(part)
again.load_state_dict(sharded)
torch.testing.assert_close(again(x), wanted, atol=1e-5, rtol=1e-5)
if rank == 0:
    single = for_checkpoint(copy.deepcopy(clean), config)
    single.load_state_dict(whole)
    torch.testing.assert_close(single(x), wanted, atol=1e-5, rtol=1e-5)
again = for_checkpoint(copy.deepcopy(clean), config)
fully_shard(again)
set_model_state_dict(again, gathered, options=StateDictOptions(full_state_dict=True))
torch.testing.assert_close(again(x), wanted, atol=1e-5, rtol=1e-5)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_sharded_by_fsdp2_it_trains_and_is_saved(tmp_path: Path) -> None:
    """Two processes; the gathered dict, the sharded one, and torch's functions for both."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(rank), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=400)[1] for process in ranks]
    for process, text in zip(ranks, errors, strict=True):
        assert process.returncode == 0, text
