"""A watched loop: hooks see what a hand calculation sees, whatever the loop does to it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from noisewise.scaling import GradientNoise, Measurement, Monitor, watch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x)[:, 0] - x.sum(1)).square().mean()


def data(steps: int, micro: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(steps, micro, size, 4, generator=seeded(seed), dtype=torch.float64)


def by_hand(model: nn.Module, step: Tensor) -> tuple[float, float]:
    """|g|^2 and tr Sigma of one step from its micro-batch gradients."""
    rows = torch.stack(
        [
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss(model, x), list(model.parameters()))]
            )
            for x in step
        ]
    )
    noise = GradientNoise()
    noise.add_gradients(rows, step.shape[1])
    record = noise.state_dict()["records"][0]
    return record[0][0], record[1][0]


@pytest.mark.parametrize("divide", [True, False], ids=["mean", "sum"])
def test_accumulation_is_seen_before_clipping(divide: bool) -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = watch(model, sgd, every=1, skip=0)
    expected = []
    for step in data(12, 4, 8):
        expected.append(by_hand(model, step))
        for x in step:
            (loss(model, x) / (4 if divide else 1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        sgd.step()
        sgd.zero_grad()
    records = monitor.noise.state_dict()["records"]
    unit = 1 if divide else 16  # a summed loss is another loss, of four times the gradient
    for (g2, trace, num, batch), (true_g2, true_trace) in zip(records, expected, strict=True):
        assert (num, batch) == (4, 32.0)
        assert g2[0] == pytest.approx(unit * true_g2)
        assert trace[0] == pytest.approx(unit * true_trace)
    found = monitor.measurement()
    assert found.clipped_share == 1.0
    assert (found.batch, found.size, found.num_parameters) == (32.0, 8.0, 37)
    assert any("clipped" in sentence for sentence in monitor.recommend(64).warnings)


class Counted(TorchDispatchMode):
    """Operations by name: all, and those that made a tensor as large as the net's first weights."""

    def __init__(self) -> None:
        super().__init__()
        self.all: Counter[str] = Counter()
        self.large: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        out = func(*args, **(kwargs or {}))
        self.all[str(func)] += 1
        fresh = isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in inputs
        self.large[str(func)] += fresh and out.numel() >= 24
        return out


def test_unclipped_steps_are_not_called_clipped_and_others_cost_nothing() -> None:
    def counts(watched: bool) -> tuple[list[Counted], Monitor | None]:
        model = net()
        adam = torch.optim.Adam(model.parameters())
        monitor = watch(model, adam, every=5, skip=2) if watched else None
        found = []
        for step in data(21, 2, 8):
            with Counted() as mode:
                for x in step:
                    (loss(model, x) / 2).backward()
                adam.step()
                adam.zero_grad()
            found.append(mode)
        return found, monitor

    (plain, _), (watched, monitor) = counts(False), counts(True)
    assert monitor is not None
    assert len(monitor.noise) == 3  # steps 10, 15, 20: two measurements are left out first
    assert monitor.measurement().clipped_share == 0.0
    for step, (without, with_hooks) in enumerate(zip(plain, watched, strict=True)):
        if step not in (10, 15, 20):
            assert with_hooks.all == without.all  # not an operation more
            continue
        norms = with_hooks.all["aten.linalg_vector_norm.default"]
        assert norms == 20  # of 4 tensors: 2 passes, 2 sums, and what the optimiser saw
        assert +with_hooks.large == +without.large  # no copy of a gradient


