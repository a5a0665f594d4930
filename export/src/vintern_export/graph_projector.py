"""The projector graph: features [tiles, patches, C] -> image_embeds [tiles, T, H]."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vintern_export.graph import Graph, Variant
from vintern_export.weights import LinearWeight, PlainWeight

if TYPE_CHECKING:
    from vintern_export.checkpoint import Checkpoint
    from vintern_export.numbers import Precision
    from vintern_export.quantised_matrix import MatrixStorage

PROJECTOR_NORM_EPS = 1e-5
"""The default of ``torch.nn.LayerNorm``, which the reference does not override."""


def build_projector(
    checkpoint: Checkpoint,
    precision: Precision,
    storage: MatrixStorage | None = None,
    variant: Variant = Variant.FUSED,
) -> Graph:
    """Pixel shuffle, LayerNorm, Linear, exact GELU, Linear."""
    config = checkpoint.config
    graph = Graph("projector", precision, storage, variant)
    graph.properties = {
        "shuffle_factor": config.shuffle_factor,
        "transposed_tokens": int(config.transposed_tokens),
        "norm_eps": PROJECTOR_NORM_EPS,
    }
    width, hidden = config.vision.hidden_size, config.language.hidden_size
    features = graph.input("features", "fp32", ["tiles", config.vision.patches, width])
    graph.output("image_embeds", "fp32", ["tiles", config.tokens_per_tile, hidden])
    tokens = pixel_shuffle(graph, checkpoint, graph.cast_in(features))
    scale = graph.weight("mlp1.0.weight", PlainWeight(checkpoint["mlp1.0.weight"]))
    shift = graph.weight("mlp1.0.bias", PlainWeight(checkpoint["mlp1.0.bias"]))
    normed = graph.node("LayerNormalization", [tokens, scale, shift], "mlp1.0", axis=-1, epsilon=PROJECTOR_NORM_EPS)
    first = LinearWeight([checkpoint["mlp1.1.weight"]])
    value = graph.linear(normed, "mlp1.1", first, PlainWeight(checkpoint["mlp1.1.bias"]))
    value = graph.node("Gelu", [value], "mlp1.2", approximate="none")
    second = LinearWeight([checkpoint["mlp1.3.weight"]])
    value = graph.linear(value, "mlp1.3", second, PlainWeight(checkpoint["mlp1.3.bias"]))
    graph.cast_out(value, "image_embeds")
    return graph


def pixel_shuffle(graph: Graph, checkpoint: Checkpoint, features: str) -> str:
    """Groups k x k neighbouring patches into a token of k*k*C channels: [tiles, T, k*k*C].

    Token (u, v) holds patches (k*u + a, k*v + b) in the order of (a, b). ``ps_version`` v2 orders the tokens by (u, v),
    v1 by (v, u).
    """
    config = checkpoint.config
    k, width = config.shuffle_factor, config.vision.hidden_size
    side = config.vision.grid // k
    grouped = graph.node("Reshape", [features, graph.constant([-1, side, k, side, k, width])], "shuffle.grouped")
    perm = [0, 3, 1, 2, 4, 5] if config.transposed_tokens else [0, 1, 3, 2, 4, 5]
    ordered = graph.node("Transpose", [grouped], "shuffle.ordered", perm=perm)
    shape = graph.constant([-1, config.tokens_per_tile, config.projector_input_size])
    return graph.node("Reshape", [ordered, shape], "shuffle.tokens")
