"""The model in NumPy, one sequence or tile at a time, written from the definition of its layers.

Nothing here knows the graphs: weights come by logical name from a ``WeightSource``, one layer at a time. The decoder
keeps no cache; it evaluates whole sequences, which is what a prefill and steps with a cache must reproduce.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vintern_export.verify.mathematics import (
    gelu,
    join_heads,
    layer_norm,
    rms_norm,
    silu,
    softmax,
    split_heads,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vintern_export.numbers import FloatArray

PROJECTOR_EPS = 1e-5


class WeightSource(Protocol):
    """Weights by logical name (see ``layout``), as float32."""

    def vector(self, name: str) -> FloatArray | None:
        """A vector, or None where the model has none of this name."""

    def apply(self, name: str, x: FloatArray) -> FloatArray:
        """x @ W^T + b of the Linear ``name``; x is [positions, in]."""

    def patch_kernel(self) -> FloatArray:
        """Patch embedding as [3 * patch * patch, C]."""

    def token_offsets(self) -> FloatArray:
        """What is added to the tokens before the first layer, [1 + patches, C].

        Row 0 is the class token (class embedding + its position), the others patch bias + position.
        """


@dataclass(frozen=True)
class Architecture:
    """The numbers the evaluation needs, from a checkpoint's configuration or from a package's graphs."""

    patch_size: int
    vision_layers: int
    vision_heads: int
    vision_eps: float
    vision_rms: bool
    qk_eps: float
    shuffle_factor: int
    transposed_tokens: bool
    layers: int
    heads: int
    key_value_heads: int
    rms_eps: float


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines, each [length, head_dim / 2]."""

    cosines: FloatArray
    sines: FloatArray


def present(vector: FloatArray | None, name: str) -> FloatArray:
    """A vector that must exist."""
    if vector is None:
        raise KeyError(name)
    return vector


def vision_encoder(architecture: Architecture, weights: WeightSource, tiles: FloatArray) -> FloatArray:
    """pixel_values [n, 3, S, S] -> features [n, patches, C]."""
    hidden = [embed_tile(architecture, weights, tile) for tile in tiles]
    for index in range(architecture.vision_layers):
        layer = VisionLayer(architecture, weights, f"vision_model.encoder.layers.{index}.")
        hidden = [layer(x) for x in hidden]
    return np.stack([x[1:] for x in hidden])


def embed_tile(architecture: Architecture, weights: WeightSource, tile: FloatArray) -> FloatArray:
    """One tile [3, S, S] -> tokens [1 + patches, C], patches in reading order."""
    patch = architecture.patch_size
    grid = tile.shape[1] // patch
    patches = [
        tile[:, patch * y : patch * (y + 1), patch * x : patch * (x + 1)].reshape(-1)
        for y in range(grid)
        for x in range(grid)
    ]
    offsets = weights.token_offsets()
    tokens = np.stack(patches) @ weights.patch_kernel() + offsets[1:]
    return np.concatenate([offsets[:1], tokens]).astype(np.float32)


class VisionLayer:
    """One layer of the vision tower on tokens [1 + patches, C]."""

    def __init__(self, architecture: Architecture, weights: WeightSource, prefix: str) -> None:
        self.architecture = architecture
        self.weights = weights
        self.prefix = prefix

    def __call__(self, x: FloatArray) -> FloatArray:
        """x + ls1 * attention(norm1(x)), then x + ls2 * mlp(norm2(x))."""
        x = x + self.scaled("ls1", self.linear("attn.proj", self.attention(self.norm("norm1", x))))
        return x + self.scaled("ls2", self.linear("mlp.fc2", gelu(self.linear("mlp.fc1", self.norm("norm2", x)))))

    def linear(self, name: str, x: FloatArray) -> FloatArray:
        """A Linear of this layer."""
        return self.weights.apply(self.prefix + name, x)

    def scaled(self, name: str, x: FloatArray) -> FloatArray:
        """x times a layer scale; a source without one has it in the Linear before."""
        scale = self.weights.vector(self.prefix + name)
        return x if scale is None else x * scale

    def norm(self, name: str, x: FloatArray) -> FloatArray:
        """The layer's LayerNorm or RMSNorm."""
        weight = present(self.weights.vector(f"{self.prefix}{name}.weight"), name)
        if self.architecture.vision_rms:
            return rms_norm(x, weight, self.architecture.vision_eps)
        bias = present(self.weights.vector(f"{self.prefix}{name}.bias"), name)
        return layer_norm(x, weight, bias, self.architecture.vision_eps)

    def attention(self, x: FloatArray) -> FloatArray:
        """Softmax attention over all tokens, queries and keys normalised first where the model has such norms."""
        heads = self.architecture.vision_heads
        parts = []
        for part in "qkv":
            value = self.linear(f"attn.{part}", x)
            norm = self.weights.vector(f"{self.prefix}attn.{part}_norm.weight") if part != "v" else None
            parts.append(split_heads(value if norm is None else rms_norm(value, norm, self.architecture.qk_eps), heads))
        query, key, value = parts
        scale = np.float32(query.shape[-1] ** -0.5)
        return join_heads(softmax((query * scale) @ key.transpose(0, 2, 1)) @ value)


