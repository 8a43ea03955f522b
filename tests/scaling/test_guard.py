"""Watching never ends somebody else's training: it stops, removes its hooks and says why, once."""

from __future__ import annotations

import copy
import math
import pickle
import tempfile
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import Monitor, advise, watch


class Words(nn.Module):
    """A table of words; its gradient may be sparse."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 3, sparse=sparse)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x).square().sum((1, 2)).mean()


def test_sparse_gradients_are_measured_as_dense_ones() -> None:
    records = []
    for sparse in (False, True):
        model = Words(sparse)
        sgd = torch.optim.SGD(model.parameters(), lr=0.05)
        monitor = watch(model, sgd, every=1, skip=0)
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            for x in torch.randint(11, (4, 8, 5), generator=generator):  # words repeat
                (model(x) / 4).backward()
            sgd.step()
            sgd.zero_grad()
        assert monitor.stopped is None
        records.append(monitor.noise.state_dict()["records"])
    for dense, sparse in zip(*records, strict=True):
        assert sparse[0] + sparse[1] == pytest.approx(dense[0] + dense[1], rel=1e-4)


def regression() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[float]:
    """Losses of a loop that accumulates."""
    losses, generator = [], torch.Generator().manual_seed(1)
    for step in torch.randn(steps, 2, 8, 4, generator=generator):
        for x in step:
            loss = (model(x)[:, 0] - x.sum(1)).square().mean() / 2
            loss.backward()
            losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
    return losses


def hooks_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Hooks that are left on a model and its optimiser."""
    found = len(optimizer._optimizer_step_post_hooks)
    for module in model.modules():
        found += len(module._forward_hooks) + len(module._forward_pre_hooks)
    for p in model.parameters():
        found += len(p._backward_hooks or ()) + len(p._post_accumulate_grad_hooks or ())
    return found


def broken(*_: object, **__: object) -> Any:  # noqa: ANN401
    raise RuntimeError("a fault of the watcher")


def break_scale(monitor: Monitor) -> None:
    monitor._grad_scale = broken


def break_noise(monitor: Monitor) -> None:
    monitor.noise.add = broken  # type: ignore[method-assign]


def break_weights(monitor: Monitor) -> None:
    monitor._passes.weights.watch = broken  # type: ignore[method-assign]


def break_rates(monitor: Monitor) -> None:
    monitor.largest_rates = None  # type: ignore[assignment]


def break_layers(monitor: Monitor) -> None:
    monitor._parameters.clear()  # a gradient of a parameter that is not known


@pytest.mark.parametrize(
    "fault", [break_scale, break_noise, break_weights, break_rates, break_layers]
)
@pytest.mark.parametrize("strict", [False, True], ids=["warnings", "warnings are errors"])
def test_a_fault_ends_the_watching_and_not_the_training(
    fault: Any,  # noqa: ANN401
    strict: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    alone = regression()
    want = train(alone, torch.optim.SGD(alone.parameters(), lr=0.05))
    model = regression()
    sgd = torch.optim.SGD(model.parameters(), lr=0.05)
    monitor = watch(model, sgd, every=1, skip=0)
    fault(monitor)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("error" if strict else "always")
        assert train(model, sgd) == want
    told = [str(w.message) for w in said] + [r.getMessage() for r in caplog.records]
    assert len(told) == 1
    assert "no longer watches this training, which goes on" in told[0]
    assert monitor.stopped is not None
    assert monitor.stopped in told[0]
    assert not monitor.watching
    assert hooks_of(model, sgd) == 0
    assert monitor.stopped in monitor.report()
    monitor.remove()
    monitor.micro_batch(3)  # harmless


def test_a_last_batch_that_is_small_or_has_no_label_does_not_end_the_training() -> None:
    model, alone = regression(), regression()
    sgd, other = (torch.optim.SGD(m.parameters(), lr=0.05) for m in (model, alone))
    monitor = watch(model, sgd, every=1, skip=0)
    for n in (8, 8, 1):  # the last one of an epoch
        x = torch.randn(n, 4, generator=torch.Generator().manual_seed(n))
        for net, step in ((model, monitor.backward), (alone, lambda ls: ls.mean().backward())):
            step((net(x)[:, 0] - x.sum(1)).square())
        for optimizer in (sgd, other):
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert len(monitor.noise) == 2
    assert monitor.skipped["one_micro_batch"] == 1
    x = torch.randn(8, 4)
    for tokens in (5, 0, 3):  # all labels of the second one are masked
        monitor.micro_batch(tokens)
        ((model(x)[:, 0] - x.sum(1)).square().mean() * tokens / 8).backward()
    sgd.step()
    assert monitor.stopped is None
    assert monitor.noise.state_dict()["records"][-1][2:] == [2, 8.0]


def test_an_optimiser_without_a_rate_of_its_own_is_watched() -> None:
    transformers = pytest.importorskip("transformers")
    model = regression()
    adafactor = transformers.optimization.Adafactor(model.parameters())
    monitor = watch(model, adafactor, every=1, skip=0)
    train(model, adafactor, 6)
    assert monitor.stopped is None
    found = monitor.measurement()
    assert math.isnan(found.optimizer.lr)
    again = type(found).from_dict(found.to_dict())
    assert math.isnan(again.optimizer.lr)
    with pytest.raises(
        ValueError, match="no learning rate of its own here: give the one that you tuned"
    ):
        advise(found, batch=64)
    assert advise(found, batch=64, lr=1e-3).lr > 0
    with pytest.raises(ValueError, match="sets its own learning rate"):
        monitor.calibrate(lambda m, x: m(x).square().mean(), [torch.randn(4, 4)] * 12)


def test_a_wrong_call_at_the_start_still_raises() -> None:
    model = regression()
    sgd = torch.optim.SGD(model.parameters(), lr=0.05)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"batch": 0}, "batch is 0"),
        ({"total_steps": -1}, "total_steps is -1"),
        ({"norms": True}, "needs trained LayerNorm"),
    )
    for words, said in wrong:
        with pytest.raises(ValueError, match=said):
            watch(model, sgd, **words)
    assert hooks_of(model, sgd) == 0


def test_a_watched_model_is_saved_and_copied_at_any_time() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 1))
    sgd = torch.optim.SGD(model.parameters(), lr=0.05)
    monitor = watch(model, sgd, every=1, skip=0, norms=True)
    assert hooks_of(model, sgd) > 5  # the next step is measured
    x = torch.ones(2, 4)
    with tempfile.TemporaryFile() as file:
        torch.save(model, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
    assert b"noisewise.scaling" not in pickle.dumps(model)
    for twin in (loaded, copy.deepcopy(model)):
        assert torch.equal(twin(x), model(x))
        twin(x).sum().backward()  # in training mode; nothing of it is measured
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        part = torch.randn(8, 4, generator=generator)
        (model(part)[:, 0] - part.sum(1)).square().mean().backward()
        sgd.step()
        sgd.zero_grad()
    assert monitor.stopped is None
    assert len(monitor.noise) == 3
    assert monitor.noise.batch == 8.0
