"""Where each tensor of the model stands in a checkpoint, for both layouts.

The rest of the exporter asks for tensors by their *logical* name, which is the original layout's name except that the
vision tower's fused ``attn.qkv`` appears as ``attn.q``, ``attn.k`` and ``attn.v``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vintern_export.config_types import Layout, NormType

if TYPE_CHECKING:
    from vintern_export.config_types import LanguageConfig, ModelConfig, VisionConfig

LM_HEAD = "language_model.lm_head.weight"
EMBED_TOKENS = "language_model.model.embed_tokens.weight"

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of the file, or a block of its rows.

    ``block`` = (i, n): the i-th of n equal blocks of rows; (0, 1) is the whole tensor. ``shape`` is the stored shape.
    """

    name: str
    shape: tuple[int, ...]
    block: tuple[int, int] = (0, 1)


def logical_shapes(config: ModelConfig) -> Shapes:
    """Every tensor the model needs, by logical name; ``lm_head`` may be absent from a file (tied embeddings)."""
    return vision_shapes(config.vision) | projector_shapes(config) | language_shapes(config.language)


def vision_shapes(vision: VisionConfig) -> Shapes:
    """Tensors of the vision tower. Linear weights are [out, in]."""
    width, inner = vision.hidden_size, vision.intermediate_size
    prefix = "vision_model.embeddings."
    shapes: Shapes = {
        f"{prefix}class_embedding": (1, 1, width),
        f"{prefix}position_embedding": (1, vision.position_grid**2 + 1, width),
        f"{prefix}patch_embedding.weight": (width, 3, vision.patch_size, vision.patch_size),
        f"{prefix}patch_embedding.bias": (width,),
    }
    for i in range(vision.num_hidden_layers):
        layer: Shapes = {"ls1": (width,), "ls2": (width,)}
        for norm in ("norm1", "norm2"):
            layer[f"{norm}.weight"] = (width,)
            if vision.norm_type is NormType.LAYER_NORM:
                layer[f"{norm}.bias"] = (width,)
        for part in "qkv":
            layer[f"attn.{part}.weight"] = (width, width)
            if vision.qkv_bias:
                layer[f"attn.{part}.bias"] = (width,)
        if vision.qk_normalization:
            layer |= {"attn.q_norm.weight": (width,), "attn.k_norm.weight": (width,)}
        layer |= {"attn.proj.weight": (width, width), "attn.proj.bias": (width,)}
        layer |= {"mlp.fc1.weight": (inner, width), "mlp.fc1.bias": (inner,)}
        layer |= {"mlp.fc2.weight": (width, inner), "mlp.fc2.bias": (width,)}
        shapes |= {f"vision_model.encoder.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def projector_shapes(config: ModelConfig) -> Shapes:
    """Tensors of the projector."""
    width, hidden = config.projector_input_size, config.language.hidden_size
    return {
        "mlp1.0.weight": (width,),
        "mlp1.0.bias": (width,),
        "mlp1.1.weight": (hidden, width),
        "mlp1.1.bias": (hidden,),
        "mlp1.3.weight": (hidden, hidden),
        "mlp1.3.bias": (hidden,),
    }


def language_shapes(language: LanguageConfig) -> Shapes:
    """Tensors of the Qwen2 language model."""
    hidden, inner = language.hidden_size, language.intermediate_size
    query, key_value = language.query_size, language.key_value_size
    shapes: Shapes = {EMBED_TOKENS: (language.vocab_size, hidden)}
    for i in range(language.num_hidden_layers):
        layer: Shapes = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
        for part, size in (("q", query), ("k", key_value), ("v", key_value)):
            layer |= {f"self_attn.{part}_proj.weight": (size, hidden), f"self_attn.{part}_proj.bias": (size,)}
        layer |= {"self_attn.o_proj.weight": (hidden, query), "mlp.gate_proj.weight": (inner, hidden)}
        layer |= {"mlp.up_proj.weight": (inner, hidden), "mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"language_model.model.layers.{i}.{name}": shape for name, shape in layer.items()}
    shapes["language_model.model.norm.weight"] = (hidden,)
    shapes[LM_HEAD] = (language.vocab_size, hidden)
    return shapes


def stored_tensor(layout: Layout, logical: str, shape: tuple[int, ...]) -> StoredTensor:
    """Where a logical tensor stands in a file of this layout."""
    if layout is Layout.TRANSFORMERS:
        return StoredTensor(transformers_name(logical), shape)
    fused = re.fullmatch(r"(vision_model\..*\.attn\.)([qkv])(\.weight|\.bias)", logical)
    if fused is None:
        return StoredTensor(logical, shape)
    return StoredTensor(f"{fused[1]}qkv{fused[3]}", (3 * shape[0], *shape[1:]), ("qkv".index(fused[2]), 3))


VISION_LAYER_NAMES = (
    ("attn.proj.", "attention.projection_layer."),
    ("attn.q_norm.", "attention.q_norm."),
    ("attn.k_norm.", "attention.k_norm."),
    ("attn.q.", "attention.q_proj."),
    ("attn.k.", "attention.k_proj."),
    ("attn.v.", "attention.v_proj."),
    ("norm1.", "layernorm_before."),
    ("norm2.", "layernorm_after."),
    ("ls1", "lambda_1"),
    ("ls2", "lambda_2"),
)
TRANSFORMERS_NAMES = (
    ("vision_model.embeddings.class_embedding", "model.vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "model.vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.", "model.vision_tower.embeddings.patch_embeddings.projection."),
    ("mlp1.0.", "model.multi_modal_projector.layer_norm."),
    ("mlp1.1.", "model.multi_modal_projector.linear_1."),
    ("mlp1.3.", "model.multi_modal_projector.linear_2."),
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
)


def transformers_name(logical: str) -> str:
    """A logical name in the transformers layout (version 4.52 and newer)."""
    match = re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.*)", logical)
    if match:
        rest = match[2]
        for ours, theirs in VISION_LAYER_NAMES:
            if rest.startswith(ours):
                rest = theirs + rest.removeprefix(ours)
                break
        return f"model.vision_tower.encoder.layer.{match[1]}.{rest}"
    for ours, theirs in TRANSFORMERS_NAMES:
        if logical.startswith(ours):
            return theirs + logical.removeprefix(ours)
    raise KeyError(logical)


EARLY_TRANSFORMERS_PREFIXES = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)


def current_name(layout: Layout, stored: str) -> str:
    """A stored name as files of today write it; transformers before 4.52 put other prefixes."""
    if layout is Layout.TRANSFORMERS:
        for early, today in EARLY_TRANSFORMERS_PREFIXES:
            if stored.startswith(early):
                return today + stored.removeprefix(early)
    return stored


def is_ignored(stored: str) -> bool:
    """Tensors that old files carry and inference never reads: rotary frequencies, the training-time mask token."""
    return stored.endswith((".rotary_emb.inv_freq", ".embeddings.position_ids", ".embeddings.mask_token"))
