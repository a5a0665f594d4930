"""The vision encoder graph: pixel_values [tiles, 3, S, S] -> features [tiles, patches, C]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vintern_export.config_types import NormType, VisionConfig
from vintern_export.graph import MICROSOFT, Graph, Variant
from vintern_export.numbers import FloatArray, Precision
from vintern_export.tables import resize_position_embedding
from vintern_export.weights import ArrayWeight, LinearWeight, PlainWeight

if TYPE_CHECKING:
    from vintern_export.checkpoint import Checkpoint
    from vintern_export.quantised_matrix import MatrixStorage

EMBEDDINGS = "vision_model.embeddings."


def build_vision_encoder(
    checkpoint: Checkpoint,
    precision: Precision,
    storage: MatrixStorage | None = None,
    variant: Variant = Variant.FUSED,
) -> Graph:
    """Builds the tower up to the selected feature layer, class token dropped, no final normalisation."""
    vision = checkpoint.config.vision
    graph = Graph("vision_encoder", precision, storage, variant)
    graph.properties = {
        "patch_size": vision.patch_size,
        "layers": vision.num_exported_layers,
        "heads": vision.num_attention_heads,
        "rms_norm": int(vision.norm_type is NormType.RMS_NORM),
        "norm_eps": vision.layer_norm_eps,
        "qk_norm_eps": vision.qk_norm_eps if vision.qk_normalization else 0.0,
    }
    side = vision.image_size
    pixels = graph.input("pixel_values", "fp32", ["tiles", 3, side, side])
    graph.output("features", "fp32", ["tiles", vision.patches, vision.hidden_size])
    hidden = embed_patches(graph, checkpoint, graph.cast_in(pixels))
    for index in range(vision.num_exported_layers):
        hidden = VisionLayer(graph, checkpoint, index).build(hidden)
    patches = graph.node(
        "Slice", [hidden, graph.constant([1]), graph.constant([vision.patches + 1]), graph.constant([1])], "patches"
    )
    graph.cast_out(patches, "features")
    return graph


def embed_patches(graph: Graph, checkpoint: Checkpoint, pixels: str) -> str:
    """Patch embedding, class token and positions: [tiles, 1 + patches, C].

    The convolution's kernel equals its stride, so it is a matrix product over the flattened patches. Its bias and the
    class embedding are folded into the position table, in float32. It stays exact in a quantised tower: it is small.
    """
    vision = checkpoint.config.vision
    grid, patch, width = vision.grid, vision.patch_size, vision.hidden_size
    if vision.image_size % patch:
        # A convolution ignores what is left of a last, incomplete patch.
        used = graph.constant([grid * patch, grid * patch])
        pixels = graph.node("Slice", [pixels, graph.constant([0, 0]), used, graph.constant([2, 3])], "embeddings.used")
    split = graph.node("Reshape", [pixels, graph.constant([-1, 3, grid, patch, grid, patch])], "embeddings.split")
    order = graph.node("Transpose", [split], "embeddings.order", perm=[0, 2, 4, 1, 3, 5])
    flat_shape = graph.constant([-1, vision.patches, 3 * patch * patch])
    flat = graph.node("Reshape", [order, flat_shape], "embeddings.flat")
    kernel = LinearWeight([checkpoint[f"{EMBEDDINGS}patch_embedding.weight"]])
    table = position_table(checkpoint)
    projected = graph.exact_linear(flat, f"{EMBEDDINGS}patch_embedding", kernel, None)
    rows = graph.weight("embeddings.patch_positions", ArrayWeight(table[1:]))
    placed = graph.node("Add", [projected, rows], "embeddings.patches")
    first = graph.weight("embeddings.class_token", ArrayWeight(table[:1].reshape(1, 1, width)))
    tiles = graph.node("Shape", [placed], "embeddings.tiles", start=0, end=1)
    shape = graph.node("Concat", [tiles, graph.constant([1, 1])], "embeddings.class_shape", axis=0)
    repeated = graph.node("Expand", [first, shape], "embeddings.class")
    return graph.node("Concat", [repeated, placed], "embeddings.hidden", axis=1)


def position_table(checkpoint: Checkpoint) -> FloatArray:
    """Positions at the tile's grid plus what is always added to them: row 0 the class token, others the patch bias."""
    vision = checkpoint.config.vision
    stored = checkpoint[f"{EMBEDDINGS}position_embedding"].float32()[0]
    table = resize_position_embedding(stored, vision.grid).copy()
    table[0] += checkpoint[f"{EMBEDDINGS}class_embedding"].float32()[0, 0]
    table[1:] += checkpoint[f"{EMBEDDINGS}patch_embedding.bias"].float32()
    return np.ascontiguousarray(table)


