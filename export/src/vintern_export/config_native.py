"""Configuration of the transformers layout: ``InternVLForConditionalGeneration``.

Defaults for missing keys are those of ``InternVLConfig`` and ``InternVLVisionConfig``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vintern_export.config_common import (
    HARMLESS_ROPE_TYPES,
    check_vision,
    exported_layers,
    read_language,
    read_norm_type,
    read_shuffle_factor,
    rope_section,
    rope_type,
    says_untied,
)
from vintern_export.config_types import Layout, ModelConfig, Unset, VisionConfig

if TYPE_CHECKING:
    from vintern_export.fields import Fields

QK_NORM_EPS = 1e-6
"""The library builds the query and key norms without passing ``layer_norm_eps``, so its default holds."""


def read_native(fields: Fields, warnings: list[str]) -> ModelConfig:  # noqa: ARG001 - same signature for both layouts
    """Reads an ``InternVLForConditionalGeneration`` configuration."""
    vision_fields = fields.section("vision_config")
    language_fields = fields.section("text_config")
    key, kind = rope_type(language_fields)
    if kind not in HARMLESS_ROPE_TYPES:
        raise rope_section(language_fields, key).refuse("rope_type", " or ".join(HARMLESS_ROPE_TYPES))
    if fields.text("projector_hidden_act", "gelu") != "gelu":
        raise fields.refuse("projector_hidden_act", "gelu (the exact, erf form)")
    if fields.text("vision_feature_select_strategy", "default") != "default":
        raise fields.refuse("vision_feature_select_strategy", "default (the class token is dropped)")
    shuffle_factor = read_shuffle_factor(fields)
    config = ModelConfig(
        layout=Layout.TRANSFORMERS,
        vision=check_vision(vision_fields, read_vision(fields, vision_fields), shuffle_factor),
        language=read_language(language_fields),
        shuffle_factor=shuffle_factor,
        transposed_tokens=False,
        template=fields.text("template", None),
        system_message=fields.text("system_message", None) if "system_message" in fields else Unset.UNSET,
        says_untied=says_untied(fields, language_fields),
        image_token_id=fields.integer("image_token_id", 151667, minimum=0),
    )
    if fields.integer("image_seq_length", 256) != config.tokens_per_tile and "image_seq_length" in fields:
        raise fields.refuse("image_seq_length", f"{config.tokens_per_tile}, what image_size and downsample_ratio give")
    return config


def read_vision(outer: Fields, fields: Fields) -> VisionConfig:
    """Reads ``vision_config`` and the keys of the outer object that concern the tower."""
    if not fields.boolean("use_absolute_position_embeddings", default=True):
        raise fields.refuse("use_absolute_position_embeddings", "true")
    if not fields.boolean("use_mean_pooling", default=True):
        raise fields.refuse("use_mean_pooling", "true (no normalisation after the encoder)")
    size = fields.side("image_size", 448)
    patch = fields.side("patch_size", 14)
    layers = fields.integer("num_hidden_layers", 24)
    return VisionConfig(
        image_size=size,
        patch_size=patch,
        position_grid=size // patch,
        hidden_size=fields.integer("hidden_size", 1024),
        num_attention_heads=fields.integer("num_attention_heads", 16),
        num_hidden_layers=layers,
        num_exported_layers=exported_layers(outer, "vision_feature_layer", layers),
        intermediate_size=fields.integer("intermediate_size", 4096),
        qkv_bias=fields.boolean("attention_bias", default=False),
        qk_normalization=fields.boolean("use_qk_norm", default=False),
        norm_type=read_norm_type(fields, "layer_norm"),
        layer_norm_eps=fields.number("layer_norm_eps", 1e-6),
        qk_norm_eps=QK_NORM_EPS,
    )
