"""Save, load and merge: what comes back on the clean base is what was trained."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from adapter_cases import CASES, disturbed, small_unet

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import gradients, load, lora_ga, merge, pissa, save  # noqa: E402
from noisewise.adapters.difference import truncated  # noqa: E402
from noisewise.adapters.layers import rank_and_scaling  # noqa: E402


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("start", ["plain", "held"])
def test_round_trip_on_the_clean_base(case: object, start: str, tmp_path: Path) -> None:
    model, batches, loss, names, output = vars(case()).values()  # pyrefly: ignore
    clean = copy.deepcopy(model).eval()
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=names)
    grads = gradients(model, config, batches, loss)
    config.exclude_modules = [name for name, g in grads.items() if min(g.shape) < 4]
    adapted = disturbed(lora_ga(model, config, grads, mutate_base=start == "held"))
    with torch.no_grad():
        wanted, untouched = output(adapted), output(clean)
        saved = save(adapted, tmp_path)
        assert set(saved.ranks.values()) == ({4} if start == "held" else {2})
        ours = output(load(copy.deepcopy(clean), tmp_path).eval())
        theirs = output(peft.PeftModel.from_pretrained(copy.deepcopy(clean), str(tmp_path)).eval())
        size = float((wanted - untouched).abs().max())
        assert float((theirs - wanted).abs().max()) < 1e-4 * size
        assert torch.equal(ours, theirs)
        # No case adapts a tied weight, so each can be merged.
        assert float((output(merge(adapted).eval()) - wanted).abs().max()) < 1e-4 * size


FRESH = """
import sys
from pathlib import Path
import torch
from peft import PeftModel
sys.path.insert(0, sys.argv[1])
from adapter_cases import CASES
for folder in map(Path, sys.argv[2:]):
    case = CASES[folder.name]()
    case.model.load_state_dict(torch.load(folder / "base.pt"))
    before = case.output(case.model.eval()).detach()
    wanted = torch.load(folder / "wanted.pt")
    loaded = PeftModel.from_pretrained(case.model, str(folder / "adapter")).eval()
    error = float((case.output(loaded).detach() - wanted).abs().max())
    assert error < 1e-4 * float((wanted - before).abs().max()), folder.name
    if folder.name in ("mixed", "gpt2", "diffusers"):
        assert "noisewise" not in sys.modules
assert "noisewise.adapters" not in sys.modules
"""


@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_a_fresh_process_with_peft_alone_reads_it(tmp_path: Path) -> None:
    """Every kind of layer, GPT-2, diffusers' U-Net, our own nets, through save_pretrained."""
    folders = []
    for name, make in CASES.items():
        if name == "diffusers" and not find_spec("diffusers"):
            continue
        model, batches, loss, names, output = vars(make()).values()
        folder = tmp_path / name
        folder.mkdir()
        torch.save(model.state_dict(), folder / "base.pt")
        config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=names)
        grads = gradients(model, config, batches, loss)
        config.exclude_modules = [key for key, g in grads.items() if min(g.shape) < 4]
        adapted = disturbed(lora_ga(model, config, grads, mutate_base=True))
        torch.save(output(adapted).detach(), folder / "wanted.pt")
        adapted.save_pretrained(str(folder / "adapter"))
        folders.append(str(folder))
    tests = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", FRESH, tests, *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("way", ["peft", "pipeline", "mixed ranks", "bias"])
