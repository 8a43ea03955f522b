"""FID and KID are those of torchmetrics, and of our own formulas; only the one file is read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from noisewise.quality import inception
from noisewise.quality.inception import inception_distance, scores
from noisewise.quality.kernel import frechet, mmd


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_weights(folder: Path) -> Path:
    """A file as torch-fidelity has it, with random weights whose activations stay alive."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    pytest.importorskip("torchmetrics")

    class Bare(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *args: object, **kwargs: object) -> None:
            """Load nothing: the net only gives its shapes."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        net = Bare("inception-v3-compat", ["2048"])
    torch.manual_seed(0)
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    path = folder / "random.pth"
    torch.save(net.state_dict(), path)
    return path


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"6726825d.*releases/tag"):
        inception_distance(images, images, tmp_path / "no.pth")


def test_another_file_is_never_unpickled(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8)
    (tmp_path / "other.pth").write_bytes(b"cos\nsystem\n(S'touch broken'\ntR.")
    with pytest.raises(ValueError, match="is not weights-inception"):
        inception_distance(images, images, tmp_path / "other.pth")
    assert not Path("broken").exists()


def test_the_scores_are_our_own_formulas() -> None:
    pytest.importorskip("torchmetrics")
    a, b = normal(60, 8) * 0.7 + 0.1, normal(60, 8, seed=1)
    before = torch.get_rng_state()
    found = scores(a, b)
    assert torch.equal(before, torch.get_rng_state())
    assert found.fid == pytest.approx(frechet(a, b), rel=1e-6)
    # a subset of all pictures is the set itself
    assert found.subset_size == 60
    assert found.kid == pytest.approx(mmd(a, b), rel=1e-5)
    assert found.kid_deviation == pytest.approx(0, abs=1e-9)


def test_one_set_is_at_distance_nothing_from_itself() -> None:
    pytest.importorskip("torchmetrics")
    a, b = normal(80, 6), normal(60, 6, seed=1)
    assert scores(a, a).fid == pytest.approx(0, abs=1e-6)
    assert abs(scores(a, b).kid) < 0.1 < scores(a, 2 * b).kid
    with pytest.raises(ValueError, match="two or more"):
        scores(a[:1], b)


def test_without_the_extra_the_right_file_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before pictures are drawn for it."""
    path = tmp_path / inception.WEIGHTS
    path.write_bytes(b"weights")
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setattr(inception, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"run pip install noisewise\[fid\]"):
        inception.check_weights(path)


def test_a_file_in_the_right_format_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = random_weights(tmp_path)
    images = 0.3 * normal(6, 3, 20, 28)
    with pytest.raises(ValueError, match="is not weights-inception"):
        inception_distance(images, images, path)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    inception.check_weights(path)
    net = inception._net(path)
    features = inception._features(net, images)
    assert features.shape == (6, 2048)
    assert features.std() > 1e-3
    grey = images[:2, :1]
    assert torch.allclose(
        inception._features(net, grey), inception._features(net, grey.expand(-1, 3, -1, -1))
    )
    clear = torch.cat([images[:2], -torch.ones(2, 1, 20, 28)], 1)
    white = inception._features(net, torch.ones(2, 3, 20, 28))
    assert torch.allclose(inception._features(net, clear), white)


@pytest.mark.slow
def test_all_of_it_with_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = random_weights(tmp_path)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    images = 0.3 * normal(24, 1, 28, 28)
    same = inception_distance(images, images, path)
    other = inception_distance(images + 0.4, images, path)
    assert abs(same.fid) < 0.02 * other.fid
    assert other.kid > 0 >= same.kid
