"""LoRA-Pro, LoRA+ groups and AdaLoRA's schedule."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from adapter_cases import CASES, Adapted, mean_loss

peft = pytest.importorskip("peft", reason="PEFT is not installed (extra: adapters)")
# PEFT 0.21 asks transformers 5 by a name that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

from noisewise.adapters import (  # noqa: E402
    LoraProAdamW,
    adalora_schedule,
    gradients,
    lora_ga,
    lora_pro,
    merge,
    param_groups,
    rewritten,
)
from noisewise.adapters.gradients import gradients_inside  # noqa: E402
from noisewise.adapters.layers import factor_parameters, lora_layers  # noqa: E402


def as_given(gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return gradient.flatten(1).double()


def projection(columns: torch.Tensor) -> torch.Tensor:
    return columns @ torch.linalg.pinv(columns)


@pytest.mark.parametrize("empty", ["none", "B", "A", "B of rank 1"])
def test_what_lora_pro_leaves_is_exactly_beyond_both_factors(empty: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, g = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 11), (9, 3), (9, 11))
    )
    if empty == "A":
        a *= 0
    if empty == "B":
        b *= 0
    if empty == "B of rank 1":
        b[:, 1:] = b[:, :1]
    c = 2.0
    h_a, h_b = rewritten(a, b, c * b.T @ g, c * g @ a.T, c)
    left = g - c * (h_b @ a + b @ h_a)
    beyond = (torch.eye(9) - projection(b)) @ g @ (torch.eye(11) - projection(a.T))
    torch.testing.assert_close(left, beyond, atol=1e-8, rtol=1e-6)
    plain = g - c**2 * (g @ a.T @ a + b @ b.T @ g) / 30  # what plain LoRA leaves, at any length
    assert float(plain.norm()) > float(left.norm())


def test_lora_pros_choice_lies_nearest_to_the_gradients() -> None:
    """X is free in the step of W; any other X is further from g."""
    generator = torch.Generator().manual_seed(1)
    a, b, g = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 11), (9, 3), (9, 11))
    )
    g_a, g_b = b.T @ g, g @ a.T
    h_a, h_b = rewritten(a, b, g_a, g_b, 1.0)

    def far(x: torch.Tensor) -> float:
        return float((h_a + x @ a - g_a).square().sum() + (h_b - b @ x - g_b).square().sum())

    nearest = far(torch.zeros(3, 3, dtype=torch.float64))
    for _ in range(20):
        x = 0.01 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
        assert far(x) > nearest


@pytest.mark.parametrize("mutate", [False, True])
def test_on_a_model_the_step_is_the_nearest_to_full_fine_tuning(mutate: bool) -> None:
    """One step of SGD on convolutions with stride, an embedding and linear layers."""
    model, batches, loss, names, _ = vars(CASES["mixed"]()).values()
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=names)
    grads = gradients(model, config, batches, loss)
    adapted = lora_ga(model, config, grads, mutate_base=mutate).eval()
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1e-5)
    lora_pro(optimizer, adapted, damping=0.0)
    mean_loss(adapted, batches, loss).backward()
    full = gradients_inside(adapted, batches, loss)
    before = {
        key: [p.detach().flatten(1).double() for p in factor_parameters(layer, "default")]
        for key, layer in lora_layers(adapted).items()
    }
    optimizer.step()  # it steps along the gradients that the hook left
    for key, layer in lora_layers(adapted).items():
        (a, b), c = before[key], layer.scaling["default"]
        h_a, h_b = (as_given(p.grad) for p in factor_parameters(layer, "default"))
        step = c * (h_b @ a + b @ h_a)
        g = full[key].double()
        beyond = g - projection(b) @ g
        beyond = beyond - beyond @ projection(a.T)
        assert float((g - step - beyond).norm()) < 1e-4 * float(g.norm()), key


def test_damping_holds_a_direction_that_has_not_grown() -> None:
    """With B nearly 0 the exact step of A is nearly infinite; damped, it is not."""
    generator = torch.Generator().manual_seed(0)
    a, b, g = (torch.randn(*s, generator=generator) for s in ((2, 8), (6, 2), (6, 8)))
    b *= 1e-5
    exact = rewritten(a, b, b.T @ g, g @ a.T, 1.0)[0]
    damped = rewritten(a, b, b.T @ g, g @ a.T, 1.0, reach=0.3)[0]
    assert float(exact.norm()) > 1e4
    assert float(damped.norm()) < 10


def test_pro_goes_straight_where_plain_sgd_diverges() -> None:
    """A change of rank 3 and uneven size, at the learning rate of full fine-tuning."""
    torch.manual_seed(0)
    x = torch.randn(256, 12)
    u, v = torch.linalg.qr(torch.randn(10, 3)).Q, torch.linalg.qr(torch.randn(12, 3)).Q
    change = u * torch.tensor([8.0, 2.0, 0.5]) @ v.T
    reached = {}
    for way in ("full", "plain", "pro"):
        torch.manual_seed(1)
        net: Any = nn.Sequential(nn.Linear(12, 10, bias=False))
        target = x @ (net[0].weight.detach() + change).T
        config = peft.LoraConfig(r=3, lora_alpha=3, target_modules=["0"])
        model = net if way == "full" else peft.get_peft_model(net, config)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        if way == "pro":
            lora_pro(optimizer, model)
        for _ in range(60):
            loss = (model(x) - target).square().sum(1).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        reached[way] = float(loss.detach())
    assert reached["full"] < 1e-3
    assert reached["pro"] < 1e-3
    assert not reached["plain"] < 1  # it may have become nan


def test_with_moments_of_the_full_step_it_is_full_fine_tunings_adamw() -> None:
    """Where the factors span everything, W takes AdamW's own steps; the moments are full-sized."""
    torch.manual_seed(0)
    net: Adapted = nn.Sequential(nn.Linear(6, 9))
    x, target = torch.randn(5, 32, 6), torch.randn(5, 32, 9)
    config = peft.LoraConfig(r=6, lora_alpha=12, target_modules=["0"])
    adapted: Adapted = peft.get_peft_model(copy.deepcopy(net), config)
    with torch.no_grad():
        adapted.base_model.model[0].lora_A["default"].weight.copy_(
            torch.linalg.qr(torch.randn(6, 6)).Q
        )
    net[0].bias.requires_grad_(False)
    full = torch.optim.AdamW([net[0].weight], lr=1e-3, weight_decay=0.0)
    ours = LoraProAdamW(adapted, lr=1e-3, damping=0.0)
    before = net[0].weight.detach().clone()
    for i in range(5):
        for model, optimizer in ((net, full), (adapted, ours)):
            (model(x[i]) - target[i]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    layer = adapted.base_model.model[0]
    moved = layer.get_delta_weight("default").detach()
    wanted = net[0].weight.detach() - before
    assert float((moved - wanted).norm() / wanted.norm()) < 0.02
    a = layer.lora_A["default"].weight
    assert ours.state[a]["exp_avg_sq"].shape == (9, 6)
    again = LoraProAdamW(adapted, lr=1e-3)
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again.state[a]["exp_avg"], ours.state[a]["exp_avg"])


