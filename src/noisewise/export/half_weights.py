"""Weights of an ONNX file in 16 bits: half the size. The arithmetic stays in 32 bits.

Each large weight is stored as float16 and followed by a Cast, which ONNX Runtime carries out once,
when it loads the file. A rounded weight is off by at most 2^-11 of itself.
"""

from __future__ import annotations

import numpy as np

_FEWEST = 64  # numbers of a weight that is worth it
_LARGEST = 65504.0  # of float16


def halved(model: bytes) -> bytes:
    """The same graph with its large weights in float16.

    Args:
        model: content of an ONNX file without external data.

    Returns:
        Content of an ONNX file; weights that float16 cannot hold stay as they are.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    found = onnx.load_from_string(model)
    graph, casts, weights = found.graph, [], []
    for weight in graph.initializer:
        array = numpy_helper.to_array(weight) if weight.data_type == TensorProto.FLOAT else None
        if array is None or array.size < _FEWEST or np.abs(array).max() > _LARGEST:
            weights.append(weight)
            continue
        stored = f"{weight.name}_16"
        weights.append(numpy_helper.from_array(array.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    for field, values in ((graph.initializer, weights), (graph.node, nodes)):
        del field[:]
        field.extend(values)
    return found.SerializeToString()
