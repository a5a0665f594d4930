"""Checks and fields that both configuration layouts share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vintern_export.config_types import LanguageConfig, NormType, VisionConfig

if TYPE_CHECKING:
    from vintern_export.fields import Fields

HARMLESS_ROPE_TYPES = ("default", "dynamic")
"""Dynamic NTK scaling changes nothing up to ``max_position_embeddings``, the longest sequence a package allows."""


def read_language(fields: Fields) -> LanguageConfig:
    """Reads a Qwen2 configuration; the defaults are those of ``Qwen2Config``."""
    model_type = fields.text("model_type", None)
    if fields.class_name("Qwen2ForCausalLM") not in ("Qwen2ForCausalLM", "Qwen2Model"):
        raise fields.refuse("architectures", "Qwen2ForCausalLM (the Qwen2 and Qwen2.5 language models)")
    if model_type not in (None, "qwen2"):
        raise fields.refuse("model_type", "qwen2")
    if fields.text("hidden_act", "silu") != "silu":
        raise fields.refuse("hidden_act", "silu")
    hidden = fields.integer("hidden_size", 4096)
    heads = fields.integer("num_attention_heads", 32)
    default_kv_heads = heads if "num_key_value_heads" in fields else 32
    kv_heads = fields.integer("num_key_value_heads", default_kv_heads)
    if heads % kv_heads:
        raise fields.refuse("num_key_value_heads", f"a divisor of num_attention_heads = {heads}")
    has_head_dim = fields.values.get("head_dim") is not None
    if not has_head_dim and hidden % heads:
        raise fields.refuse("num_attention_heads", f"a divisor of hidden_size = {hidden}")
    head_dim = fields.integer("head_dim", hidden // heads)
    if head_dim % 2:
        raise fields.refuse(
            "head_dim" if has_head_dim else "hidden_size",
            f"even head sizes (the rotary embedding turns pairs of channels); this one is {head_dim}",
        )
    max_length = fields.integer("max_position_embeddings", 32768)
    layers = fields.integer("num_hidden_layers", 32)
    refuse_sliding_window(fields, max_length, layers)
    return LanguageConfig(
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        num_hidden_layers=layers,
        intermediate_size=fields.integer("intermediate_size", 22016),
        vocab_size=fields.integer("vocab_size", 151936),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=read_rope_theta(fields),
        max_position_embeddings=max_length,
    )


def refuse_sliding_window(fields: Fields, max_length: int, layers: int) -> None:
    """Refuses a sliding window that a sequence of the longest length would feel.

    Only layers from ``max_window_layers`` on have one; a null ``sliding_window`` is none at all.
    """
    if fields.boolean("use_sliding_window", default=False):
        window = fields.integer("sliding_window", max_length if "sliding_window" in fields else 4096)
        if window < max_length and fields.integer("max_window_layers", 28, minimum=0) < layers:
            raise fields.refuse(
                "use_sliding_window",
                f"false, a sliding_window of at least {max_length}, or max_window_layers of at least {layers}",
            )
    layer_types = fields.values.get("layer_types") or []
    if "sliding_attention" in layer_types:
        raise fields.refuse("layer_types", "full_attention in every layer")


def read_rope_theta(fields: Fields) -> float:
    """The rotary base, at its old place or inside ``rope_parameters`` / ``rope_scaling``."""
    if fields.values.get("rope_theta") is not None:
        return fields.number("rope_theta", 10000.0)
    for key in ("rope_parameters", "rope_scaling"):
        section = rope_section(fields, key)
        if "rope_theta" in section:
            return section.number("rope_theta", 10000.0)
    return 10000.0


def says_untied(outer: Fields, language: Fields) -> bool:
    """Whether ``tie_word_embeddings`` is false where it stands, in the outer object and in the language model's."""
    values = [
        fields.boolean(key, default=True) for fields in (outer, language) if (key := "tie_word_embeddings") in fields
    ]
    return bool(values) and not any(values)


def rope_section(fields: Fields, key: str) -> Fields:
    """``rope_parameters`` or ``rope_scaling``; newer files may nest it by layer type."""
    section = fields.section(key)
    return section.section("full_attention") if "full_attention" in section else section


def rope_type(fields: Fields) -> tuple[str, str]:
    """The key that scales the rotary embedding and its type: ("rope_scaling", "dynamic")."""
    for key in ("rope_parameters", "rope_scaling"):
        section = rope_section(fields, key)
        kind = section.text("rope_type", None) or section.text("type", None)
        if kind is not None:
            return key, kind
    return "rope_scaling", "default"


def check_vision(fields: Fields, vision: VisionConfig, shuffle_factor: int) -> VisionConfig:
    """Checks the numbers that must fit each other and returns them unchanged."""
    if fields.integer("num_channels", 3) != 3:
        raise fields.refuse("num_channels", "3")
    if fields.text("hidden_act", "gelu") != "gelu":
        raise fields.refuse("hidden_act", "gelu (the exact, erf form)")
    if vision.hidden_size % vision.num_attention_heads:
        raise fields.refuse("num_attention_heads", f"a divisor of hidden_size = {vision.hidden_size}")
    if vision.position_grid < 1 or vision.grid < 1:
        raise fields.refuse("patch_size", f"at most the image size {vision.image_size}")
    if vision.grid % shuffle_factor:
        raise fields.refuse(
            "image_size",
            f"tiles whose {vision.grid} patches a side can be grouped by {shuffle_factor} (downsample_ratio)",
        )
    return vision


def read_norm_type(fields: Fields, default: str) -> NormType:
    """``norm_type`` of the vision tower."""
    try:
        return NormType(fields.text("norm_type", default))
    except ValueError:
        raise fields.refuse("norm_type", "layer_norm or rms_norm") from None


def read_shuffle_factor(fields: Fields) -> int:
    """k of the pixel shuffle: ``downsample_ratio`` = 1/k."""
    ratio = fields.number("downsample_ratio", 0.5)
    factor = round(1 / ratio)
    if ratio > 1 or abs(factor * ratio - 1) > 1e-6:
        raise fields.refuse("downsample_ratio", "1/k with an integer k, such as 0.5")
    return factor


def exported_layers(fields: Fields, key: str, layers: int) -> int:
    """How many layers are needed for the selected feature layer.

    ``key`` indexes the list [embeddings, output of layer 1, ..., output of layer L] the Python way.
    """
    value = fields.values.get(key, -1)
    if value is None:
        value = -1
    if isinstance(value, bool) or not isinstance(value, int) or not -(layers + 1) <= value <= layers:
        raise fields.refuse(key, f"one integer from {-(layers + 1)} to {layers}")
    return value if value >= 0 else layers + 1 + value