def test_moments_of_the_full_step_keep_nearer_to_full_fine_tuning_than_adamw_on_the_factors() -> (
    None
):
    torch.manual_seed(0)
    model, batches, loss, names, _ = vars(CASES["mixed"]()).values()
    model.eval()
    start = copy.deepcopy(model)
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=names)
    grads = gradients(model, config, batches, loss)

    def weights(net: Adapted) -> torch.Tensor:
        modules = dict(net.named_modules())
        return torch.cat([modules[name].weight.detach().flatten() for name in names])

    moves = {}
    for way in ("full", "adamw", "pro"):
        net: Adapted = copy.deepcopy(start)
        if way == "full":
            modules = dict(net.named_modules())
            optimizer: Any = torch.optim.AdamW(
                [modules[name].weight for name in names], lr=1e-3, weight_decay=0.0
            )
        else:
            net = lora_ga(net, config, grads, scale="adam")
            free = [p for p in net.parameters() if p.requires_grad]
            optimizer = (
                LoraProAdamW(net, lr=1e-3)
                if way == "pro"
                else torch.optim.AdamW(free, lr=1e-3, weight_decay=0.0)
            )
        for _ in range(10):
            optimizer.zero_grad()
            mean_loss(net, batches, loss).backward()
            optimizer.step()
        moves[way] = weights(net if way == "full" else merge(net)) - weights(start)
    distance = {w: float((moves[w] - moves["full"]).norm()) for w in ("adamw", "pro")}
    assert distance["pro"] < 0.6 * distance["adamw"]


