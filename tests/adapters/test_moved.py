"""A moved base is the model of its own adapter alone, and PEFT's other calls know it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapter_cases import CASES, Adapted, disturbed

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import gradients, load, lora_ga, merge, pissa, save  # noqa: E402

CONFIG = peft.LoraConfig(r=2, lora_alpha=4, lora_dropout=0.3, target_modules=["0", "2"])


def net_and_input() -> tuple[Any, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8)), torch.randn(5, 16)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["mixed", "gpt2", "own"])
def test_without_the_adapter_the_model_is_the_clean_one(name: str) -> None:
    """As a DPO loop asks for its reference, again and again: nothing drifts."""
    model, batches, loss, names, output = vars(CASES[name]()).values()
    before = output(model.eval()).detach()
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=names)
    grads = gradients(model, config, batches, loss)
    config.exclude_modules = [key for key, g in grads.items() if min(g.shape) < 4]
    adapted = disturbed(lora_ga(model, config, grads, mutate_base=True))
    wanted, weights = output(adapted).detach(), copy.deepcopy(adapted.state_dict())
    size = float((wanted - before).abs().max())
    for _ in range(3):
        with adapted.disable_adapter():
            assert float((output(adapted) - before).abs().max()) < 1e-4 * size
            with adapted.disable_adapter():  # a second time changes nothing
                assert float((output(adapted) - before).abs().max()) < 1e-4 * size
        assert torch.equal(output(adapted), wanted)
    for key, value in adapted.state_dict().items():
        assert torch.equal(value, weights[key]), key
    other = copy.deepcopy(adapted)  # a copy is another model, with guards of its own
    with other.disable_adapter():
        assert torch.equal(output(adapted), wanted)
        assert float((output(other) - before).abs().max()) < 1e-4 * size
    assert float((output(adapted.unload()) - before).abs().max()) < 1e-4 * size


def test_a_backward_that_waits_is_not_disturbed() -> None:
    net, x = net_and_input()
    adapted = pissa(net, CONFIG).eval()
    loss = adapted(x).square().sum()
    wanted = torch.autograd.grad(loss, list(adapted.parameters())[-1], retain_graph=True)[0]
    with adapted.disable_adapter(), torch.no_grad():
        adapted(x)
    found = torch.autograd.grad(loss, list(adapted.parameters())[-1])[0]
    assert torch.equal(found, wanted)


def test_whatever_order_pefts_calls_come_in() -> None:
    net, x = net_and_input()
    before = net(x).detach()
    adapted = disturbed(pissa(net, CONFIG))
    wanted = adapted(x).detach()

    def again() -> Adapted:
        return copy.deepcopy(adapted)

    model = again()
    model.merge_adapter()
    close(model(x), wanted)
    with model.disable_adapter():
        close(model(x), before)
    close(model(x), wanted)
    model = again()
    model.merge_adapter()
    close(model.unload()(x), wanted)
    for call in ("merge_and_unload", "merge"):
        model = again()
        model.base_model.disable_adapter_layers()
        close(model(x), before)
        close((merge(model) if call == "merge" else model.merge_and_unload())(x), wanted)
    model = again()
    model.base_model.disable_adapter_layers()
    close(model.unload()(x), before)


def test_in_bfloat16_the_clean_weights_come_back_to_rounding() -> None:
    net, x = net_and_input()
    net, x = net.to(torch.bfloat16), x.to(torch.bfloat16)
    weight = net[0].weight.detach().clone().float()
    adapted = disturbed(pissa(net, CONFIG))
    with adapted.disable_adapter():
        found = adapted.base_model.model[0].get_base_layer().weight.float()
    assert float((found - weight).norm()) < 2**-8 * float(weight.norm())


def test_another_adapter_is_refused_until_the_start_is_gone(tmp_path: Path) -> None:
    net, x = net_and_input()
    before = net(x).detach()
    clean = copy.deepcopy(net)
    adapted = disturbed(pissa(net, CONFIG))
    plain = peft.LoraConfig(r=2, target_modules=["0"])
    with pytest.raises(ValueError, match="the start of adapter 'default' moved the base"):
        adapted.add_adapter("b", plain)
    save(disturbed(peft.get_peft_model(copy.deepcopy(clean), plain)), tmp_path)
    with pytest.raises(ValueError, match="the start of adapter 'default' moved the base"):
        adapted.load_adapter(str(tmp_path), "b")
    with pytest.raises(ValueError, match="the start of adapter 'default' moved the base"):
        adapted.add_weighted_adapter(["default"], [0.5], "b")
    with pytest.raises(ValueError, match="use disable_adapter"):
        adapted(x, adapter_names=["default", "__base__", "default", "default", "default"])
    assert list(adapted.peft_config) == ["default"]
    adapted.delete_adapter("default")
    close(adapted.base_model.model(x), before)
    adapted.add_adapter("b", plain)
    adapted.set_adapter("b")
    close(adapted(x), before)
    disturbed(adapted)
    save(adapted, tmp_path, adapter="b")
    close(load(clean, tmp_path)(x), adapted(x))


def test_another_adapter_put_in_around_us_is_neither_saved_nor_merged(tmp_path: Path) -> None:
    net, _ = net_and_input()
    adapted = pissa(net, CONFIG)
    tuner: Any = adapted.base_model
    plain = peft.LoraConfig(r=2, target_modules=["0", "2"])
    adapted.peft_config["b"] = plain
    type(tuner).inject_adapter(tuner, tuner.model, "b")
    adapted.set_adapter("b")
    disturbed(adapted)
    with pytest.raises(ValueError, match="'b' was trained on weights"):
        save(adapted, tmp_path, adapter="b")
    with pytest.raises(ValueError, match="'b' was trained on weights"):
        merge(adapted, adapter="b")


def moved_start(net: nn.Module, seed: int) -> Adapted:
    """The paper's start from other samples: other factors, other frozen weights."""
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))
    config = peft.LoraConfig(
        r=2, lora_alpha=4, target_modules=["0"], modules_to_save=["2"], bias="lora_only"
    )
    grads = gradients(net, config, [x], lambda m, b: m(b).square().mean())
    return lora_ga(net, config, grads, mutate_base=True)


