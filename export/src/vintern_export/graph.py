"""Builds an ONNX graph from shapes; its weights stay streams until the graph is written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from vintern_export.numbers import Precision
from vintern_export.quantised_matrix import MatrixStorage, QuantisedMatrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import NodeProto

    from vintern_export.weights import LinearWeight, Weight

OPSET = 21
STANDARD_OPSET = 20
"""Of standard graphs: LayerNormalization (17) and Gelu (20) are the newest operators, and TensorRT 10.1 ends here."""
IR_VERSION = 10
AttributeValue = int | float | str | list[int]
MICROSOFT = "com.microsoft"
BIAS_INPUT = 5
"""Of MatMulNBits."""
ONNX_DTYPES = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
}
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2"), "uint8": np.dtype("u1")}
"""Of what a data file may hold."""


class Variant(Enum):
    """Operators of a graph."""

    FUSED = "fused"
    """With those of ``com.microsoft``."""
    STANDARD = "standard"
    """Those of ai.onnx only, and of them those that TensorRT and OpenVINO take."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph. Named axes are strings, fixed sizes integers."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Graph:
    """A graph under construction.

    ``node`` and its wrappers take and return tensor names. ``precision`` is the format of the arithmetic, and of all
    weights but the matrices that ``storage`` quantises; the ports decide for themselves. ``variant`` says which
    operators may be used. ``properties`` are the numbers a reader cannot see in the shapes of the weights.
    """

    def __init__(
        self,
        name: str,
        precision: Precision,
        storage: MatrixStorage | None = None,
        variant: Variant = Variant.FUSED,
    ) -> None:
        self.name = name
        self.precision = precision
        self.storage = storage
        self.variant = variant
        self.properties: dict[str, float] = {}
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, Weight] = {}
        self.constants: dict[str, TensorProto] = {}

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declares an input."""
        self.inputs.append(Port(name, dtype, tuple(shape)))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declares an output; some node must produce a tensor of this name."""
        self.outputs.append(Port(name, dtype, tuple(shape)))
        return name

    def weight(self, name: str, weight: Weight) -> str:
        """Adds a weight, stored outside the graph file in the graph's precision."""
        self.weights[name] = weight
        return name

    def constant(self, values: Sequence[int] | int) -> str:
        """A small int64 constant, stored in the graph file."""
        array = np.asarray(values, dtype=np.int64)
        name = "constant." + ("x".join(str(v) for v in array.reshape(-1)) if array.ndim else f"scalar.{array}")
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def scalar(self, value: float) -> str:
        """A float32 constant, stored in the graph file."""
        name = f"constant.float.{value!r}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype=np.float32), name)
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        output: str | Sequence[str],
        domain: str = "",
        **attributes: AttributeValue,
    ) -> str:
        """Adds a node and returns its first output."""
        outputs = [output] if isinstance(output, str) else list(output)
        name = next(text for text in outputs if text)
        node = helper.make_node(op, list(inputs), outputs, name=name, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(node)
        return name

    def linear(self, value: str, name: str, weight: LinearWeight, bias: Weight | None, *, head: bool = False) -> str:
        """value @ weight + bias; the weights are named ``name``.weight and ``name``.bias.

        ``head`` marks the output projection of a language model, which has a storage of its own.
        """
        if self.storage is None:
            return self.exact_linear(value, name, weight, bias)
        form = self.storage.head if head and self.storage.head else self.storage.body
        return self.quantised_linear(value, name, QuantisedMatrix(weight, form), bias, self.storage.accuracy_level)

    def exact_linear(self, value: str, name: str, weight: LinearWeight, bias: Weight | None) -> str:
        """As :meth:`linear`, with the weight in the graph's precision whatever its storage."""
        inputs = [value, self.weight(f"{name}.weight", weight)]
        return self.biased(self.node("MatMul", inputs, product_name(name, bias)), name, bias)

    def biased(self, product: str, name: str, bias: Weight | None) -> str:
        """product + bias as ``name``; the product itself, which has that name, where there is no bias."""
        return product if bias is None else self.node("Add", [product, self.weight(f"{name}.bias", bias)], name)

    def quantised_linear(
        self, value: str, name: str, matrix: QuantisedMatrix, bias: Weight | None, accuracy_level: int
    ) -> str:
        """As :meth:`linear`, by MatMulNBits; the scales are named ``name``.scales, zero points ``name``.zero_points.

        The CPU provider's operator adds the bias itself; that of CUDA does not take one.
        """
        inner, outer = (bias, None) if self.precision is Precision.FP32 else (None, bias)
        inputs = [
            value,
            self.weight(f"{name}.weight", matrix.codes),
            self.weight(f"{name}.scales", matrix.scales),
        ]
        if not matrix.form.symmetric:
            inputs.append(self.weight(f"{name}.zero_points", matrix.zero_points))
        if inner is not None:
            inputs += [""] * (BIAS_INPUT - len(inputs)) + [self.weight(f"{name}.bias", inner)]
        product = self.node(
            "MatMulNBits",
            inputs,
            product_name(name, outer),
            domain=MICROSOFT,
            K=matrix.inputs,
            N=matrix.outputs,
            bits=matrix.form.bits,
            block_size=matrix.form.block_size,
            accuracy_level=accuracy_level,
        )
        return self.biased(product, name, outer)

    @property
    def precision_name(self) -> str:
        """The precision as a manifest names it."""
        return self.storage.name if self.storage else self.precision.value

    def scaled(self, value: str, factor: float, name: str) -> str:
        """A value times a number."""
        number = self.scalar(factor)
        if self.precision is Precision.FP16:
            number = self.node("Cast", [number], f"{name}.factor", to=TensorProto.FLOAT16)
        return self.node("Mul", [value, number], name)

    def rms_norm(self, value: str, scale: str, name: str, epsilon: float) -> str:
        """x * rsqrt(mean(x^2) + epsilon) * scale over the last axis, the mean in float32."""
        if self.variant is Variant.FUSED:
            return self.node("SimplifiedLayerNormalization", [value, scale], name, axis=-1, epsilon=epsilon)
        is_half = self.precision is Precision.FP16
        wide = self.node("Cast", [value], f"{name}.float", to=TensorProto.FLOAT) if is_half else value
        squared = self.node("Mul", [wide, wide], f"{name}.squared")
        mean = self.node("ReduceMean", [squared, self.constant([-1])], f"{name}.mean", keepdims=1)
        root = self.node("Sqrt", [self.node("Add", [mean, self.scalar(epsilon)], f"{name}.shifted")], f"{name}.root")
        normed = self.node("Div", [wide, root], f"{name}.normed")
        if is_half:
            normed = self.node("Cast", [normed], f"{name}.half", to=TensorProto.FLOAT16)
        return self.node("Mul", [normed, scale], name)

    def cast(self, value: str, source: Precision, target: Precision) -> str:
        """A value of precision ``source`` in precision ``target``: itself where they are the same."""
        if source is target:
            return value
        return self.node("Cast", [value], f"{value}.cast", to=ONNX_DTYPES[target.value])

    def cast_in(self, value: str) -> str:
        """A float32 input in the graph's precision."""
        return self.cast(value, Precision.FP32, self.precision)

    def cast_out(self, value: str, output: str) -> str:
        """The graph's precision back to float32, as ``output``."""
        if self.precision is Precision.FP32:
            return self.node("Identity", [value], output)
        return self.node("Cast", [value], output, to=TensorProto.FLOAT)

    @property
    def opsets(self) -> dict[str, int]:
        """Operator set versions, with the standard domain spelled out."""
        used = {"ai.onnx": STANDARD_OPSET if self.variant is Variant.STANDARD else OPSET}
        if any(node.domain == MICROSOFT for node in self.nodes):
            used[MICROSOFT] = 1
        return used

    @property
    def variant_ports(self) -> tuple[list[ValueInfoProto], list[ValueInfoProto]]:
        """Inputs and outputs as ONNX value infos."""
        inputs = [helper.make_tensor_value_info(p.name, ONNX_DTYPES[p.dtype], p.shape) for p in self.inputs]
        outputs = [helper.make_tensor_value_info(p.name, ONNX_DTYPES[p.dtype], p.shape) for p in self.outputs]
        return inputs, outputs


def product_name(name: str, bias: Weight | None) -> str:
    """Name of the product inside a linear layer: the layer's own where no bias is added to it."""
    return name if bias is None else f"{name}.product"
