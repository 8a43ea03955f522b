"""Exports to torch.export: one .pt2 file that PyTorch loads without the code of noisewise.

program = torch.export.load("mine.pt2").module()
pictures = program(z=torch.randn(16, 1, 28, 28))
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from noisewise.export.graph import Graph, about_finish, described
from noisewise.export.source import Source, Written

DESCRIPTION = "noisewise.json"
"""Name of the file inside the archive that says what the model is."""


def write(source: Source, place: Path) -> Written:
    """Write the file, load it again and compare it with the model.

    Raises:
        DiffersError: if it computes something else.
    """
    graph = Graph.of(source.model)
    about = {**described(source.model), "name": source.name, "license": source.license}
    program = graph.traced()
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # it holds paths of this machine
    torch.export.save(program, place, extra_files={DESCRIPTION: json.dumps(about)})
    loaded = torch.export.load(place).module()

    def run(**inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return loaded(**inputs)

    return Written(
        graph.largest_difference(run),
        f"the file loaded again against the model, {graph.checked}",
        about_finish(source.model),
    )
