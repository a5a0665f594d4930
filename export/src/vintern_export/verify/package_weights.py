"""Weights and sizes for the NumPy evaluation, read back from a package's graphs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from vintern_export.errors import PackageError
from vintern_export.numbers import F16, F32, StoredDtype, to_float32
from vintern_export.quantisation import BlockFormat, Blocks
from vintern_export.verify.reference import Architecture, Rotary

if TYPE_CHECKING:
    from pathlib import Path

    from vintern_export.numbers import FloatArray, RawArray

BLOCK_BYTES = 64 << 20
Channels = npt.NDArray[np.intp]
CODES = StoredDtype("U8", np.dtype("u1"), "uint8")
ONNX_STORED = {TensorProto.FLOAT: F32, TensorProto.FLOAT16: F16, TensorProto.UINT8: CODES}


@dataclass(frozen=True)
class GraphTensor:
    """A weight in a data file."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: StoredDtype

    def rows(self, start: int, stop: int) -> FloatArray:
        """Rows ``start:stop`` as float32."""
        width = int(np.prod(self.shape[1:]))
        count, skip = (stop - start) * width, self.offset + start * width * self.dtype.raw.itemsize
        raw = np.fromfile(self.path, self.dtype.raw, count, offset=skip)
        if raw.size != count:
            raise PackageError(f"{self.path.name} ends before byte {skip + count * self.dtype.raw.itemsize}")
        return to_float32(raw.reshape(stop - start, *self.shape[1:]), self.dtype)

    def all(self) -> FloatArray:
        """The whole tensor as float32."""
        return self.rows(0, self.shape[0])

    def mapped(self) -> RawArray:
        """The stored values, mapped into memory."""
        return np.memmap(self.path, self.dtype.raw, "r", self.offset, self.shape)


@dataclass(frozen=True)
class QuantisedTensor:
    """The matrix of a MatMulNBits node, read as the [in, out] matrix it stands for."""

    codes: GraphTensor
    scales: GraphTensor
    zero_points: GraphTensor | None
    form: BlockFormat
    shape: tuple[int, int]

    def rows(self, start: int, stop: int) -> FloatArray:
        """Inputs ``start:stop``, [stop - start, out] float32."""
        size = self.form.block_size
        first, last = start // size, -(-stop // size)
        blocks = slice(first, last)
        codes = unpacked(self.codes.mapped()[:, blocks], self.form.bits)
        if self.zero_points is None:
            zero_points = np.full(codes.shape[:2], self.form.middle, np.uint8)
        else:
            zero_points = unpacked(np.asarray(self.zero_points.mapped()), self.form.bits)[:, blocks]
        scales = to_float32(np.asarray(self.scales.mapped()[:, blocks]), self.scales.dtype)
        values = Blocks(codes, scales, zero_points).values((last - first) * size)
        return values[:, start - first * size : stop - first * size].T


def unpacked(stored: RawArray, bits: int) -> RawArray:
    """Codes, one a byte, of bytes that hold one or two along the last axis."""
    if bits == 8:
        return np.asarray(stored)
    return np.stack([stored & 15, stored >> 4], axis=-1).reshape(*stored.shape[:-1], -1)


