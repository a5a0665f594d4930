"""The decoder graph: inputs_embeds and past -> logits of the last position and present.

In the fused variant attention is ``com.microsoft`` GroupQueryAttention, which applies the rotary embedding itself and
writes keys and values in place when past and present are one buffer of fixed capacity. Heads of a size it does not take
are widened with zeros (see ``head_padding``); the scale is that of the true size. All of its inputs are of the cache's
precision, which may be narrower than that of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vintern_export.graph import MICROSOFT, Graph, Variant
from vintern_export.head_padding import padded_head_dim, padded_rotary, padded_vector, widened_columns, widened_rows
from vintern_export.layout import EMBED_TOKENS, LM_HEAD
from vintern_export.numbers import Precision
from vintern_export.tables import rotary_tables
from vintern_export.weights import ArrayWeight, LinearWeight, PlainWeight

if TYPE_CHECKING:
    from vintern_export.checkpoint import Checkpoint
    from vintern_export.quantised_matrix import MatrixStorage


def build_decoder(
    checkpoint: Checkpoint,
    precision: Precision,
    storage: MatrixStorage | None = None,
    variant: Variant = Variant.FUSED,
    cache: Precision | None = None,
) -> Graph:
    """Builds the Qwen2 decoder; see the module for the form of its attention.

    ``cache`` is the precision of keys and values where it is not ``precision``; in the fused variant only.
    """
    language = checkpoint.config.language
    cache = cache or precision
    graph = Graph("decoder", precision, storage, variant)
    graph.properties = {
        "layers": language.num_hidden_layers,
        "heads": language.num_attention_heads,
        "key_value_heads": language.num_key_value_heads,
        "norm_eps": language.rms_norm_eps,
    }
    embeds = graph.input("inputs_embeds", "fp32", ["rows", "positions", language.hidden_size])
    if variant is Variant.FUSED:
        graph.input("seqlens_k", "int32", ["rows"])
        graph.input("total_sequence_length", "int32", [])
    else:
        graph.input("position_ids", "int32", ["rows", "positions"])
        graph.input("attention_bias", "fp32", ["rows", 1, "positions", "total"])
    graph.output("logits", "fp32", ["rows", language.vocab_size])
    heads, size = language.num_key_value_heads, padded_head_dim(language.head_dim)
    present = "capacity" if variant is Variant.FUSED else "positions"
    for index in range(language.num_hidden_layers):
        for part in ("key", "value"):
            graph.input(f"past_key_values.{index}.{part}", cache.value, ["rows", heads, "capacity", size])
            graph.output(f"present.{index}.{part}", cache.value, ["rows", heads, present, size])
    cosines, sines = rotary_tables(language.head_dim, language.rope_theta, language.max_position_embeddings)
    cosines, sines = padded_rotary(cosines, sines)
    for name, table in (("rotary.cos", cosines), ("rotary.sin", sines)):
        graph.weight(name, ArrayWeight(table, half=cache is Precision.FP16))
    builder = DecoderBuilder if variant is Variant.FUSED else StandardDecoderBuilder
    builder(graph, checkpoint, cache).build(graph.cast_in(embeds))
    return graph


class DecoderBuilder:
    """Adds the layers, the final norm and the output projection to a graph."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint, cache: Precision) -> None:
        self.graph = graph
        self.cache = cache
        self.checkpoint = checkpoint
        self.language = checkpoint.config.language

    def build(self, hidden: str) -> None:
        """From embeddings [rows, positions, H] to logits [rows, V]."""
        graph, layers = self.graph, self.language.num_hidden_layers
        first = self.norm_weight("language_model.model.layers.0.input_layernorm")
        normed = graph.rms_norm(hidden, first, "layers.0.input", self.language.rms_norm_eps)
        for index in range(layers):
            prefix = f"language_model.model.layers.{index}."
            attended = self.attention(prefix, index, normed)
            if index == layers - 1:
                # Only the last position is asked for; everything after the last attention works on it alone.
                attended, hidden = self.last_position(attended, "attended"), self.last_position(hidden, "hidden")
            output = widened_columns(self.checkpoint[f"{prefix}self_attn.o_proj.weight"], self.language.head_dim)
            update = graph.linear(attended, f"{prefix}self_attn.o_proj", LinearWeight([output]), None)
            normed, hidden = self.add_and_norm(update, hidden, f"{prefix}post_attention_layernorm")
            update = self.mlp(prefix, normed)
            after = f"language_model.model.layers.{index + 1}.input_layernorm"
            last = index == layers - 1
            normed, hidden = self.add_and_norm(update, hidden, "language_model.model.norm" if last else after)
        head = LM_HEAD if LM_HEAD in self.checkpoint else EMBED_TOKENS
        scores = graph.linear(normed, "language_model.lm_head", LinearWeight([self.checkpoint[head]]), None, head=True)
        graph.cast_out(graph.node("Squeeze", [scores, graph.constant([1])], "last_logits"), "logits")

    def attention(self, prefix: str, index: int, normed: str) -> str:
        """Packed projections and GroupQueryAttention: [rows, positions, Q]."""
        graph, language = self.graph, self.language
        parts = [f"{prefix}self_attn.{part}_proj" for part in "qkv"]
        size = language.head_dim
        weight = LinearWeight([widened_rows(self.checkpoint[f"{part}.weight"], size) for part in parts])
        biases = [padded_vector(self.checkpoint[f"{part}.bias"].float32(), size) for part in parts]
        bias = ArrayWeight(np.concatenate(biases))
        packed = graph.linear(normed, f"{prefix}self_attn.qkv_proj", weight, bias)
        return self.attend(prefix, index, packed)

    def attend(self, prefix: str, index: int, packed: str) -> str:
        """Attention over packed queries, keys and values."""
        graph, language = self.graph, self.language
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        present = [f"present.{index}.{part}" for part in ("key", "value")]
        packed = graph.cast(packed, graph.precision, self.cache)
        attended = graph.node(
            "GroupQueryAttention",
            [packed, "", "", *past, "seqlens_k", "total_sequence_length", "rotary.cos", "rotary.sin"],
            [f"{prefix}self_attn", *present],
            domain=MICROSOFT,
            num_heads=language.num_attention_heads,
            kv_num_heads=language.num_key_value_heads,
            scale=language.head_dim**-0.5,
            do_rotary=1,
            rotary_interleaved=0,
        )
        return graph.cast(attended, self.cache, graph.precision)

    def mlp(self, prefix: str, normed: str) -> str:
        """down(silu(gate(x)) * up(x))."""
        graph = self.graph
        gate = graph.linear(normed, f"{prefix}mlp.gate_proj", self.matrix(f"{prefix}mlp.gate_proj"), None)
        up = graph.linear(normed, f"{prefix}mlp.up_proj", self.matrix(f"{prefix}mlp.up_proj"), None)
        sigmoid = graph.node("Sigmoid", [gate], f"{prefix}mlp.sigmoid")
        silu = graph.node("Mul", [gate, sigmoid], f"{prefix}mlp.silu")
        product = graph.node("Mul", [silu, up], f"{prefix}mlp.product")
        return graph.linear(product, f"{prefix}mlp.down_proj", self.matrix(f"{prefix}mlp.down_proj"), None)

    def add_and_norm(self, update: str, hidden: str, norm: str) -> tuple[str, str]:
        """(RMSNorm of the sum, the sum) of an update and the residual stream."""
        name = norm.removeprefix("language_model.model.")
        outputs = [f"{name}.output", "", "", f"{name}.sum"]
        self.graph.node(
            "SkipSimplifiedLayerNormalization",
            [update, hidden, self.norm_weight(norm)],
            outputs,
            domain=MICROSOFT,
            epsilon=self.language.rms_norm_eps,
        )
        return outputs[0], outputs[3]

    def last_position(self, value: str, name: str) -> str:
        """[rows, positions, C] -> [rows, 1, C]."""
        return self.graph.node("Gather", [value, self.graph.constant([-1])], f"last.{name}", axis=1)

    def matrix(self, name: str) -> LinearWeight:
        """A Linear's weight as [in, out]."""
        return LinearWeight([self.checkpoint[f"{name}.weight"]])

    def norm_weight(self, name: str) -> str:
        """The scale of an RMSNorm, added to the graph."""
        return self.graph.weight(f"{name}.weight", PlainWeight(self.checkpoint[f"{name}.weight"]))


