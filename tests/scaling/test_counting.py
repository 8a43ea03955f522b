"""What counts as an example: whatever the model is given, never a number that is not one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noisewise.scaling import Measurement, advise, watch
from noisewise.scaling.counting import count_examples, examples_in


class Scaled(nn.Module):
    """Takes four numbers before its examples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(4, 1)

    def forward(self, scale: Tensor, x: Tensor) -> Tensor:
        return self.inner(x * scale)[:, 0]


class Recurrent(nn.Module):
    """A time-major net; `flip` takes examples first and turns them."""

    def __init__(self, flip: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.out, self.flip = nn.GRU(3, 5), nn.Linear(5, 1), flip

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x.transpose(0, 1) if self.flip else x)[0])


def counted(model: nn.Module, *given: Any, **words: Any) -> tuple[list[float], str]:  # noqa: ANN401
    """The batches of a short training with two micro-batches, and what was counted."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    monitor = watch(model, sgd, every=1, skip=0, **words)
    for _ in range(3):
        for _ in range(2):
            (model(*given).square().mean() / 2).backward()
        sgd.step()
        sgd.zero_grad()
    assert monitor.stopped is None
    if not len(monitor.noise):
        return [], monitor.why_nothing()
    found = monitor.measurement()
    assert Measurement.from_dict(found.to_dict()).to_dict() == found.to_dict()
    return [record[3] for record in monitor.noise.state_dict()["records"]], found.counted


def test_the_first_tensor_does_not_decide() -> None:
    batches, how = counted(Scaled(), torch.ones(4), torch.randn(32, 4))
    assert batches == [64.0] * 3
    assert "output" in how
    batches, how = counted(Scaled(), torch.ones(1), torch.randn(32, 4))
    assert batches == [64.0] * 3


def test_micro_batches_of_one_example_beside_a_longer_tensor() -> None:
    class Wide(Scaled):
        def forward(self, scale: Tensor, x: Tensor) -> Tensor:
            return self.inner(x * scale)

    batches, how = counted(Wide(), torch.ones(4), torch.randn(1, 4))
    assert batches == [2.0] * 3
    assert "output" in how
    batches, how = counted(Scaled(), torch.ones(4), torch.randn(1, 4))  # returns one number
    assert batches == []
    assert "batch=" in how


@pytest.mark.parametrize("flip", [False, True])
def test_time_first_is_seen_in_the_layer_that_wants_it(flip: bool) -> None:
    x = torch.randn(10, 32, 3)  # 10 moments of 32 examples
    batches, _ = counted(Recurrent(flip), x.transpose(0, 1) if flip else x)
    assert batches == [64.0] * 3


def test_what_nothing_decides_is_asked_for() -> None:
    class Mean(Scaled):
        def forward(self, scale: Tensor, x: Tensor) -> Tensor:
            return super().forward(scale, x).mean()

    batches, said = counted(Mean(), torch.ones(4), torch.randn(32, 4))
    assert batches == []
    assert "give batch=" in said
    batches, how = counted(Mean(), torch.ones(4), torch.randn(32, 4), batch=64)
    assert batches == [64.0] * 3
    assert how == ""


def test_a_given_batch_keeps_the_shares_of_the_micro_batches() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    seen = watch(model, sgd, every=1, skip=0)
    given = watch(model, sgd, every=1, skip=0, batch=320)
    for _ in range(4):
        for x in torch.randn(4, 8, 4):
            (model(x).square().mean() / 4).backward()
        sgd.step()
        sgd.zero_grad()
    one, two = seen.noise.read(), given.noise.read()
    assert given.noise.batch == 320.0
    assert two.g2.value == pytest.approx(one.g2.value)
    assert two.b_simple.value == pytest.approx(10 * one.b_simple.value)


def test_packed_sequences_named_targets_and_masks() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.zeros(5, 2), torch.zeros(3, 2)])
    assert examples_in(packed) == 2
    rows = {"input_ids": torch.zeros(8, 16), "position_ids": torch.zeros(2, 16)}
    assert examples_in(rows) == 8
    both = {"query": torch.zeros(8, 3), "keys": torch.zeros(5, 3), "labels": torch.zeros(8)}
    found = count_examples((), both)
    assert found is not None
    assert (found.count, "labels" in found.source) == (8, True)


def by_labels() -> Measurement:
    """A measurement of a transformers-like model: 6 labels in each example of which some count."""

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 5)

        def forward(self, x: Tensor, labels: Tensor, num_items_in_batch: int) -> Tensor:
            scores = self.inner(x).flatten(0, 1)
            total = nn.functional.cross_entropy(scores, labels.flatten(), reduction="sum")
            return total / num_items_in_batch

    torch.manual_seed(0)
    model, generator = Tagger(), torch.Generator().manual_seed(1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = watch(model, sgd, every=1, skip=0)
    for _ in range(6):
        x = torch.randn(4, 8, 6, 3, generator=generator)
        labels = torch.randint(5, (4, 8, 6), generator=generator)
        labels[:, :, 4:] = -100
        for inputs, targets in zip(x, labels, strict=True):
            model(inputs, labels=targets, num_items_in_batch=128).backward()
        sgd.step()
        sgd.zero_grad()
    return monitor.measurement()


def test_labels_and_examples_are_never_compared() -> None:
    found = by_labels()
    assert (found.unit, found.batch, found.labels_per_example) == ("labels", 128.0, 4.0)
    with pytest.raises(ValueError, match="unit='examples'"):
        advise(found, batch=64)
    labels = advise(found, batch=256, unit="labels")
    examples = advise(found, batch=64, unit="examples")
    assert (labels.batch0, examples.batch0) == (128.0, 32.0)
    assert (examples.lr, examples.low, examples.high) == pytest.approx(
        (labels.lr, labels.low, labels.high)
    )
    old = found.to_dict()  # of a version that only warned
    for name in ("unit", "labels_per_example"):
        del old[name]
    older = Measurement.from_dict(old)
    assert older.unit == "labels"
    with pytest.raises(ValueError, match="does not know how many labels"):
        advise(older, batch=64, unit="examples")
