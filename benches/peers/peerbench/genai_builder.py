"""ONNX Runtime GenAI's model builder, rounding one matrix after the other.

As it is, the builder holds the whole model in float32 beside the checkpoint: more than a machine of 24 GiB has for
one of Vintern-3B. Here its own function is called on each matrix product alone. The files are the same, byte for
byte, and so are the arguments.
"""

from __future__ import annotations

import runpy
from typing import Any

import onnx_ir as ir

BUILDER = "onnxruntime_genai.models.builder"


def alone(node: ir.Node, whole: ir.Model) -> ir.Model:
    """A model of one matrix product."""
    taken, weight = node.inputs
    given = ir.Value(name="taken", type=taken.type, shape=taken.shape)
    matrix = ir.Value(name=weight.name, type=weight.type, shape=weight.shape, const_value=weight.const_value)
    product = ir.Node("", node.op_type, [given, matrix], name=node.name)
    product.outputs[0].name = "product"
    product.outputs[0].type = taken.type
    imports = dict(whole.graph.opset_imports)
    graph = ir.Graph(
        [given], product.outputs, nodes=[product], initializers=[matrix], opset_imports=imports, name="alone"
    )
    return ir.Model(graph, ir_version=whole.ir_version)


def take_over(node: ir.Node, rounded: ir.Model, whole: ir.Model) -> None:
    """Makes ``node`` what the one of ``rounded`` is."""
    (found,) = list(rounded.graph)
    del whole.graph.initializers[node.inputs[1].name]
    node.resize_inputs(len(found.inputs))
    for index, value in enumerate(found.inputs[1:], 1):
        weight = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        whole.graph.register_initializer(weight)
        node.replace_input_with(index, weight)
    node.name, node.op_type, node.domain = found.name, found.op_type, found.domain
    for name, attribute in found.attributes.items():
        node.attributes[name] = attribute
    whole.graph.opset_imports.setdefault(found.domain, 1)


def round_one_by_one(model_class: Any) -> None:
    """Changes the builder's class of models."""
    rounded_at_once = model_class.to_nbits

    def to_nbits(self: Any) -> ir.Model:
        whole = self.model
        for node in list(whole.graph):
            if node.op_type == "MatMul" and node.inputs[1].const_value is not None:
                self.model = alone(node, whole)
                take_over(node, rounded_at_once(self), whole)
        self.model = whole
        return whole

    model_class.to_nbits = to_nbits


if __name__ == "__main__":
    import onnxruntime_genai.models  # noqa: F401  # the builder's modules are found by its doing
    from builders.base import Model

    round_one_by_one(Model)
    runpy.run_module(BUILDER, run_name="__main__", alter_sys=True)