def test_unequal_micro_batches_of_unknown_weight_are_left_out_and_counted() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor, equal = watch(model, sgd, every=1, skip=0), []
    for i, step in enumerate(data(20, 1, 32)[:, 0]):
        sizes = (8, 8, 8, 1) if i % 4 == 3 else (8, 8, 8, 8)
        if i % 4 != 3:
            equal.append(by_hand(model, step.view(4, 8, 4)))
        for x in step[: sum(sizes)].split(sizes):
            (loss(model, x) / 4).backward()
        sgd.step()
        sgd.zero_grad()
    records = monitor.noise.state_dict()["records"]
    assert [(r[0][0], r[1][0]) for r in records] == [pytest.approx(pair) for pair in equal]
    assert monitor.num_skipped == 5
    assert "5 of 20" in monitor.report()
    assert "steps_left_out" in monitor.measurement().warning_codes
    again = watch(model, sgd)
    again.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert again.skipped == monitor.skipped == {"unequal": 5}
    older = monitor.state_dict()  # of a version that kept sentences
    sentence = "unequal micro-batches whose weights are not known (see micro_batch())"
    again.load_state_dict(older | {"skipped": {sentence: 5}})
    assert again.skipped == monitor.skipped
    for x in step.split((16, 16)):  # announced, but not as weighing by its size
        monitor.micro_batch(len(x), weighted=False)
        (loss(model, x) / 2).backward()
    sgd.step()
    assert len(monitor.noise) == 16