def projector(architecture: Architecture, weights: WeightSource, features: FloatArray) -> FloatArray:
    """Features [n, patches, C] -> image embeddings [n, T, H]."""
    weight = present(weights.vector("mlp1.0.weight"), "mlp1.0.weight")
    bias = present(weights.vector("mlp1.0.bias"), "mlp1.0.bias")
    tiles = []
    for tile in features:
        tokens = layer_norm(shuffled_tokens(architecture, tile), weight, bias, PROJECTOR_EPS)
        tiles.append(weights.apply("mlp1.3", gelu(weights.apply("mlp1.1", tokens))))
    return np.stack(tiles)


def shuffled_tokens(architecture: Architecture, tile: FloatArray) -> FloatArray:
    """Patches [grid * grid, C] -> tokens [T, k * k * C]: k x k neighbours side by side."""
    grid, k = round(len(tile) ** 0.5), architecture.shuffle_factor
    rows = tile.reshape(grid, grid, -1)
    cells = [(u, v) for u in range(grid // k) for v in range(grid // k)]
    if architecture.transposed_tokens:
        cells = [(u, v) for v, u in cells]
    return np.stack([rows[k * u : k * (u + 1), k * v : k * (v + 1)].reshape(-1) for u, v in cells])


@dataclass(frozen=True)
class DecoderResult:
    """``logits`` at the positions asked for; ``keys`` (rotated) and ``values`` a layer, [kv heads, positions, D]."""

    logits: list[FloatArray]
    keys: list[FloatArray]
    values: list[FloatArray]


def decoder(
    architecture: Architecture,
    weights: WeightSource,
    rotary: Rotary,
    sequences: list[FloatArray],
    positions: list[list[int]],
    on_layer: Callable[[int], None] = lambda _: None,
) -> list[DecoderResult]:
    """Whole sequences of embeddings [n, H]; logits at ``positions`` of each.

    The sequences pass each layer in turn, so that its weights are read once.
    """
    hidden, results = list(sequences), [DecoderResult([], [], []) for _ in sequences]
    for index in range(architecture.layers):
        prefix = f"language_model.model.layers.{index}."
        hidden = [
            decoder_layer(architecture, weights, rotary, prefix, x, result)
            for x, result in zip(hidden, results, strict=True)
        ]
        on_layer(index)
    norm = present(weights.vector("language_model.model.norm.weight"), "norm")
    asked = [x[wanted] for x, wanted in zip(hidden, positions, strict=True)]
    rows = rms_norm(np.concatenate(asked), norm, architecture.rms_eps)
    logits = iter(weights.apply("language_model.lm_head", rows))
    for result, wanted in zip(results, positions, strict=True):
        result.logits.extend(next(logits) for _ in wanted)
    return results


def decoder_layer(
    architecture: Architecture, weights: WeightSource, rotary: Rotary, prefix: str, x: FloatArray, result: DecoderResult
) -> FloatArray:
    """One Qwen2 layer on [n, H]; appends its keys and values to ``result``."""
    norm = present(weights.vector(f"{prefix}input_layernorm.weight"), prefix)
    normed = rms_norm(x, norm, architecture.rms_eps)
    query = split_heads(weights.apply(f"{prefix}self_attn.q_proj", normed), architecture.heads)
    key = split_heads(weights.apply(f"{prefix}self_attn.k_proj", normed), architecture.key_value_heads)
    value = split_heads(weights.apply(f"{prefix}self_attn.v_proj", normed), architecture.key_value_heads)
    query, key = rotate(query, rotary), rotate(key, rotary)
    result.keys.append(key)
    result.values.append(value)
    attended = causal_attention(query, key, value)
    x = x + weights.apply(f"{prefix}self_attn.o_proj", attended)
    norm = present(weights.vector(f"{prefix}post_attention_layernorm.weight"), prefix)
    normed = rms_norm(x, norm, architecture.rms_eps)
    gate = silu(weights.apply(f"{prefix}mlp.gate_proj", normed))
    return x + weights.apply(f"{prefix}mlp.down_proj", gate * weights.apply(f"{prefix}mlp.up_proj", normed))


def rotate(x: FloatArray, rotary: Rotary) -> FloatArray:
    """Rotary embedding, "rotate half": x [heads, n, D] at positions 0..n-1."""
    half, count = x.shape[-1] // 2, x.shape[1]
    first, second = x[..., :half], x[..., half:]
    cosine, sine = rotary.cosines[:count], rotary.sines[:count]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def causal_attention(query: FloatArray, key: FloatArray, value: FloatArray) -> FloatArray:
    """Grouped-query attention: query [heads, n, D], key and value [kv heads, n, D] -> [n, heads * D]."""
    group = len(query) // len(key)
    key, value = np.repeat(key, group, axis=0), np.repeat(value, group, axis=0)
    scores = query @ key.transpose(0, 2, 1) * np.float32(query.shape[-1] ** -0.5)
    future = np.triu(np.ones(scores.shape[1:], dtype=bool), 1)
    return join_heads(softmax(np.where(future, -np.inf, scores)) @ value)