def test_diffusers_loads_it_unmodified(way: str, tmp_path: Path) -> None:
    net = small_unet()
    clean = copy.deepcopy(net)
    inputs = (torch.randn(2, 2, 8, 8), torch.tensor([3, 4]), torch.randn(2, 5, 6))
    config = peft.LoraConfig(r=2, lora_alpha=7, target_modules=["to_k", "to_v", "conv1"])
    if way == "bias":
        config.target_modules, config.lora_bias = {"to_out.0", "conv1"}, True
    if way == "mixed ranks":
        config.rank_pattern = {"to_k": 1}
    grads = gradients(net, config, [inputs], lambda m, b: m(*b).sample.square().mean())
    adapted = disturbed(lora_ga(net, config, grads, mutate_base=way in ("peft", "pipeline")))
    saved = save(adapted, tmp_path, prefix=None if way == "peft" else "unet")
    assert len(set(saved.ranks.values())) == (2 if way == "mixed ranks" else 1)
    with torch.no_grad():
        wanted = adapted(*inputs).sample
        if way == "peft":
            clean.load_lora_adapter(
                str(tmp_path), weight_name="adapter_model.safetensors", prefix="base_model.model"
            )
        else:
            from diffusers import DiffusionPipeline
            from diffusers.loaders import StableDiffusionLoraLoaderMixin

            class Pipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):
                """Stable Diffusion's way of loading, around the U-Net alone."""

                def __init__(self, unet: nn.Module, text_encoder: None) -> None:
                    super().__init__()
                    self.register_modules(unet=unet, text_encoder=text_encoder)

            Pipeline(clean, None).load_lora_weights(str(tmp_path))
        torch.testing.assert_close(clean(*inputs).sample, wanted, atol=1e-4, rtol=1e-4)


def test_the_header_tells_a_pipeline_of_mixed_ranks(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["0", "2"], rank_pattern={"2": 2})
    adapted = disturbed(peft.get_peft_model(net, config))
    save(adapted, tmp_path, prefix="transformer")
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
        ranks = {key: file.get_tensor(key).shape[0] for key in file.keys() if "lora_A" in key}
    assert ranks == {"transformer.0.lora_A.weight": 3, "transformer.2.lora_A.weight": 2}
    fields = {key.removeprefix("transformer."): value for key, value in header.items()}
    described = peft.LoraConfig(**fields)
    assert [rank_and_scaling(described, name) for name in ("0", "2")] == [(3, 1.0), (2, 1.0)]


def test_what_a_pipeline_has_no_place_for_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6))
    config = peft.LoraConfig(r=2, target_modules=["0"], modules_to_save=["1"])
    adapted = peft.get_peft_model(net, config)
    with pytest.raises(ValueError, match=r"cannot load 1\.(weight|bias)"):
        save(adapted, tmp_path, prefix="unet")
    with pytest.raises(ValueError, match=r"prefix 'unet\.' is not a model"):
        save(adapted, tmp_path, prefix="unet.")
    assert not list(tmp_path.iterdir())