class VisionLayer:
    """One pre-norm transformer layer with layer scale: x + ls1 * attention(norm1(x)), then x + ls2 * mlp(norm2(x))."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint, index: int) -> None:
        self.graph = graph
        self.checkpoint = checkpoint
        self.vision: VisionConfig = checkpoint.config.vision
        self.prefix = f"vision_model.encoder.layers.{index}."

    def build(self, hidden: str) -> str:
        """Adds the layer's nodes; ``hidden`` and the result are [tiles, 1 + patches, C]."""
        attended = self.attention(self.norm(hidden, "norm1"))
        hidden = self.scaled_residual(hidden, attended, "attn.proj", "ls1")
        wide = self.linear(self.norm(hidden, "norm2"), "mlp.fc1")
        active = self.graph.node("Gelu", [wide], f"{self.prefix}mlp.gelu", approximate="none")
        return self.scaled_residual(hidden, active, "mlp.fc2", "ls2")

    def norm(self, value: str, name: str) -> str:
        """LayerNorm, or RMSNorm over the last axis."""
        path = self.prefix + name
        scale = self.graph.weight(f"{path}.weight", PlainWeight(self.checkpoint[f"{path}.weight"]))
        if self.vision.norm_type is NormType.RMS_NORM:
            return self.graph.rms_norm(value, scale, path, self.vision.layer_norm_eps)
        shift = self.graph.weight(f"{path}.bias", PlainWeight(self.checkpoint[f"{path}.bias"]))
        return self.graph.node(
            "LayerNormalization", [value, scale, shift], path, axis=-1, epsilon=self.vision.layer_norm_eps
        )

    def linear(self, value: str, name: str) -> str:
        """A Linear with bias."""
        path = self.prefix + name
        weight = LinearWeight([self.checkpoint[f"{path}.weight"]])
        return self.graph.linear(value, path, weight, PlainWeight(self.checkpoint[f"{path}.bias"]))

    def attention(self, value: str) -> str:
        """Multi-head attention without mask; queries and keys normalised over all heads together where configured."""
        graph, vision = self.graph, self.vision
        path = f"{self.prefix}attn"
        biases = [self.checkpoint[f"{path}.{part}.bias"] for part in "qkv"] if vision.qkv_bias else []
        inputs = []
        for position, part in enumerate("qkv"):
            weight = LinearWeight([self.checkpoint[f"{path}.{part}.weight"]])
            # A norm needs the bias before it; otherwise the attention operator adds all three.
            bias = PlainWeight(biases[position]) if biases and vision.qk_normalization else None
            projected = graph.linear(value, f"{path}.{part}", weight, bias)
            if vision.qk_normalization and part != "v":
                name = f"{path}.{part}_norm"
                scale = graph.weight(f"{name}.weight", PlainWeight(self.checkpoint[f"{name}.weight"]))
                projected = graph.rms_norm(projected, scale, name, vision.qk_norm_eps)
            inputs.append(projected)
        if biases and not vision.qk_normalization:
            inputs.append(graph.weight(f"{path}.qkv.bias", PlainWeight(*biases)))
        if graph.variant is Variant.STANDARD:
            return self.standard_attention(path, inputs)
        return graph.node("MultiHeadAttention", inputs, path, domain=MICROSOFT, num_heads=vision.num_attention_heads)

    def standard_attention(self, path: str, inputs: list[str]) -> str:
        """softmax(q k^T / sqrt(head size)) v of standard operators; a fourth input is the bias of all three, [3 C]."""
        graph, heads = self.graph, self.vision.num_attention_heads
        width = self.vision.hidden_size
        if len(inputs) > len("qkv"):
            *inputs, bias = inputs
            parts = [f"{path}.{part}.bias" for part in "qkv"]
            graph.node("Split", [bias, graph.constant([width] * 3)], parts, axis=0)
            inputs = [graph.node("Add", pair, f"{pair[0]}.biased") for pair in zip(inputs, parts, strict=True)]
        split = graph.constant([0, 0, heads, width // heads])
        query, key, value = (
            graph.node(
                "Transpose", [graph.node("Reshape", [name, split], f"{name}.heads")], f"{name}.turned", perm=perm
            )
            for name, perm in zip(inputs, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
        )
        query = graph.scaled(query, (width // heads) ** -0.5, f"{path}.scaled")
        weights = graph.node(
            "Softmax", [graph.node("MatMul", [query, key], f"{path}.scores")], f"{path}.weights", axis=-1
        )
        mixed = graph.node("MatMul", [weights, value], f"{path}.mixed")
        mixed = graph.node("Transpose", [mixed], f"{path}.joined", perm=[0, 2, 1, 3])
        return graph.node("Reshape", [mixed, graph.constant([0, 0, width])], path)

    def scaled_residual(self, hidden: str, value: str, linear: str, scale: str) -> str:
        """hidden + scale * linear(value).

        In float32 the layer scale is folded into the weights. In float16 it stays apart: it is small, and folding would
        push weights into the subnormal range.
        """
        graph, path = self.graph, self.prefix + linear
        source, bias = self.checkpoint[f"{path}.weight"], self.checkpoint[f"{path}.bias"]
        factors = self.checkpoint[self.prefix + scale]
        if graph.precision is Precision.FP32:
            folded = factors.float32()
            update = graph.linear(value, path, LinearWeight([source], folded), PlainWeight(bias, scale=folded))
        else:
            plain = graph.linear(value, path, LinearWeight([source]), PlainWeight(bias))
            factor = graph.weight(self.prefix + scale, PlainWeight(factors))
            update = graph.node("Mul", [plain, factor], f"{path}.scaled")
        return graph.node("Add", [hidden, update], f"{path}.residual")
