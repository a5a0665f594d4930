"""Writes a graph as ``NAME.onnx`` and its weights as ``NAME.onnx.data``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from onnx import OperatorSetIdProto, TensorProto, helper

from vintern_export import __version__
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.graph import IR_VERSION, NUMPY_DTYPES, ONNX_DTYPES, Graph
from vintern_export.numbers import FloatArray, Precision, RawArray
from vintern_export.output import FileRecord, HashedFile, Progress, write_file
from vintern_export.weights import element_count

if TYPE_CHECKING:
    from pathlib import Path

    from vintern_export.weights import Weight

ALIGNMENT = 4096
"""Offsets of weights in the data file: a page, so that a runtime can map each of them."""


def data_size(graph: Graph) -> int:
    """Bytes the graph's data file will take."""
    size = 0
    for weight in graph.weights.values():
        size += -size % ALIGNMENT + stored_bytes(graph, weight)
    return size


def stored_dtype(graph: Graph, weight: Weight) -> str:
    """Name of the number format a weight is stored in."""
    return weight.dtype or graph.precision.value


def stored_bytes(graph: Graph, weight: Weight) -> int:
    """Bytes of a weight in the data file."""
    return element_count(weight) * NUMPY_DTYPES[stored_dtype(graph, weight)].itemsize


def write_variant(graph: Graph, folder: Path, data: FileRecord, progress: Progress) -> list[FileRecord]:
    """Writes another graph over the same weights, in the same order, as the one whose data file ``data`` is.

    Returns both records, graph file first.
    """
    offset, initializers = 0, []
    for name, weight in graph.weights.items():
        offset += -offset % ALIGNMENT
        length = stored_bytes(graph, weight)
        initializers.append(external_tensor(graph, name, weight, data.name, (offset, length)))
        offset += length
    if offset != data.size:
        raise AssertionError(f"{graph.name}: the weights take {offset} bytes, {data.name} holds {data.size}")
    return [write_file(folder / f"{graph.name}.onnx", onnx_model(graph, initializers), progress), data]


def write_graph(graph: Graph, folder: Path, progress: Progress) -> list[FileRecord]:
    """Streams the weights to the data file, then writes the graph file. Returns both records, graph file first."""
    data_path = folder / f"{graph.name}.onnx.data"
    initializers: list[TensorProto] = []
    with HashedFile(data_path, progress) as file:
        for name, weight in graph.weights.items():
            offset = file.pad_to(ALIGNMENT)
            for piece in weight.pieces():
                file.write(piece if weight.dtype else convert(piece, graph.precision, name))
            length = file.size - offset
            expected = stored_bytes(graph, weight)
            if length != expected:
                raise AssertionError(f"{name}: wrote {length} bytes of {expected}")
            initializers.append(external_tensor(graph, name, weight, data_path.name, (offset, length)))
        data = file.record()
    model = onnx_model(graph, initializers)
    return [write_file(folder / f"{graph.name}.onnx", model, progress), data]


def convert(values: FloatArray, precision: Precision, name: str) -> RawArray:
    """Values in the graph's precision.

    Raises:
        UnsupportedCheckpointError: a finite value does not fit float16.
    """
    if precision is Precision.FP32:
        return np.ascontiguousarray(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        half = np.ascontiguousarray(values, dtype=np.float16)
    if not np.isfinite(half).all():
        peak = float(np.abs(values).max())
        raise UnsupportedCheckpointError(
            f"tensor {name}", f"a value of magnitude {peak:g}", "magnitudes up to 65504 with --precision fp16",
            "Export with --precision fp32.",
        )  # fmt: skip
    return half


def external_tensor(graph: Graph, name: str, weight: Weight, location: str, place: tuple[int, int]) -> TensorProto:
    """An initializer whose values lie in the data file at ``place`` (offset, length)."""
    tensor = TensorProto(name=name, dims=weight.shape, data_type=ONNX_DTYPES[stored_dtype(graph, weight)])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(place[0])), ("length", str(place[1]))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def onnx_model(graph: Graph, initializers: list[TensorProto]) -> bytes:
    """The serialised graph file."""
    inputs, outputs = graph.variant_ports
    body = helper.make_graph(
        graph.nodes, graph.name, inputs, outputs, initializer=[*initializers, *graph.constants.values()]
    )
    opsets: list[OperatorSetIdProto] = [
        helper.make_opsetid("" if domain == "ai.onnx" else domain, version) for domain, version in graph.opsets.items()
    ]
    model = helper.make_model(
        body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="vintern-export", producer_version=__version__
    )
    helper.set_model_props(model, {name: repr(value) for name, value in sorted(graph.properties.items())})
    return bytes(model.SerializeToString(deterministic=True))