def test_the_bias_of_lora_bias_is_multiplied_too(tmp_path: Path) -> None:
    """PEFT adds c times the bias; the file's factor is 1."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.Unflatten(1, (6, 1)), nn.Conv1d(6, 5, 1))
    clean, x = copy.deepcopy(net), torch.randn(3, 8)
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["0", "2"], lora_bias=True)
    adapted = disturbed(peft.get_peft_model(net, config))
    save(adapted, tmp_path, rank=2)
    wanted = adapted(x).detach()
    torch.testing.assert_close(load(clean, tmp_path)(x), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(merge(adapted)(x), wanted, atol=1e-5, rtol=1e-5)


def test_rows_trained_alone_go_along(tmp_path: Path) -> None:
    """trainable_token_indices: some rows of the embedding, and of the head tied to it."""
    model = CASES["gpt2"]().model
    clean, tokens = copy.deepcopy(model).eval(), torch.tensor([[1, 5, 7, 2]])
    config = peft.LoraConfig(
        r=2,
        target_modules=["c_attn"],
        trainable_token_indices={"wte": [5, 7]},
        fan_in_fan_out=True,
    )
    adapted = disturbed(peft.get_peft_model(model, config))
    wanted = adapted(input_ids=tokens).logits.detach()
    save(adapted, tmp_path)
    back = load(copy.deepcopy(clean), tmp_path).eval()
    torch.testing.assert_close(back(input_ids=tokens).logits, wanted, atol=1e-5, rtol=1e-5)
    merged: Any = merge(adapted)
    torch.testing.assert_close(merged(input_ids=tokens).logits, wanted, atol=1e-5, rtol=1e-5)
    assert merged.lm_head.weight is merged.transformer.wte.weight
    rows = (
        (merged.lm_head.weight != clean.get_parameter("transformer.wte.weight"))
        .any(1)
        .nonzero()
        .flatten()
    )
    assert rows.tolist() == [5, 7]


def test_half_an_adapter_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    short = nn.Sequential(copy.deepcopy(net[0]), nn.Tanh())
    config = peft.LoraConfig(r=2, target_modules=["0", "2"])
    save(disturbed(peft.get_peft_model(copy.deepcopy(net), config)), tmp_path)
    with pytest.raises(ValueError, match=r"no layer for 2 of its tensors: .*\.2\.lora_"):
        load(short, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    half = {key: value for key, value in load_file(file).items() if ".2." not in key}
    save_file(half, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not fit this model"):
        load(copy.deepcopy(net), tmp_path)


def test_a_module_trained_in_full_that_is_not_there_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6))
    config = peft.LoraConfig(r=2, target_modules=["0"], modules_to_save=["1"])
    save(peft.get_peft_model(copy.deepcopy(net), config), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    kept = {key: value for key, value in load_file(file).items() if "lora_" in key}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not fit this model"):
        load(net, tmp_path)


def test_the_rank_asked_for_is_the_best_of_that_rank(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 12, bias=False))
    clean = net.state_dict()["0.weight"].clone()
    adapted = disturbed(pissa(net, peft.LoraConfig(r=3, target_modules=["0"])))
    layer = adapted.base_model.model[0]
    change = layer.get_base_layer().weight + layer.get_delta_weight("default") - clean
    values = torch.linalg.svdvals(change.detach())
    saved = save(adapted, tmp_path, rank=2)
    assert saved.energy["0"] == pytest.approx(
        float(values[:2].square().sum() / values.square().sum())
    )
    loaded: Any = load(nn.Sequential(nn.Linear(16, 12, bias=False)), tmp_path)
    back = loaded.base_model.model[0]
    error = float((back.get_delta_weight("default") - change).detach().norm())
    assert error == pytest.approx(float(values[2:].norm()), rel=1e-3)
    by_energy = save(adapted, tmp_path, energy=0.9)
    assert 0.9 <= by_energy.energy["0"] <= 1
    assert by_energy.ranks["0"] <= 6


def test_layers_that_share_a_name_are_told_apart(tmp_path: Path) -> None:
    """`0` is the end of `1.0` too: PEFT would adapt both."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6)))
    clean, x = copy.deepcopy(net), torch.randn(3, 6)
    config = peft.LoraConfig(r=2, target_modules="0")  # a pattern
    adapted = disturbed(peft.get_peft_model(net, config))
    assert list(save(adapted, tmp_path).ranks) == ["0"]
    back = peft.PeftModel.from_pretrained(clean, str(tmp_path))
    torch.testing.assert_close(back(x), adapted(x))


def test_adalora_becomes_a_plain_lora_without_its_dead_ranks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 12), nn.Conv1d(12, 4, 1))
    clean, x = copy.deepcopy(net), torch.randn(12, 16)
    config = peft.AdaLoraConfig(target_modules=["0"], init_r=4, target_r=2, total_step=10)
    adapted = disturbed(peft.get_peft_model(net, config))
    layer = adapted.base_model.model[0]
    with torch.no_grad():
        layer.lora_E["default"][1] = 0
    wanted = adapted(x)
    saved = save(adapted, tmp_path)
    assert saved.ranks == {"0": 3}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    back = peft.PeftModel.from_pretrained(clean, str(tmp_path))
    torch.testing.assert_close(back(x), wanted, atol=1e-5, rtol=1e-5)


def test_dora_is_saved_in_pefts_own_form(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6))
    clean, x = copy.deepcopy(net), torch.randn(3, 8)
    adapted = disturbed(
        peft.get_peft_model(net, peft.LoraConfig(use_dora=True, r=2, target_modules=["0"]))
    )
    save(adapted, tmp_path)
    torch.testing.assert_close(load(clean, tmp_path)(x), adapted(x))
    with pytest.raises(ValueError, match="DoRA cannot be compressed"):
        save(adapted, tmp_path, rank=1)


