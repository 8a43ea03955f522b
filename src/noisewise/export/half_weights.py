"""Weights of an ONNX file in 16 bits: half the size. The arithmetic stays in 32 bits.

Each large weight is stored as int16 with one scale for each of its rows (its first dimension):
``w = scale q``, with ``scale = max |w| / 32767``. A Cast and a Mul make it float32 again; ONNX
Runtime carries them out once, when it loads the file. The error is at most half a scale, which is
several times less than that of float16 for all but the smallest weights.
"""

from __future__ import annotations

import numpy as np

_FEWEST = 64  # numbers of a weight that is worth it
_LARGEST = 32767


def halved(model: bytes) -> bytes:
    """The same graph with its large weights in 16 bits.

    Args:
        model: content of an ONNX file without external data.

    Returns:
        Content of an ONNX file; weights that are not finite stay as they are.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    found = onnx.load_from_string(model)
    graph, nodes, weights = found.graph, [], []
    for weight in graph.initializer:
        array = numpy_helper.to_array(weight) if weight.data_type == TensorProto.FLOAT else None
        if array is None or array.size < _FEWEST or not np.isfinite(array).all():
            weights.append(weight)
            continue
        numbers, scales = in_rows(array)
        name = weight.name
        stored, plain, scale = (f"{name}_{part}" for part in ("16", "plain", "scale"))
        weights.append(numpy_helper.from_array(numbers, stored))
        weights.append(numpy_helper.from_array(scales, scale))
        nodes.append(helper.make_node("Cast", [stored], [plain], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [plain, scale], [name]))
    nodes += graph.node
    for field, values in ((graph.initializer, weights), (graph.node, nodes)):
        kept = list(values)
        del field[:]
        field.extend(kept)
    return found.SerializeToString()


def in_rows(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An array as int16, and the scale of each row, float32 [rows, 1, ...].

    Example:
        >>> numbers, scales = in_rows(np.array([[1.0, -2.0], [0.5, 0.0]], np.float32))
        >>> numbers.tolist(), (numbers * scales).tolist()
        ([[16384, -32767], [32767, 0]], [[1.000030517578125, -2.0], [0.5, 0.0]])
    """
    others = tuple(range(1, array.ndim))
    most = np.abs(array).max(axis=others, keepdims=True) if array.ndim > 1 else np.abs(array).max()
    scales = np.asarray(np.where(most > 0, most, 1.0) / _LARGEST, dtype=np.float32)
    return np.rint(array / scales).astype(np.int16), scales
