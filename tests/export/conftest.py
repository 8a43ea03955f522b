"""A run around small models of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from export_models import INFO, UNET, models
from noisewise.training.models.model_folder import save_model
from noisewise.training.run.run_json import new_run_info, write_info


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a teacher and a generator of three classes that offers two calls."""
    run = tmp_path_factory.mktemp("exports") / "arrows"
    teacher, generator = models({**UNET, "num_classes": 3})
    config = replace(generator.config, two_call_sigma=0.3)
    save_model(run / "teacher", teacher.denoiser, teacher.config)
    save_model(run / "generator", generator.denoiser, config)
    data = {**INFO["data"], "size": 8, "channels": 1, "num_training": 1100, "num_held_out": 100}
    info = {**new_run_info(0), "data": data, "train": {}, "stages": INFO["stages"]}
    write_info(run, info, damaged=False)
    return run
