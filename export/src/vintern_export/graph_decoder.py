"""The decoder graph, fused variant: inputs_embeds and past -> logits of the last position and present.

Attention is ``com.microsoft`` GroupQueryAttention, which applies the rotary embedding itself and writes keys and values
in place when past and present are one buffer of fixed capacity. Heads of a size it does not take are widened with zeros
(see ``head_padding``); the scale is that of the true size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vintern_export.graph import MICROSOFT, Graph
from vintern_export.head_padding import padded_head_dim, padded_rotary, padded_vector, widened_columns, widened_rows
from vintern_export.layout import EMBED_TOKENS, LM_HEAD
from vintern_export.tables import rotary_tables
from vintern_export.weights import ArrayWeight, LinearWeight, PlainWeight

if TYPE_CHECKING:
    from vintern_export.checkpoint import Checkpoint
    from vintern_export.numbers import Precision
    from vintern_export.quantised_matrix import MatrixStorage


def build_decoder(checkpoint: Checkpoint, precision: Precision, storage: MatrixStorage | None = None) -> Graph:
    """Builds the Qwen2 decoder; see the module for the form of its attention."""
    language = checkpoint.config.language
    graph = Graph("decoder", precision, storage)
    embeds = graph.input("inputs_embeds", "fp32", ["rows", "positions", language.hidden_size])
    graph.input("seqlens_k", "int32", ["rows"])
    graph.input("total_sequence_length", "int32", [])
    graph.output("logits", "fp32", ["rows", language.vocab_size])
    cache_shape: list[int | str] = [
        "rows",
        language.num_key_value_heads,
        "capacity",
        padded_head_dim(language.head_dim),
    ]
    for index in range(language.num_hidden_layers):
        for part in ("key", "value"):
            graph.input(f"past_key_values.{index}.{part}", precision.value, cache_shape)
            graph.output(f"present.{index}.{part}", precision.value, cache_shape)
    cosines, sines = rotary_tables(language.head_dim, language.rope_theta, language.max_position_embeddings)
    cosines, sines = padded_rotary(cosines, sines)
    graph.weight("rotary.cos", ArrayWeight(cosines))
    graph.weight("rotary.sin", ArrayWeight(sines))
    DecoderBuilder(graph, checkpoint).build(graph.cast_in(embeds))
    return graph


class DecoderBuilder:
    """Adds the layers, the final norm and the output projection to a graph."""

    def __init__(self, graph: Graph, checkpoint: Checkpoint) -> None:
        self.graph = graph
        self.checkpoint = checkpoint
        self.language = checkpoint.config.language

    def build(self, hidden: str) -> None:
        """From embeddings [rows, positions, H] to logits [rows, V]."""
        graph, layers = self.graph, self.language.num_hidden_layers
        first = self.norm_weight("language_model.model.layers.0.input_layernorm")
        normed = graph.node(
            "SimplifiedLayerNormalization",
            [hidden, first],
            "layers.0.input",
            axis=-1,
            epsilon=self.language.rms_norm_eps,
        )
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
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        present = [f"present.{index}.{part}" for part in ("key", "value")]
        return graph.node(
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
