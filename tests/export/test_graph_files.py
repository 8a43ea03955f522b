"""ONNX and torch.export: any number of pictures, classes as an input, the pictures of torch."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export_models import CLASSES, FLATS, PALETTE, PYRAMID, UNET, models
from noisewise.diffusion import heun
from noisewise.export import write
from noisewise.export.graph import DiffersError, Graph, described, example, module_of
from noisewise.pictures.palette_files import palette_of
from noisewise.quality.flats import FlatValue, snapped, snapped_in_graph
from noisewise.quality.snap_colours import snapped_to
from noisewise.training.models.any_teacher import as_teacher
from noisewise.training.models.models import Generator, Teacher

NEEDS = ("onnx", "onnxscript", "onnxruntime")
VIT = {"name": "vit", "channels": 1, "size": 8, "width": 32, "depth": 1, "patch": 4}
UVIT = {"name": "uvit", "channels": 1, "size": 8, "widths": [8], "width": 32, "depth": 1}


def need_onnx() -> None:
    for name in NEEDS:
        pytest.importorskip(name, reason=f"{name} is not installed (extra: export)")


def of(net: str) -> tuple[Teacher, Generator]:
    return {
        "unet of three classes": lambda: models({**UNET, "num_classes": 3}),
        "pyramid, not square": lambda: models(PYRAMID, "bands"),
        "transformer": lambda: models(VIT, "x0"),
        "both": lambda: models({**UVIT, "num_classes": 3}),
        "flats": lambda: models(UNET, flats=FLATS),
        "palette": lambda: models({**PYRAMID, "size": 16}, "bands", palette=PALETTE),
    }[net]()


@pytest.mark.parametrize(
    "net", ["unet of three classes", "pyramid, not square", "flats", "palette"]
)
def test_a_generator_in_onnx_draws_what_torch_draws(net: str, tmp_path: Path) -> None:
    need_onnx()
    import onnxruntime

    generator = of(net)[1]
    done = write(generator, "onnx", tmp_path / "model.onnx")
    assert done.difference is not None
    assert done.difference < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # one file, no other
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["noisewise"])
    assert about["classes"] == list(generator.classes)
    assert about["kind"] == "generator"
    for count in (1, 2, 7):
        z, label = generator.noise(5, 0, count), generator.labels(5, 0, count)
        given = {"z": z.numpy()} if label is None else {"z": z.numpy(), "label": label.numpy()}
        (got,) = session.run(["pictures"], given)
        expected = generator.sample(count, seed=5)
        apart = (torch.from_numpy(got) - expected).abs()
        assert apart.quantile(0.999) < 1e-5  # rounding may move a pixel at the border of a flat
        if not generator.config.flats.level:
            assert apart.max() < 1e-5
    assert [one.name for one in session.get_inputs()] == list(given)
    assert session.get_inputs()[0].shape[0] == "n"


def test_the_metadata_let_people_choose_few_colours_afterwards() -> None:
    few = replace(PALETTE, most=3, tolerance=0.02)
    _, generator = models({**PYRAMID, "size": 16}, "bands", palette=few)
    told = described(generator)["palette"]
    assert isinstance(told, dict)
    colours = torch.tensor(palette_of(told["colours"]), dtype=torch.uint8)
    with torch.no_grad():
        drawn = module_of(generator)(**example(generator, 4))
    found = snapped_to(drawn, colours, told["tolerance"], told["most"])
    assert torch.equal(found, generator.sample(4))
    assert not torch.equal(found, drawn)
    assert "palette" not in described(models(UNET)[1])


@pytest.mark.slow
@pytest.mark.parametrize("net", ["transformer", "both"])
def test_the_other_nets_export_too(net: str, tmp_path: Path) -> None:
    need_onnx()
    for model, name in zip(of(net), ("teacher", "generator"), strict=True):
        done = write(model, "onnx", tmp_path / f"{name}.onnx")
        assert done.difference is not None
        assert done.difference < 1e-4


def test_a_teacher_in_onnx_denoises_at_any_level(tmp_path: Path) -> None:
    """Our sampler walks with ONNX Runtime as the denoiser and draws the teacher's pictures."""
    need_onnx()
    from noisewise.export.onnx_file import onnx_function

    teacher = of("unet of three classes")[0]
    write(teacher, "onnx", tmp_path / "teacher.onnx")
    run = onnx_function(tmp_path / "teacher.onnx")

    def denoiser(x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        assert condition is not None
        return run(x=x, sigma=sigma, label=condition)

    noise, labels = teacher.noise(0, 0, 4), teacher.labels(0, 0, 4)
    *_, last = heun(denoiser, noise, teacher.sampler.levels(), labels)
    torch.testing.assert_close(last.x0.clamp(-1, 1), teacher.sample(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "net", ["unet of three classes", "pyramid, not square", "flats", "palette"]
)
@pytest.mark.parametrize("kind", ["teacher", "generator"])
def test_pt2_computes_what_the_model_computes(net: str, kind: str, tmp_path: Path) -> None:
    model = of(net)[kind == "generator"]
    model.to(memory_format=torch.channels_last)  # pyrefly: ignore (as loaded ones are)
    done = write(model, "pt2", tmp_path / "model.pt2")
    assert done.difference is not None
    assert done.difference < 1e-6
    program = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 6):
        inputs = example(model, count)
        got = program(**inputs)
        if isinstance(model, Generator):
            expected = model.config.finished(model(**inputs))
        else:
            expected = model(inputs["x"], inputs["sigma"], inputs.get("label"))
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_pt2_needs_no_noisewise(tmp_path: Path) -> None:
    """A process that cannot import noisewise loads it and draws."""
    generator = of("unet of three classes")[1]
    write(generator, "pt2", tmp_path / "model.pt2")
    z, label = generator.noise(0, 0, 2), torch.tensor([0, 2])
    code = (
        "import sys, json, torch\n"
        "sys.modules['noisewise'] = None\n"
        "extra = {'noisewise.json': ''}\n"
        "program = torch.export.load(sys.argv[1], extra_files=extra).module()\n"
        "z = torch.tensor(json.loads(sys.argv[2]))\n"
        "print(json.loads(extra['noisewise.json'])['classes'])\n"
        "print(json.dumps(program(z=z, label=torch.tensor([0, 2])).tolist()))\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "model.pt2"), json.dumps(z.tolist())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    classes, drawn = done.stdout.splitlines()
    assert classes == str(list(CLASSES))
    torch.testing.assert_close(torch.tensor(json.loads(drawn)), generator(z, label))


def test_a_wrong_export_is_refused() -> None:
    """The check is not satisfied by pictures that are almost right."""
    graph = Graph.of(of("unet of three classes")[1])
    with torch.no_grad():
        assert graph.largest_difference(graph.module) == 0
        for wrong in (
            lambda **given: graph.module(**given) + 0.01,
            lambda **given: graph.module(**{**given, "label": (given["label"] + 1) % 3}),
            lambda **given: graph.module(**given)[:1],
            lambda **given: graph.module(**given) * float("nan"),
        ):
            with pytest.raises(DiffersError):
                graph.largest_difference(wrong)


def test_flats_in_a_graph_are_those_of_the_generator() -> None:
    images = torch.rand(70, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    values = [FlatValue((0, 0, 0), 0.0, 0.0), FlatValue((255, 128, 0), 0.0, 0.0)]
    for level in (4.0, 60.0):
        assert torch.equal(snapped_in_graph(images, values, level), snapped(images, values, level))
    clear = torch.rand(5, 4, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    one = [FlatValue((0, 0, 0, 0), 0.0, 0.0)]
    assert torch.equal(snapped_in_graph(clear, one, 60), snapped(clear, one, 60))


def test_a_net_of_somebody_else_exports_too(tmp_path: Path) -> None:
    class Shrink(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spread = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
            return x / (1 + (sigma / self.spread) ** 2)[:, None, None, None]

    teacher = as_teacher(Shrink(), size=8, channels=1, sigma_data=0.5)
    write(teacher, "pt2", tmp_path / "shrink.pt2")
    program = torch.export.load(tmp_path / "shrink.pt2").module()
    got = program(x=torch.ones(4, 1, 8, 8), sigma=torch.full((4,), 0.5))
    torch.testing.assert_close(got, torch.full((4, 1, 8, 8), 0.5))
    with pytest.raises(ValueError, match="export it to onnx or pt2"):
        write(teacher, "hub", tmp_path / "hub")


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_no_export_tells_where_programs_lie_on_this_machine(to: str, tmp_path: Path) -> None:
    """In torch each operation notes the lines of code that it comes from."""
    if to == "onnx":
        need_onnx()
    for number, model in enumerate(of("pyramid, not square")):
        place = tmp_path / f"{number}.{to}"
        write(model, to, place)
        data = place.read_bytes()
        if to == "pt2":
            with zipfile.ZipFile(place) as archive:
                data = b"".join(archive.read(name) for name in archive.namelist())
        for word in (str(Path(__file__).parents[2]), sys.prefix, str(Path(torch.__file__).parent)):
            assert word.encode() not in data