@pytest.mark.filterwarnings("ignore:Careful, disabling adapter layers")
def test_a_checkpoint_goes_on_with_its_own_start(tmp_path: Path) -> None:
    """What PEFT's load_adapter would read is the difference, of rank 2r, as if it were factors."""
    net, x = net_and_input()
    clean = copy.deepcopy(net)
    adapted = disturbed(moved_start(net, 1))
    adapted.save_pretrained(str(tmp_path))
    wanted = adapted(x).detach()
    again = moved_start(copy.deepcopy(clean), 2)
    assert not torch.allclose(again(x), wanted)
    result = again.load_adapter(str(tmp_path), "default", is_trainable=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    close(again(x), wanted)
    kept = adapted.state_dict()
    for key, value in again.state_dict().items():
        if "base_layer.weight" in key:
            close(value, kept[key])
        elif "original_module" not in key:
            assert torch.equal(value, kept[key]), key
    assert all(p.requires_grad for n, p in again.named_parameters() if "lora_" in n)
    disturbed(again, 0.1)
    save(again, tmp_path / "later")
    close(load(copy.deepcopy(clean), tmp_path / "later")(x), again(x))
    with again.disable_adapter():
        weight = again.base_model.model[0].get_base_layer().weight
        close(weight, clean[0].weight)


def test_what_a_moved_adapter_cannot_go_on_from_is_refused(tmp_path: Path) -> None:
    net, x = net_and_input()
    clean = copy.deepcopy(net)
    adapted = disturbed(moved_start(net, 1))
    before = adapted(x).detach()
    save(adapted, tmp_path / "plain")
    with pytest.raises(ValueError, match=r"has no noisewise_start.safetensors"):
        adapted.load_adapter(str(tmp_path / "plain"), "default")
    other = pissa(copy.deepcopy(clean), peft.LoraConfig(r=3, target_modules=["0"]))
    other.save_pretrained(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="its layers or ranks are different"):
        adapted.load_adapter(str(tmp_path / "other"), "default")
    assert torch.equal(adapted(x), before)


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
    begun = CASES["gpt2"]().model.state_dict()
    for key, value in whole.items():
        change = float((value - begun[key]).abs().max())
        assert float((gone_on[key] - value).abs().max()) <= 1e-3 * change, key