def test_pro_is_refused_where_it_is_not_defined() -> None:
    def adapted(**more: object) -> nn.Module:
        return peft.get_peft_model(
            nn.Sequential(nn.Linear(8, 6)), peft.LoraConfig(r=2, target_modules=["0"], **more)
        )

    net = adapted(use_dora=True)
    with pytest.raises(ValueError, match="this adapter is dora"):
        lora_pro(torch.optim.SGD(net.parameters(), 0.1), net)
    net = adapted()
    with pytest.raises(ValueError, match="does not have the factors"):
        lora_pro(torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    handle = lora_pro(optimizer, net)
    with pytest.raises(ValueError, match="without a closure"):
        optimizer.step(lambda: 0.0)
    handle.remove()
    optimizer.step(lambda: 0.0)


def test_lora_plus_speeds_up_b_alone() -> None:
    net = nn.ModuleDict(
        {"words": nn.Embedding(9, 8), "conv": nn.Conv2d(3, 8, 3), "lin": nn.Linear(8, 6)}
    )
    config = peft.LoraConfig(
        r=2, target_modules=["words", "conv", "lin"], use_dora=True, bias="all"
    )
    adapted = peft.get_peft_model(net, config)
    groups = {g["name"]: g for g in param_groups(adapted, 1e-3, b_ratio=8, weight_decay=0.1)}
    layers = lora_layers(adapted)
    assert {id(p) for p in groups["B"]["params"]} == {
        id(factor_parameters(layers[name], "default")[1]) for name in ("conv", "lin")
    }
    assert groups["B"]["lr"] == pytest.approx(8e-3)
    assert {groups[name]["lr"] for name in ("A", "rest", "vectors")} == {1e-3}
    vectors = {id(p) for p in groups["vectors"]["params"]}
    magnitudes = {id(p) for n, p in adapted.named_parameters() if "magnitude" in n}
    biases = {id(p) for n, p in adapted.named_parameters() if n.endswith("bias")}
    assert magnitudes | biases <= vectors
    assert groups["vectors"]["weight_decay"] == 0
    everything = [p for g in groups.values() for p in g["params"]]
    free = [p for p in adapted.parameters() if p.requires_grad]
    assert {id(p) for p in everything} == {id(p) for p in free}
    assert len(everything) == len(free)
    torch.optim.AdamW(list(groups.values())).step()
    with pytest.raises(ValueError, match="must be positive"):
        param_groups(adapted, 0.0)


def test_adaloras_ranks_fall_only_where_the_schedule_is_called() -> None:
    alive = {}
    for called in (False, True):
        torch.manual_seed(0)
        config = peft.AdaLoraConfig(
            target_modules=["0", "2"],
            init_r=6,
            target_r=2,
            tinit=2,
            tfinal=4,
            deltaT=1,
            total_step=20,
        )
        net = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12))
        adapted = peft.get_peft_model(net, config)
        optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], 1e-2)
        if called:
            adalora_schedule(optimizer, adapted, 20)
        for _ in range(20):
            (adapted(torch.randn(16, 12)) - 1).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        alive[called] = sum(
            int((layer.lora_E["default"] != 0).sum()) for layer in lora_layers(adapted).values()
        )
    assert alive == {False: 12, True: 4}


def test_a_schedule_that_does_not_fit_is_refused() -> None:
    def adapted(config: object) -> nn.Module:
        return peft.get_peft_model(nn.Sequential(nn.Linear(8, 6)), config)

    net = adapted(peft.LoraConfig(r=2, target_modules=["0"]))
    with pytest.raises(ValueError, match="this adapter is lora"):
        adalora_schedule(torch.optim.SGD(net.parameters(), 0.1), net)
    net = adapted(peft.AdaLoraConfig(target_modules=["0"], total_step=100, tinit=5, tfinal=5))
    with pytest.raises(ValueError, match="total_step=100, but 50"):
        adalora_schedule(torch.optim.SGD(net.parameters(), 0.1), net, 50)
