"""InternVLChatModel in PyTorch, for training only: the tensors have the names of the original checkpoint layout.

Vision tower: InternViT (pre-norm, LayerScale, class token, no final norm). Then pixel shuffle v2, the MLP projector,
and a Qwen2 decoder (RMSNorm, rotary positions, grouped-query attention, SwiGLU). Formulas: the model code of
OpenGVLab's InternVL and of transformers' Qwen2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vintern_train import tokenizer
from vintern_train.samples import CLASSES, SLOTS
from vintern_train.tiling import PATCH, PATCHES


@dataclass(frozen=True)
class Sizes:
    """Sizes of the network."""

    vision_hidden: int = 256
    vision_layers: int = 4
    vision_heads: int = 8
    vision_intermediate: int = 1024
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    intermediate: int = 704
    rope_theta: float = 10_000.0
    max_length: int = 2048
    guided_layer: int = 2
    """Decoder layer whose first head is taught where to look."""

    @property
    def head_dim(self) -> int:
        """Width of a head of the decoder."""
        return self.hidden // self.heads


class VisionAttention(nn.Module):
    """Full attention over the patches of a tile."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.vision_heads
        self.qkv = nn.Linear(sizes.vision_hidden, 3 * sizes.vision_hidden)
        self.proj = nn.Linear(sizes.vision_hidden, sizes.vision_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[tiles, positions, hidden] to the same."""
        tiles, positions, hidden = x.shape
        q, k, v = self.qkv(x).view(tiles, positions, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        # Spelled out: for so few positions PyTorch's fused kernel is slower on a CPU, its backward pass above all.
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        mixed = scores.softmax(-1).to(v.dtype) @ v
        return self.proj(mixed.transpose(1, 2).reshape(tiles, positions, hidden))


class VisionMlp(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.vision_hidden, sizes.vision_intermediate)
        self.fc2 = nn.Linear(sizes.vision_intermediate, sizes.vision_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] to the same."""
        return self.fc2(functional.gelu(self.fc1(x)))


class VisionLayer(nn.Module):
    """A layer of the tower."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.vision_hidden, eps=1e-6)
        self.attn = VisionAttention(sizes)
        self.norm2 = nn.LayerNorm(sizes.vision_hidden, eps=1e-6)
        self.mlp = VisionMlp(sizes)
        self.ls1 = nn.Parameter(torch.ones(sizes.vision_hidden))
        self.ls2 = nn.Parameter(torch.ones(sizes.vision_hidden))

    def forward(self, x: Tensor) -> Tensor:
        """[tiles, positions, hidden] to the same."""
        x = x + self.attn(self.norm1(x)) * self.ls1
        return x + self.mlp(self.norm2(x)) * self.ls2


class VisionEmbeddings(nn.Module):
    """Patches to vectors, a class token in front, positions added."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden = sizes.vision_hidden
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, hidden))
        self.patch_embedding = nn.Conv2d(3, hidden, PATCH, PATCH)
        table = torch.cat([torch.zeros(1, hidden), sinusoids(PATCHES, hidden)])
        self.position_embedding = nn.Parameter(table[None] * 0.5)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[tiles, 3, TILE, TILE] to [tiles, 1 + patches, hidden]."""
        tiles = pixel_values.shape[0]
        cut = pixel_values.view(tiles, 3, PATCHES, PATCH, PATCHES, PATCH).permute(0, 2, 4, 1, 3, 5)
        weight = self.patch_embedding.weight
        patches = functional.linear(
            cut.reshape(tiles, PATCHES * PATCHES, -1), weight.view(weight.shape[0], -1), self.patch_embedding.bias
        )
        whole = torch.cat([self.class_embedding.expand(tiles, -1, -1), patches], dim=1)
        return whole + self.position_embedding


class VisionEncoder(nn.Module):
    """The layers of the tower."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(sizes) for _ in range(sizes.vision_layers))


class VisionModel(nn.Module):
    """The tower."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(sizes)
        self.encoder = VisionEncoder(sizes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[tiles, 3, TILE, TILE] to the features of the patches, [tiles, patches, hidden]."""
        x = self.embeddings(pixel_values)
        for layer in self.encoder.layers:
            x = layer(x)
        return x[:, 1:]


class DecoderAttention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        key_value = sizes.key_value_heads * sizes.head_dim
        self.q_proj = nn.Linear(sizes.hidden, sizes.hidden)
        self.k_proj = nn.Linear(sizes.hidden, key_value)
        self.v_proj = nn.Linear(sizes.hidden, key_value)
        self.o_proj = nn.Linear(sizes.hidden, sizes.hidden, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], past: Cache | None) -> tuple[Tensor, Tensor, Tensor]:
        """[rows, positions, hidden] to the same, and the first head's rotated queries and keys."""
        rows, positions, _ = x.shape
        heads, kv_heads = self.sizes.heads, self.sizes.key_value_heads
        q = rotated(self.q_proj(x).view(rows, positions, heads, -1).transpose(1, 2), rotation)
        k = rotated(self.k_proj(x).view(rows, positions, kv_heads, -1).transpose(1, 2), rotation)
        v = self.v_proj(x).view(rows, positions, kv_heads, -1).transpose(1, 2)
        if past is not None:
            k, v = past.extended(k, v)
        groups = heads // kv_heads
        causal = k.shape[2] == positions
        mixed = functional.scaled_dot_product_attention(
            q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), is_causal=causal and positions > 1
        )
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, positions, -1)), q[:, 0], k[:, 0]