@pytest.mark.parametrize(
    ("given", "noted"), [(None, "/home/ann/models/unet"), ("ann/unet", "ann/unet")]
)
def test_the_base_has_the_name_that_others_find_it_by(
    tmp_path: Path, given: str | None, noted: str
) -> None:
    base = "/home/ann/models/unet"
    net = nn.Sequential(nn.Linear(8, 6))
    net.name_or_path = base  # pyrefly: ignore (as transformers does)
    adapted = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["0"]))
    save(adapted, tmp_path, base_model=given)
    text = (tmp_path / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == noted
    assert adapted.peft_config["default"].base_model_name_or_path == base


def test_modules_trained_in_full_go_along(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 12), nn.LayerNorm(12))
    clean, x = copy.deepcopy(net), torch.randn(3, 16)
    config = peft.LoraConfig(r=2, target_modules=["0"], modules_to_save=["1"])
    adapted = disturbed(pissa(net, config))
    save(adapted, tmp_path)
    torch.testing.assert_close(load(clean, tmp_path)(x), adapted(x), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("way", ["save", "modules_to_save", "dora"])
def test_running_statistics_go_along(way: str, tmp_path: Path) -> None:
    """Batch norms learn in training without a gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Linear(12, 4))
    clean, x = copy.deepcopy(net).eval(), 3 + torch.randn(64, 16)
    config = peft.LoraConfig(r=2, target_modules=["0", "2"], use_dora=way == "dora")
    grads = gradients(net, config, [x], lambda m, b: m(b).square().mean())
    if way == "modules_to_save":
        config.modules_to_save = ["1"]
        adapted = lora_ga(net, config, grads)
    else:
        with pytest.warns(UserWarning, match=r"1 has running statistics, .*modules_to_save"):
            adapted = lora_ga(net, config, grads)
    adapted.train()
    for _ in range(5):
        adapted(x)
    disturbed(adapted)
    wanted = adapted(x).detach()
    if way == "modules_to_save":
        adapted.save_pretrained(str(tmp_path))  # PEFT's own
    else:
        save(adapted, tmp_path)
    for back in (
        load(copy.deepcopy(clean), tmp_path).eval(),
        peft.PeftModel.from_pretrained(copy.deepcopy(clean), str(tmp_path)).eval(),
    ):
        torch.testing.assert_close(back(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Could not find a config file")
@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_pefts_auto_classes_find_the_base_model(task: str | None, tmp_path: Path) -> None:
    model, batches, _, names, _ = vars(CASES["gpt2"]()).values()
    model.save_pretrained(tmp_path / "base")
    model = type(model).from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=names, task_type=task)
    adapted = disturbed(pissa(model, config))
    save(adapted, tmp_path / "adapter")
    kind = peft.AutoPeftModel if task is None else peft.AutoPeftModelForCausalLM
    back = kind.from_pretrained(str(tmp_path / "adapter")).eval()
    wanted = adapted(input_ids=batches[0]).logits
    torch.testing.assert_close(back(input_ids=batches[0]).logits, wanted, atol=1e-5, rtol=1e-5)


def test_truncation_is_eckart_and_youngs() -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    right = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    values = torch.linalg.svdvals(left @ right)
    for rank in range(1, 6):
        x, y, kept = truncated(left, right, rank, None)
        assert float((left @ right - x @ y).norm()) == pytest.approx(
            float(values[rank:].norm()), abs=1e-9
        )
        assert kept == pytest.approx(float(values[:rank].square().sum() / values.square().sum()))


def test_what_cannot_be_saved_or_loaded_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 6))
    theirs = peft.get_peft_model(
        copy.deepcopy(net), peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights="pissa")
    )
    with pytest.raises(ValueError, match="by an amount that is not known"):
        save(theirs, tmp_path)
    plain = peft.get_peft_model(copy.deepcopy(net), peft.LoraConfig(r=2, target_modules=["0"]))
    with pytest.raises(ValueError, match="rank or energy"):
        save(plain, tmp_path, rank=1, energy=0.5)
    with pytest.raises(ValueError, match="not a share"):
        save(plain, tmp_path, energy=1.5)
    with pytest.raises(ValueError, match="not a PeftModel"):
        save(net, tmp_path)  # pyrefly: ignore
    save(plain, tmp_path)
    with pytest.raises(ValueError, match="does not fit this model"):
        load(nn.Sequential(nn.Linear(9, 6)), tmp_path)
    with pytest.raises(ValueError, match="does not fit this model"):
        load(nn.Sequential(nn.Tanh()), tmp_path)
