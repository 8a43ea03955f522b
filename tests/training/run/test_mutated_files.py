"""Run files with a few bytes changed: each is refused in one sentence, or reads as it was written.

Changed bytes that mean the same (white space in JSON) are no damage.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mutations import mutated
from noisewise.training.files.atomic import load_state, save_state
from noisewise.training.models.model_config import ModelConfig
from noisewise.training.models.model_folder import load_model, save_model
from noisewise.training.run.run_json import read_info, write_info
from tiny import build, tiny_denoiser

CONFIG = ModelConfig(
    kind="teacher",
    net={"channels": 1, "num_classes": 0},
    sigma_data=0.5,
    size=8,
    channels=1,
    noise={"name": "LogNormal", "mean": -0.4, "std": 1.4},
)
FROZEN = Path(__file__).resolve().parents[2] / "frozen"


def model_folder(folder: Path) -> Path:
    save_model(folder, tiny_denoiser(), CONFIG)
    return folder


def described(folder: Path) -> Any:  # noqa: ANN401
    model = load_model(folder, build)
    return model.config.to_dict(), [p.tolist() for p in model.parameters()]


def state_file(path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    state = {
        "weights": {"a": torch.randn(4, 3, generator=generator), "b": torch.arange(5)},
        "counters": {"step": 7, "seconds": 0.25, "name": "é"},
    }
    save_state(path, state)
    return path


def plain(value: Any) -> Any:  # noqa: ANN401
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else (
        value.tolist() if isinstance(value, torch.Tensor) else value
    )  # fmt: skip


def try_mutants(path: Path, read: Callable[[], Any], count: int, seed: int) -> tuple[int, int]:
    """Read `count` mutants of a file: how many were refused, and how many meant the same."""
    whole, expected = path.read_bytes(), read()
    said: list[str] = []
    same = 0
    for number in range(count):
        path.write_bytes(mutated(whole, np.random.default_rng((seed, number))))
        try:
            found = read()
        except ValueError as error:
            said.append(str(error))
        else:
            assert found == expected, f"mutant {number} was believed"
            same += 1
    path.write_bytes(whole)
    assert all(said)
    assert not [text for text in said if "\n" in text]
    return len(said), same


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_models(tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path / "teacher")
    refused, same = try_mutants(folder / name, lambda: described(folder), 100, 1)
    assert refused >= 90, (refused, same)


def test_checkpoints(tmp_path: Path) -> None:
    path = state_file(tmp_path / "teacher-0000007.safetensors")
    refused, same = try_mutants(path, lambda: plain(load_state(path)), 100, 2)
    assert refused >= 90, (refused, same)


def test_run_json(tmp_path: Path) -> None:
    from noisewise.training.files.atomic import write_sealed

    path = tmp_path / "run.json"
    info = json.loads((FROZEN / "one_checkpoint" / "run" / "run.json").read_text("utf-8"))
    write_sealed(path, {**info, "format": 2})
    refused, same = try_mutants(path, lambda: read_info(tmp_path), 100, 3)
    assert refused >= 80, (refused, same)


def test_run_json_with_its_copy(tmp_path: Path) -> None:
    """Whatever is damaged of the one, the run is read as it was written."""
    info = json.loads((FROZEN / "one_checkpoint" / "run" / "run.json").read_text("utf-8"))
    write_info(tmp_path, {**info, "format": 2}, damaged=False)
    refused, same = try_mutants(tmp_path / "run.json", lambda: read_info(tmp_path), 50, 4)
    assert (refused, same) == (0, 50)


def test_values_that_were_changed_on_purpose_are_read_when_the_seal_is_off(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "teacher")
    values = json.loads((folder / "config.json").read_text())
    values["sampler"]["num_steps"] = 9
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match='remove its line "seal"'):
        load_model(folder, build)
    del values["seal"]
    (folder / "config.json").write_text(json.dumps(values))
    assert load_model(folder, build).config.sampler.num_steps == 9
