"""Configuration of the original layout: ``InternVLChatModel``.

Defaults for missing keys are those of ``InternVLChatConfig`` and ``InternVisionConfig``.
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
    rope_type,
    says_untied,
)
from vintern_export.config_types import Layout, ModelConfig, Unset, VisionConfig

if TYPE_CHECKING:
    from vintern_export.fields import Fields


def read_original(fields: Fields, warnings: list[str]) -> ModelConfig:
    """Reads an ``InternVLChatModel`` configuration and appends what the user should know to ``warnings``."""
    vision_fields = fields.section("vision_config")
    language_fields = fields.section("llm_config")
    if vision_fields.class_name("InternVisionModel") != "InternVisionModel":
        raise vision_fields.refuse("architectures", "InternVisionModel")
    key, kind = rope_type(language_fields)
    if kind not in HARMLESS_ROPE_TYPES:
        warnings.append(
            f"{language_fields.name(key)} asks for {kind!r} scaling; the reference class ignores this key, "
            "and so does the exported model"
        )
    shuffle_factor = read_shuffle_factor(fields)
    return ModelConfig(
        layout=Layout.ORIGINAL,
        vision=check_vision(vision_fields, read_vision(fields, vision_fields), shuffle_factor),
        language=read_language(language_fields),
        shuffle_factor=shuffle_factor,
        transposed_tokens=fields.text("ps_version", "v1") == "v1",
        template=fields.text("template", None),
        system_message=fields.text("system_message", None) if "system_message" in fields else Unset.UNSET,
        says_untied=says_untied(fields, language_fields),
        image_token_id=None,
    )


def read_vision(outer: Fields, fields: Fields) -> VisionConfig:
    """Reads ``vision_config`` and the keys of the outer object that concern the tower."""
    stored_size = fields.side("image_size", 224)
    patch = fields.side("patch_size", 14)
    layers = fields.integer("num_hidden_layers", 48)
    eps = fields.number("layer_norm_eps", 1e-6)
    return VisionConfig(
        image_size=outer.side("force_image_size", stored_size),
        patch_size=patch,
        position_grid=stored_size // patch,
        hidden_size=fields.integer("hidden_size", 3200),
        num_attention_heads=fields.integer("num_attention_heads", 25),
        num_hidden_layers=layers,
        num_exported_layers=exported_layers(outer, "select_layer", layers),
        intermediate_size=fields.integer("intermediate_size", 12800),
        qkv_bias=fields.boolean("qkv_bias", default=False),
        qk_normalization=fields.boolean("qk_normalization", default=True),
        norm_type=read_norm_type(fields, "rms_norm"),
        layer_norm_eps=eps,
        qk_norm_eps=eps,
    )
