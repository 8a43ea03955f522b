"""Gradients in wrapped, sharded, half precision and checkpointed models, and what they keep."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from adapter_cases import Adapted

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")

from noisewise.adapters import alignment, gradients, lora_ga  # noqa: E402

CONFIG = peft.LoraConfig(r=2, target_modules=["0", "2"])


def net_and_batches() -> tuple[Any, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8)), torch.randn(3, 6, 16)


def square(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).square().mean()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_stays_on_and_dropout_off(reentrant: bool) -> None:
    """Bytes kept for backward, for a small Llama and a BART, whose layers drop out themselves."""
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = {"vocab_size": 40, "max_position_embeddings": 64}
    llama = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        attention_dropout=0.2,
        **sizes,
    )
    bart = transformers.BartConfig(
        d_model=32,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        dropout=0.3,
        activation_dropout=0.2,
        encoder_layerdrop=0.1,
        **sizes,
    )
    tokens = torch.randint(4, 40, (2, 48), generator=torch.Generator().manual_seed(0))
    makers = [
        (transformers.LlamaForCausalLM, llama, ["q_proj", "down_proj"]),
        (transformers.BartForConditionalGeneration, bart, ["q_proj", "fc2"]),
    ]
    for kind, settings, names in makers:
        torch.manual_seed(0)
        model = kind(settings)
        kept: list[int] = []

        def loss(net: Adapted, batch: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            def pack(tensor: torch.Tensor) -> torch.Tensor:
                kept.append(tensor.numel())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                return net(input_ids=batch, labels=batch).loss

        config = peft.LoraConfig(target_modules=names)
        wanted = gradients(model, config, [tokens], loss)
        whole = sum(kept)
        kept.clear()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        if reentrant:
            model.enable_input_require_grads()
        found = gradients(model.eval(), config, [tokens], loss)
        assert sum(kept) < 0.5 * whole, kind.__name__
        assert not any(module.training for module in model.modules())
        assert model.config.to_dict().get("dropout", 0.3) == 0.3
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-6, rtol=1e-4)


class LossInTraining(nn.Module):
    """As detectors do: a loss in train mode, pictures in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.drop, self.b = (
            nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.b(self.drop(self.norm(self.a(x))))
        return found.square().mean() if self.training else found


def test_train_mode_for_models_that_need_it() -> None:
    torch.manual_seed(0)
    net, x = LossInTraining().eval(), torch.randn(3, 6, 16)
    config = peft.LoraConfig(target_modules=["a", "b"])
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="must return a scalar"):
        gradients(net, config, x, lambda m, b: m(b))
    found = gradients(net, config, x, lambda m, b: m(b), train=True)
    wanted = gradients(net, config, x, square)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not any(module.training for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_no_copy_of_a_layer_in_float64() -> None:
    class Largest(TorchDispatchMode):
        entries = 0

        def __torch_dispatch__(
            self,
            func: Callable[..., object],
            types: object,
            args: tuple = (),
            kwargs: dict | None = None,
        ) -> object:
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
                self.entries = max(self.entries, found.numel())
            return found

    net = nn.Sequential(nn.Linear(1024, 1024, bias=False))
    with Largest() as largest:
        gradients(net, peft.LoraConfig(target_modules=["0"]), torch.randn(2, 4, 1024), square)
    assert 0 < largest.entries <= 2**18


def test_small_gradients_in_half_precision_are_not_lost() -> None:
    """Most entries lie below float16's smallest number; one batch is too large for any scale."""
    net, x = net_and_batches()

    def small(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return 1e-5 * model(batch.to(next(model.parameters()).dtype)).float().square().mean()

    wanted = gradients(net, CONFIG, x, small)
    half = copy.deepcopy(net).half()
    found = gradients(half, CONFIG, x, small)
    for name in wanted:
        assert float((found[name] - wanted[name]).norm()) < 0.01 * float(wanted[name].norm())
    assert found.noise["0"].g2 == pytest.approx(wanted.noise["0"].g2, rel=0.05)
    large = gradients(half, CONFIG, x, lambda m, b: 1e9 * small(m, b))
    error = float((large["0"] - 1e9 * wanted["0"]).norm())
    assert error < 0.01 * 1e9 * float(wanted["0"].norm())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile asks for it
@pytest.mark.parametrize("way", ["data parallel", "compiled", "compiled in place"])
def test_wrapped_models_are_their_own(way: str) -> None:
    net, x = net_and_batches()
    wanted = gradients(net, CONFIG, x, square)
    model: Any = copy.deepcopy(net)
    if way == "data parallel":
        model = nn.DataParallel(model)
    elif way == "compiled":
        model = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
    model(x[0])
    found = gradients(model, CONFIG, x, square)
    assert list(found) == ["0", "2"]
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])
    adapted = lora_ga(model, CONFIG, found)
    torch.testing.assert_close(adapted(x[0]), net(x[0]))
    assert alignment(None, adapted, x, square).total.sgd.cosine > 0.3


def test_offloaded_weights_are_refused_in_one_sentence() -> None:
    net, x = net_and_batches()
    net[2] = nn.Linear(12, 8, device="meta")
    with pytest.raises(ValueError, match=r"weight of 2 is not in memory .*without device_map"):
        gradients(net, CONFIG, x, square)
    with pytest.raises(ValueError, match=r"weight of 2 is not in memory .*without device_map"):
        lora_ga(net, CONFIG, {"0": torch.randn(12, 16), "2": torch.randn(8, 12)})


SHARDED = """
import copy, sys, torch, torch.distributed as dist
from peft import LoraConfig
from torch import nn
from torch.distributed.fsdp import fully_shard
from noisewise.adapters import gradients, lora_ga
rank, place = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + place + "/meet", rank=rank, world_size=2)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8))
x = torch.randn(4, 6, 16)
config = LoraConfig(target_modules=["0", "2"], r=2)
loss = lambda model, batch: model(batch).square().mean()
sharded = copy.deepcopy(net)
for part in (sharded[0], sharded[2], sharded):
    fully_shard(part)
if sys.argv[3] == "used":
    loss(sharded, x[0]).backward()
    sharded.zero_grad()
found = gradients(sharded, config, x[2 * rank : 2 * rank + 2], loss)
before = sharded(x[0])
adapted = lora_ga(sharded, config, found)
torch.testing.assert_close(adapted(x[0]), before)
dist.destroy_process_group()
whole = gradients(net, config, [torch.cat([x[i], x[i + 2]]) for i in (0, 1)], loss)
assert (found.num_samples, found.num_batches) == (24, 2), (found.num_samples, found.num_batches)
for name in whole:
    torch.testing.assert_close(found[name], whole[name])
    assert abs(found.noise[name].g2 - whole.noise[name].g2) < 1e-6
"""


@pytest.mark.slow
@pytest.mark.parametrize("state", ["fresh", "used"])
def test_sharded_models_have_the_whole_gradient(state: str, tmp_path: Path) -> None:
    """FSDP2 in two processes: their batches of one step count as one."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(rank), str(tmp_path), state],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=400)[1] for process in ranks]
    for process, text in zip(ranks, errors, strict=True):
        assert process.returncode == 0, text
