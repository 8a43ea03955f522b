"""Exports to ONNX: one file, for ONNX Runtime in any language, and in browsers.

Inputs of a generator: `z`, float32 [n, c, h, w], standard normal; `label`, int64 [n], with classes.
Output: `pictures`, float32 [n, c, h, w] in [-1, 1]. Of a teacher: `x`, `sigma`, `label`; `x0`.
The metadata entry "noisewise" holds the rest as JSON.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noisewise.export.graph import Graph, Run, about_finish, described
from noisewise.export.source import Source, Written

_OF_EXPORTER = "torch.onnx._internal.exporter._registration"


def write(source: Source, place: Path) -> Written:
    """Write the file and compare ONNX Runtime with torch.

    Raises:
        DiffersError: if ONNX Runtime computes something else.
    """
    graph = Graph.of(source.model)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module,
            (),
            kwargs=dict(graph.inputs),
            dynamic_shapes=graph.free("n"),
            input_names=list(graph.inputs),
            output_names=[graph.output],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    _forget_places(program.model)
    program.model.metadata_props["noisewise"] = json.dumps(
        {**described(source.model), "name": source.name, "license": source.license}
    )
    program.save(place, external_data=False)
    return Written(
        graph.largest_difference(onnx_function(place)),
        f"ONNX Runtime against torch, {graph.checked}",
        about_finish(source.model),
    )


def _forget_places(model: Any) -> None:  # noqa: ANN401 (of an extra)
    """Remove the traces of calls, which hold paths of this machine."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None


def onnx_function(file: Path | bytes) -> Run:
    """An ONNX file, or its content, as a function of named tensors, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(**inputs: Tensor) -> Tensor:
        (found,) = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        return torch.from_numpy(found)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch says about itself while it exports."""
    logger = logging.getLogger(_OF_EXPORTER)  # torchvision is not installed, and not needed
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            # All inputs have the same number of pictures, on purpose.
            warnings.filterwarnings("ignore", message=r"# The axis name: n will not be used")
            yield
    finally:
        logger.setLevel(before)