class Tagger(nn.Module):
    """As transformers' models: the sum over labels, divided by those of the whole step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 5).double()

    def forward(self, x: Tensor, labels: Tensor, num_items_in_batch: int) -> Tensor:
        scores = self.inner(x).flatten(0, 1)
        total = nn.functional.cross_entropy(scores, labels.flatten(), reduction="sum")
        return total / num_items_in_batch


def test_where_labels_weigh_labels_are_counted() -> None:
    torch.manual_seed(0)
    model, generator = Tagger(), seeded(1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    monitor = watch(model, sgd, every=1, skip=0)
    for _ in range(5):
        x = torch.randn(3, 4, 6, 3, generator=generator, dtype=torch.float64)
        labels = torch.randint(5, (3, 4, 6), generator=generator)
        labels[torch.rand(labels.shape, generator=generator) < 0.4] = -100
        counts = labels.ne(-100).sum((1, 2)).tolist()
        rows = []
        for inputs, targets, count in zip(x, labels, counts, strict=True):
            own = torch.autograd.grad(model(inputs, targets, count), list(model.parameters()))
            rows.append(torch.cat([g.flatten() for g in own]))
            model(inputs, labels=targets, num_items_in_batch=sum(counts)).backward()
        sgd.step()
        sgd.zero_grad()
        expected = GradientNoise()
        expected.add_gradients(torch.stack(rows), counts)
        g2, trace, num, batch = monitor.noise.state_dict()["records"][-1]
        assert (num, batch) == (3, sum(counts))
        assert [g2, trace, num, batch] == [
            pytest.approx(value) for value in expected.state_dict()["records"][0]
        ]
    assert any("labels" in sentence for sentence in monitor.measurement().warnings)


def test_the_top_of_a_schedule_that_ended_at_nothing_is_kept() -> None:
    model, steps = net(), 12
    sgd = torch.optim.SGD(model.parameters(), lr=0.3)
    monitor = watch(model, sgd, every=2, skip=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, lambda i: min(i, steps - i) / (steps / 2))
    for step in data(steps, 4, 8):
        for x in step:
            (loss(model, x) / 4).backward()
        sgd.step()
        sgd.zero_grad()
        schedule.step()
    assert sgd.param_groups[0]["lr"] == 0.0
    assert monitor.measurement().optimizer.lr == pytest.approx(0.3)
    assert monitor.recommend(32.0).lr == pytest.approx(0.3)


def test_a_gradient_scaler_is_divided_out_and_infinite_steps_are_left_out() -> None:
    model, scale = net(), 1024.0
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = watch(model, sgd, every=1, skip=0, grad_scale=lambda: scale)
    expected = []
    for i, step in enumerate(data(6, 2, 8)):
        if i != 3:
            expected.append(by_hand(model, step))
        for x in step:
            (loss(model, x) / 2 * scale * (math.inf if i == 3 else 1)).backward()
        for p in model.parameters():
            assert p.grad is not None
            p.grad = torch.zeros_like(p) if i == 3 else p.grad / scale
        sgd.step()
        sgd.zero_grad()
    found = [(r[0][0], r[1][0]) for r in monitor.noise.state_dict()["records"]]
    assert monitor.num_skipped == 1
    assert torch.allclose(torch.tensor(found), torch.tensor(expected))
    assert monitor.measurement().clipped_share == 0.0


def test_a_step_left_out_by_the_scaler_is_forgotten_and_a_closure_is_followed() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = watch(model, sgd, every=1, skip=0)
    expected = []
    for i, step in enumerate(data(6, 4, 8)):
        if i == 2:  # no step is taken, the gradients are dropped
            for x in step:
                (loss(model, x) / 4).backward()
            sgd.zero_grad()
            continue
        expected.append(by_hand(model, step))
        for x in step[:3]:
            (loss(model, x) / 4).backward()

        def closure(x: Tensor = step[3]) -> float:
            value = loss(model, x) / 4
            value.backward()
            return float(value.detach())

        sgd.step(closure)
        sgd.zero_grad()
    records = [(r[0][0], r[1][0], r[2]) for r in monitor.noise.state_dict()["records"]]
    assert len(records) == 5
    for (g2, trace, num), truth in zip(records, expected, strict=True):
        assert num == 4
        assert (g2, trace) == pytest.approx(truth)


def test_unequal_micro_batches_by_their_share() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    monitor = watch(model, sgd, every=1, skip=0)
    sizes = (4, 12, 16)
    for step in data(300, 1, 32)[:, 0]:
        for x in step.split(sizes):
            monitor.micro_batch(len(x))
            (loss(model, x) * len(x) / 32).backward()
        sgd.step()
        sgd.zero_grad()
    rows = data(300, 1, 32).view(-1, 8, 4)
    reference = watch(model, sgd, every=1, skip=0)
    for step in rows.view(300, 4, 8, 4):
        for x in step:
            (loss(model, x) / 4).backward()
        sgd.step()
        sgd.zero_grad()
    unequal, equal = monitor.noise.read(), reference.noise.read()
    assert unequal.g2.value == pytest.approx(equal.g2.value, abs=3 * equal.g2.standard_error)
    error = equal.trace_sigma.standard_error
    assert unequal.trace_sigma.value == pytest.approx(equal.trace_sigma.value, abs=4 * error)


def test_backward_in_parts_gives_the_gradient_of_the_mean() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    monitor = watch(model, sgd, every=2, skip=0)
    for i, x in enumerate(data(8, 1, 16)[:, 0]):
        want = torch.autograd.grad(loss(model, x), list(model.parameters()))
        monitor.backward((model(x)[:, 0] - x.sum(1)).square(), parts=4)
        for parameter, gradient in zip(model.parameters(), want, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
        sgd.step()
        sgd.zero_grad()
        assert len(monitor.noise) == i // 2 + 1
    assert monitor.noise.num_micro == 4
    with pytest.raises(ValueError, match="unreduced"):
        monitor.backward(loss(model, x))


def test_groups_layers_and_evaluation_between_steps() -> None:
    model = net()
    first, second = list(model[0].parameters()), list(model[2].parameters())  # type: ignore[index]
    sgd = torch.optim.SGD([{"params": first}, {"params": second, "lr": 0.02}], lr=0.01)
    by_group, by_layer = (
        watch(model, sgd, every=1, skip=0),
        watch(model, sgd, every=1, skip=0, by_layer=True),
    )
    for step in data(10, 2, 8):
        for x in step:
            (loss(model, x) / 2).backward()
            with torch.no_grad():
                model(torch.zeros(3, 4, dtype=torch.float64))  # no micro-batch
        sgd.step()
        sgd.zero_grad()
    groups, layers = by_group.noise.read(), by_layer.noise.read()
    assert list(groups.groups) == ["group 0", "group 1"]
    assert list(layers.groups) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert groups.g2.value == pytest.approx(layers.g2.value)
    two = layers.groups["0.weight"].g2.value + layers.groups["0.bias"].g2.value
    assert groups.groups["group 0"].g2.value == pytest.approx(two)


def test_state_is_saved_and_the_measurement_too(tmp_path: Path) -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor, steps = watch(model, sgd, every=1, skip=0), data(30, 4, 8)

    def go(chunk: Tensor) -> None:
        for step in chunk:
            for x in step:
                (loss(model, x) / 4).backward()
            sgd.step()
            sgd.zero_grad()

    go(steps[:20])
    state = monitor.state_dict()
    monitor.remove()
    go(steps[:1])
    assert len(monitor.noise) == 20  # removed: sees nothing
    resumed = watch(model, sgd, every=1, skip=0)
    resumed.load_state_dict(state)
    go(steps[20:])
    assert len(resumed.noise) == 30
    resumed.measurement().save(tmp_path / "m.json")
    assert Measurement.load(tmp_path / "m.json").b_simple == resumed.noise.read().b_simple
    assert "noise scale" in resumed.report()


def test_watch_then_calibrate_knows_the_batch_and_records_nothing() -> None:
    model = net()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = watch(model, adam, every=1, skip=0)
    for step in data(10, 4, 8):
        for x in step:
            (loss(model, x) / 4).backward()
        adam.step()
        adam.zero_grad()
    found = monitor.calibrate(loss, list(data(1, 24, 8, seed=3)[0]), probes=2)
    assert found.batch == 32.0
    assert found.size == 8.0
    assert len(monitor.noise) == 10


def test_bad_input_is_one_sentence() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(ValueError, match="every is 0"):
        watch(model, sgd, every=0)
    with pytest.raises(ValueError, match="skip is -1"):
        watch(model, sgd, skip=-1)
    with pytest.raises(ValueError, match="size is 0"):
        watch(model, sgd, size=0)
    with pytest.raises(ValueError, match="no trainable parameter"):
        watch(nn.Linear(2, 1), sgd)
    monitor = watch(model, sgd, every=1, skip=0)
    with pytest.raises(ValueError, match="0 steps"):
        monitor.measurement()
    for x in data(3, 1, 8)[:, 0]:
        loss(model, x).backward()
        sgd.step()
        sgd.zero_grad()
    assert len(monitor.noise) == 0
    with pytest.raises(ValueError, match="only one micro-batch"):
        monitor.measurement()
    with pytest.raises(ValueError, match="size is -1"):
        monitor.micro_batch(-1)


@pytest.mark.parametrize("way", ["unfrozen", "added"])
def test_parameters_that_are_trained_later_are_measured_from_then_on(way: str) -> None:
    model = net()
    head, body = list(model[2].parameters()), list(model[0].parameters())  # type: ignore[index]
    for parameter in body:
        parameter.requires_grad_(False)
    held = [*body, *head] if way == "unfrozen" else head
    sgd = torch.optim.SGD(held, lr=0.01)
    monitor = watch(model, sgd, every=1, skip=0)
    for i, step in enumerate(data(12, 2, 8)):
        if i == 6:
            assert monitor.measurement().num_parameters == 7
            model.requires_grad_(True)
            if way == "added":
                sgd.add_param_group({"params": body, "lr": 0.03})
        expected = by_hand(model, step) if i > 6 else None  # known from the next step on
        for x in step:
            (loss(model, x) / 2).backward()
        sgd.step()
        sgd.zero_grad()
        if expected is not None:
            g2, trace, *_ = monitor.noise.state_dict()["records"][-1]
            assert (sum(g2), sum(trace)) == pytest.approx(expected)
    found = monitor.measurement()
    assert monitor.stopped is None
    assert found.num_parameters == 37
    assert len(monitor.noise) == 5
    assert "parameters_changed" in found.warning_codes
    assert found.optimizer.rates == (() if way == "unfrozen" else (0.01, 0.03))