class PackageWeights:
    """Weights as the graphs of a package hold them. Matrices are stored, or read, as [in, out]."""

    def __init__(self, folder: Path, graphs: dict[str, str]) -> None:
        self.models = {key: onnx.load(folder / name, load_external_data=False) for key, name in graphs.items()}
        self._tensors: dict[str, GraphTensor] = {}
        for model in self.models.values():
            for tensor in model.graph.initializer:
                if tensor.data_location == TensorProto.EXTERNAL:
                    place = {entry.key: entry.value for entry in tensor.external_data}
                    dtype = ONNX_STORED[tensor.data_type]
                    path = folder / place["location"]
                    self._tensors[tensor.name] = GraphTensor(path, int(place["offset"]), tuple(tensor.dims), dtype)
        self._matrices: dict[str, GraphTensor | QuantisedTensor] = dict(self._tensors)
        for node in (node for model in self.models.values() for node in model.graph.node):
            if node.op_type == "MatMulNBits":
                self._matrices[node.input[1]] = self._quantised(node)

    def _quantised(self, node: onnx.NodeProto) -> QuantisedTensor:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        codes, scales = (self._tensors[name] for name in node.input[1:3])
        zero_points = self._tensors[node.input[3]] if len(node.input) > 3 and node.input[3] else None
        form = BlockFormat(attributes["bits"], attributes["block_size"], symmetric=zero_points is None)
        return QuantisedTensor(codes, scales, zero_points, form, (attributes["K"], attributes["N"]))

    def vector(self, name: str) -> FloatArray | None:
        """A vector, or None."""
        tensor = self._tensors.get(name)
        return None if tensor is None else tensor.all()

    def apply(self, name: str, x: FloatArray) -> FloatArray:
        """x @ W + b; the parts of packed projections are columns of the packed one."""
        matrix, columns = self._matrix(name)
        width = matrix.shape[1] if columns is None else len(columns)
        if name.endswith(".o_proj"):
            wide = np.zeros((len(x), matrix.shape[0]), np.float32)
            wide[:, self._head_channels(matrix.shape[0])] = x
            x = wide
        out = np.zeros((len(x), width), np.float32)
        step = max(1, BLOCK_BYTES // (4 * matrix.shape[1]))
        for start in range(0, matrix.shape[0], step):
            stop = min(start + step, matrix.shape[0])
            rows = matrix.rows(start, stop)
            out += x[:, start:stop] @ (rows if columns is None else rows[:, columns])
        bias = self._bias(name, columns)
        return out if bias is None else out + bias

    def _matrix(self, name: str) -> tuple[GraphTensor | QuantisedTensor, Channels | None]:
        prefix, _, part = name.rpartition(".")
        packed = self._matrices.get(f"{prefix}.qkv_proj.weight")
        if packed is None or part not in ("q_proj", "k_proj", "v_proj"):
            return self._matrices[f"{name}.weight"], None
        inputs, outputs = self._matrices[f"{prefix}.o_proj.weight"].shape[0], packed.shape[1]
        key_value = (outputs - inputs) // 2
        bounds = {"q": (0, inputs), "k": (inputs, inputs + key_value), "v": (inputs + key_value, outputs)}
        start, stop = bounds[part[0]]
        return packed, start + self._head_channels(stop - start)

    def _head_channels(self, width: int) -> Channels:
        """The channels among ``width`` = heads * head size of the graph that are not padding.

        A head may be widened by zeros after each of its halves, where the rotary embedding does not turn: sine 0.
        """
        half, true_half = self._tensors["rotary.sin"].shape[1], self._rotary.sines.shape[1]
        return np.flatnonzero(np.arange(width) % half < true_half)

    def _bias(self, name: str, columns: Channels | None) -> FloatArray | None:
        prefix, _, part = name.rpartition(".")
        if part.endswith("_proj") and f"{prefix}.qkv_proj.bias" in self._tensors:
            is_packed = part in ("q_proj", "k_proj", "v_proj")
            return self._tensors[f"{prefix}.qkv_proj.bias"].all()[columns] if is_packed else None
        if part in ("q", "k", "v") and f"{prefix}.qkv.bias" in self._tensors:
            return np.split(self._tensors[f"{prefix}.qkv.bias"].all(), 3)["qkv".index(part)]
        return self.vector(f"{name}.bias")

    def patch_kernel(self) -> FloatArray:
        """[3 * patch * patch, C]."""
        return self._tensors["vision_model.embeddings.patch_embedding.weight"].all()

    def token_offsets(self) -> FloatArray:
        """[1 + patches, C]."""
        first = self._tensors["embeddings.class_token"].all().reshape(1, -1)
        return np.concatenate([first, self._tensors["embeddings.patch_positions"].all()])

    @cached_property
    def _rotary(self) -> Rotary:
        cosines, sines = self._tensors["rotary.cos"].all(), self._tensors["rotary.sin"].all()
        turning = sines.any(axis=0)
        return Rotary(cosines[:, turning], sines[:, turning])

    def rotary(self) -> Rotary:
        """The tables of the decoder graph, without the padding of heads."""
        return self._rotary

    def architecture(self) -> Architecture:
        """The sizes, read off the shapes of weights and the properties of the graphs."""
        vision, projector, decoder = (self._properties(key) for key in ("vision_encoder", "projector", "decoder"))
        return Architecture(
            patch_size=int(vision["patch_size"]),
            vision_layers=int(vision["layers"]),
            vision_heads=int(vision["heads"]),
            vision_eps=vision["norm_eps"],
            vision_rms=bool(vision["rms_norm"]),
            qk_eps=vision["qk_norm_eps"],
            shuffle_factor=int(projector["shuffle_factor"]),
            transposed_tokens=bool(projector["transposed_tokens"]),
            layers=int(decoder["layers"]),
            heads=int(decoder["heads"]),
            key_value_heads=int(decoder["key_value_heads"]),
            rms_eps=decoder["norm_eps"],
        )

    def _properties(self, graph: str) -> dict[str, float]:
        properties = {entry.key: float(entry.value) for entry in self.models[graph].metadata_props}
        if not properties:
            raise PackageError(f"{graph}.onnx holds no properties: an older exporter wrote it; export again")
        return properties