class StandardDecoderBuilder(DecoderBuilder):
    """The same of standard operators.

    The cache is read where it lies and not copied: queries meet the past and the new keys apart, and only the scores
    are joined. ``present`` holds the new keys and values alone; whoever keeps the cache writes them behind the past.
    ``attention_bias`` [rows, 1, positions, capacity + positions] is added to the scores: 0, or a number so small that
    the position takes no part.
    """

    def build(self, hidden: str) -> None:
        """As the base class, with the rotary tables' rows gathered and the bias cast once."""
        graph = self.graph
        for name in ("cos", "sin"):
            rows = graph.node("Gather", [f"rotary.{name}", "position_ids"], f"positions.{name}", axis=0)
            graph.node("Unsqueeze", [rows, graph.constant([1])], f"rotation.{name}")
        self.bias = graph.cast_in("attention_bias")
        super().build(hidden)

    def attend(self, prefix: str, index: int, packed: str) -> str:
        """Attention over packed queries, keys and values."""
        graph, language, path = self.graph, self.language, f"{prefix}self_attn"
        size = padded_head_dim(language.head_dim)
        heads, shared = language.num_attention_heads, language.num_key_value_heads
        names = [f"{path}.{part}" for part in ("query", "key", "value")]
        sizes = graph.constant([heads * size, shared * size, shared * size])
        graph.node("Split", [packed, sizes], names, axis=2)
        query, key, value = (
            self.turned(name, count, size) for name, count in zip(names, (heads, shared, shared), strict=True)
        )
        query = graph.scaled(self.rotated(query, size), language.head_dim**-0.5, f"{path}.scaled")
        new_key = graph.node("Identity", [self.rotated(key, size)], f"present.{index}.key")
        new_value = graph.node("Identity", [value], f"present.{index}.value")
        past_key, past_value = f"past_key_values.{index}.key", f"past_key_values.{index}.value"
        # Query heads that share a key head stand one below the other: [rows, shared, heads / shared * positions, size].
        grouped = graph.node("Reshape", [query, graph.constant([0, shared, -1, size])], f"{path}.grouped")
        scores = [
            graph.node(
                "MatMul",
                [grouped, graph.node("Transpose", [keys], f"{path}.{name}_keys", perm=[0, 1, 3, 2])],
                f"{path}.{name}_scores",
            )
            for name, keys in (("past", past_key), ("new", new_key))
        ]
        joined = graph.node("Concat", scores, f"{path}.joined_scores", axis=3)
        by_head = graph.node("Reshape", [joined, graph.constant([0, heads, -1, 0])], f"{path}.scores")
        biased = graph.node("Add", [by_head, self.bias], f"{path}.biased")
        weights = graph.node("Softmax", [biased], f"{path}.weights", axis=-1)
        weights = graph.node("Reshape", [weights, graph.constant([0, shared, -1, 0])], f"{path}.grouped_weights")
        capacity = graph.node("Shape", [past_key], f"{path}.capacity", start=2, end=3)
        end = graph.constant([2**31 - 1])
        parts = [
            graph.node("Slice", [weights, start, stop, graph.constant([3])], f"{path}.{name}_weights")
            for name, start, stop in (("past", graph.constant([0]), capacity), ("new", capacity, end))
        ]
        mixed = [
            graph.node("MatMul", [part, values], f"{path}.{name}_values")
            for name, part, values in zip(("past", "new"), parts, (past_value, new_value), strict=True)
        ]
        summed = graph.node("Add", mixed, f"{path}.mixed")
        by_head = graph.node("Reshape", [summed, graph.constant([0, heads, -1, size])], f"{path}.heads")
        turned = graph.node("Transpose", [by_head], f"{path}.turned", perm=[0, 2, 1, 3])
        return graph.node("Reshape", [turned, graph.constant([0, 0, heads * size])], path)

    def turned(self, name: str, heads: int, size: int) -> str:
        """[rows, positions, heads * size] -> [rows, heads, positions, size]."""
        graph = self.graph
        split = graph.node("Reshape", [name, graph.constant([0, 0, heads, size])], f"{name}.split")
        return graph.node("Transpose", [split], f"{name}.turned", perm=[0, 2, 1, 3])

    def rotated(self, value: str, size: int) -> str:
        """Rotary embedding, "rotate half"."""
        graph = self.graph
        first, second = f"{value}.first", f"{value}.second"
        graph.node("Split", [value, graph.constant([size // 2, size // 2])], [first, second], axis=3)

        def product(half: str, table: str) -> str:
            return graph.node("Mul", [half, f"rotation.{table}"], f"{half}.{table}")

        front = graph.node("Sub", [product(first, "cos"), product(second, "sin")], f"{value}.front")
        back = graph.node("Add", [product(second, "cos"), product(first, "sin")], f"{value}.back")
        return graph.node("Concat", [front, back], f"{value}.rotated", axis=3)

    def add_and_norm(self, update: str, hidden: str, norm: str) -> tuple[str, str]:
        """(RMSNorm of the sum, the sum) of an update and the residual stream."""
        name = norm.removeprefix("language_model.model.")
        total = self.graph.node("Add", [update, hidden], f"{name}.sum")
        return self.graph.rms_norm(total, self.norm_weight(norm), f"{name}.output", self.language.rms_norm_eps), total