@dataclass
class Cache:
    """Keys and values of one layer, [rows, heads, positions, head size]."""

    keys: Tensor | None = None
    values: Tensor | None = None

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends; returns all keys and values."""
        self.keys = keys if self.keys is None else torch.cat([self.keys, keys], 2)
        self.values = values if self.values is None else torch.cat([self.values, values], 2)
        return self.keys, self.values

    def reorder(self, rows: Tensor) -> None:
        """Makes row i what row ``rows[i]`` was."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]


class DecoderMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.up_proj = nn.Linear(sizes.hidden, sizes.intermediate, bias=False)
        self.down_proj = nn.Linear(sizes.intermediate, sizes.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., hidden] to the same."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """A layer of the decoder."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(sizes.hidden, eps=1e-6)
        self.self_attn = DecoderAttention(sizes)
        self.post_attention_layernorm = nn.RMSNorm(sizes.hidden, eps=1e-6)
        self.mlp = DecoderMlp(sizes)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], past: Cache | None) -> tuple[Tensor, Tensor, Tensor]:
        """[rows, positions, hidden] to the same, and what :class:`DecoderAttention` returns beside."""
        mixed, q, k = self.self_attn(self.input_layernorm(x), rotation, past)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), q, k


class Decoder(nn.Module):
    """Token embeddings, layers and the final norm."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(tokenizer.vocabulary_size(), sizes.hidden)
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.hidden, eps=1e-6)


class LanguageModel(nn.Module):
    """Qwen2 with a language-model head."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.model = Decoder(sizes)
        self.lm_head = nn.Linear(sizes.hidden, tokenizer.vocabulary_size(), bias=False)

    def forward(self, embeds: Tensor, past: list[Cache] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """[rows, positions, hidden] to hidden states after the norm, and the guided head's queries and keys."""
        start = 0 if past is None or past[0].keys is None else past[0].keys.shape[2]
        rotation = rotations(self.sizes, start, embeds.shape[1])
        x, guided = embeds, (embeds, embeds)
        for number, layer in enumerate(self.model.layers):
            x, q, k = layer(x, rotation, None if past is None else past[number])
            if number == self.sizes.guided_layer:
                guided = (q, k)
        return self.model.norm(x), *guided


class Vintern(nn.Module):
    """The whole model, and a head for the patches that only training uses."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        shuffled = 4 * sizes.vision_hidden
        self.vision_model = VisionModel(sizes)
        self.mlp1 = nn.Sequential(
            nn.LayerNorm(shuffled), nn.Linear(shuffled, sizes.hidden), nn.GELU(), nn.Linear(sizes.hidden, sizes.hidden)
        )
        self.language_model = LanguageModel(sizes)
        self.patch_head = nn.Sequential(
            nn.LayerNorm(sizes.vision_hidden), nn.Linear(sizes.vision_hidden, SLOTS * CLASSES)
        )
        self.apply(initialise)

    def compile_layers(self) -> None:
        """Has PyTorch compile the layers of the tower and the decoder, for batches of any size."""
        for layer in (*self.vision_model.encoder.layers, *self.language_model.model.layers):
            layer.compile(dynamic=True)

    def patch_logits(self, features: Tensor) -> Tensor:
        """Features [tiles, patches, hidden] to logits [tiles, patches, SLOTS, CLASSES]."""
        return self.patch_head(features).unflatten(-1, (SLOTS, CLASSES))

    def project(self, features: Tensor) -> Tensor:
        """Features [tiles, patches, hidden] to image embeddings [tiles, tokens, hidden]."""
        return self.mlp1(pixel_shuffle(features))

    def merged(self, ids: Tensor, image_embeds: Tensor) -> Tensor:
        """Token embeddings with the image's in place of ``<IMG_CONTEXT>``, [rows, positions, hidden]."""
        embeds = self.language_model.model.embed_tokens(ids)
        mask = (ids == tokenizer.special_ids()["<IMG_CONTEXT>"])[..., None]
        return embeds.masked_scatter(mask, image_embeds.to(embeds.dtype))


def initialise(module: nn.Module) -> None:
    """Weights of standard deviation 0.02 (less where a layer is wide), biases 0."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        inputs = module.weight[0].numel()
        nn.init.normal_(module.weight, std=min(0.05, inputs**-0.5))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.05)


def sinusoids(side: int, width: int) -> Tensor:
    """Two-dimensional sinusoidal positions, [side * side, width]: where learned positions start from."""
    rates = torch.exp(torch.linspace(0.0, -4.0, width // 4))
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = line[:, None].expand(side, side, -1)
    columns = line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)


def pixel_shuffle(features: Tensor) -> Tensor:
    """Joins 2 x 2 neighbours (version v2): [tiles, patches, C] to [tiles, patches / 4, 4 C], row by row."""
    tiles, patches, width = features.shape
    half = PATCHES // 2
    cells = features.view(tiles, half, 2, half, 2, width).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(tiles, patches // 4, 4 * width)


def rotations(sizes: Sizes, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, [count, head size] each."""
    rates = sizes.rope_theta ** -(torch.arange(0, sizes.head_dim, 2, dtype=torch.float32) / sizes.head_dim)
    angles = torch.arange(start, start + count, dtype=torch.float32)[:, None] * rates
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Applies rotary positions to [rows, heads, positions, head size] ("rotate half")."""
    first, second = x.chunk(2, dim=-1)
    return x * rotation[0] + torch.cat([-second, first], dim=-1) * rotation[1]
