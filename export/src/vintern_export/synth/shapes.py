"""Shapes of known models, and the configuration files that describe them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vintern_export.config_types import Layout

if TYPE_CHECKING:
    from vintern_export.numbers import StoredDtype

TORCH_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
QWEN2_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN2_5_TOKENS = (
    *QWEN2_TOKENS,
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
QWEN2_5_PLAIN_TOKENS = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)
INTERNVL_TOKENS = (*("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"),)


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and the tokens of its tokenizer.

    ``first_added_id`` is the id of ``<|endoftext|>``, or None to let the added tokens follow the vocabulary.
    ``special_tokens`` are dropped from text by the reference; ``plain_tokens`` are not.
    """

    image_size: int
    vision_hidden_size: int
    vision_heads: int
    vision_layers: int
    vision_intermediate_size: int
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate_size: int
    tied: bool
    first_added_id: int | None
    special_tokens: tuple[str, ...]
    plain_tokens: tuple[str, ...]
    template: str = "Hermes-2"
    patch_size: int = 14
    rope_theta: float = 1e6
    max_position_embeddings: int = 32768


SHAPES = {
    "vintern-3b": Shape(
        image_size=448,
        vision_hidden_size=1024,
        vision_heads=16,
        vision_layers=24,
        vision_intermediate_size=4096,
        hidden_size=2048,
        layers=36,
        heads=16,
        key_value_heads=2,
        intermediate_size=11008,
        tied=False,
        first_added_id=151643,
        special_tokens=QWEN2_5_TOKENS,
        plain_tokens=QWEN2_5_PLAIN_TOKENS,
    ),
    "vintern-1b": Shape(
        image_size=448,
        vision_hidden_size=1024,
        vision_heads=16,
        vision_layers=24,
        vision_intermediate_size=4096,
        hidden_size=896,
        layers=24,
        heads=14,
        key_value_heads=2,
        intermediate_size=4864,
        tied=True,
        first_added_id=151643,
        special_tokens=QWEN2_TOKENS,
        plain_tokens=(),
    ),
    "tiny": Shape(
        image_size=112,
        vision_hidden_size=64,
        vision_heads=4,
        vision_layers=2,
        vision_intermediate_size=128,
        hidden_size=64,
        layers=2,
        heads=4,
        key_value_heads=2,
        intermediate_size=128,
        tied=False,
        first_added_id=None,
        special_tokens=QWEN2_5_TOKENS,
        plain_tokens=QWEN2_5_PLAIN_TOKENS,
    ),
}


def checkpoint_config(
    shape: Shape, layout: Layout, dtype: StoredDtype, added_tokens: dict[str, int], vocab_size: int
) -> dict[str, Any]:
    """``config.json`` of a checkpoint; ``added_tokens`` maps the added tokens to their ids."""
    torch_dtype = TORCH_NAMES[dtype.manifest_name]
    language = {
        "architectures": ["Qwen2ForCausalLM"],
        "bos_token_id": added_tokens["<|endoftext|>"],
        "eos_token_id": added_tokens["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "max_window_layers": shape.layers,
        "model_type": "qwen2",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.key_value_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": shape.rope_theta,
        "sliding_window": shape.max_position_embeddings,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": torch_dtype,
        "use_sliding_window": False,
        "vocab_size": vocab_size,
    }
    vision = {
        "hidden_act": "gelu",
        "hidden_size": shape.vision_hidden_size,
        "intermediate_size": shape.vision_intermediate_size,
        "layer_norm_eps": 1e-6,
        "norm_type": "layer_norm",
        "num_attention_heads": shape.vision_heads,
        "num_channels": 3,
        "num_hidden_layers": shape.vision_layers,
        "torch_dtype": torch_dtype,
    }
    common = {"downsample_ratio": 0.5, "tie_word_embeddings": shape.tied, "torch_dtype": torch_dtype}
    if layout is Layout.TRANSFORMERS:
        side, patch = [shape.image_size] * 2, [shape.patch_size] * 2
        return common | {
            "architectures": ["InternVLForConditionalGeneration"],
            "model_type": "internvl",
            "image_seq_length": (shape.image_size // shape.patch_size // 2) ** 2,
            "image_token_id": added_tokens["<IMG_CONTEXT>"],
            "projector_hidden_act": "gelu",
            "text_config": language,
            "vision_config": vision
            | {"model_type": "internvl_vision", "image_size": side, "patch_size": patch}
            | {"attention_bias": True, "use_qk_norm": False, "use_absolute_position_embeddings": True},
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "default",
        }
    return common | {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "dynamic_image_size": True,
        "force_image_size": shape.image_size,
        "llm_config": language,
        "max_dynamic_patch": 6,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "template": shape.template,
        "use_thumbnail": True,
        "vision_config": vision
        | {"architectures": ["InternVisionModel"], "model_type": "intern_vit_6b"}
        | {"image_size": shape.image_size, "patch_size": shape.patch_size}
        | {"qkv_bias": True, "qk_normalization": False},
    }
