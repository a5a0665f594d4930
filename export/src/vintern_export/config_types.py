"""The parsed configuration: plain numbers, independent of the checkpoint's layout."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Layout(Enum):
    """How a checkpoint names its configuration keys and tensors."""

    ORIGINAL = "internvl_chat"
    """``InternVLChatModel``, the class shipped in model folders of the OpenGVLab family."""
    TRANSFORMERS = "transformers"
    """``InternVLForConditionalGeneration`` of the transformers library."""


class NormType(Enum):
    """Normalisation of the vision tower."""

    LAYER_NORM = "layer_norm"
    RMS_NORM = "rms_norm"


class Unset(Enum):
    """Tells a key that is absent from one that is present and null."""

    UNSET = 0


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower.

    ``image_size`` is the side of a tile; ``position_grid`` the side of the stored position grid, in patches, which is
    resized when it differs from ``grid``. ``num_hidden_layers`` counts the layers in the checkpoint,
    ``num_exported_layers`` those up to the selected feature layer.
    """

    image_size: int
    patch_size: int
    position_grid: int
    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    num_exported_layers: int
    intermediate_size: int
    qkv_bias: bool
    qk_normalization: bool
    norm_type: NormType
    layer_norm_eps: float
    qk_norm_eps: float

    @property
    def grid(self) -> int:
        """Patches on a side of a tile."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches of a tile."""
        return self.grid**2


@dataclass(frozen=True)
class LanguageConfig:
    """The Qwen2 language model."""

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_hidden_layers: int
    intermediate_size: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of all key (or value) heads together."""
        return self.num_key_value_heads * self.head_dim


@dataclass(frozen=True)
class ModelConfig:
    """A whole checkpoint.

    ``shuffle_factor`` is k of the pixel shuffle: k x k patches become one token. ``transposed_tokens`` is true for
    ``ps_version`` v1, which orders the tokens column by column. ``template`` is None where the layout has no such key.
    ``says_untied``: the configuration asks for an output matrix of its own; whether there is one, the weights decide.
    """

    layout: Layout
    vision: VisionConfig
    language: LanguageConfig
    shuffle_factor: int
    transposed_tokens: bool
    template: str | None
    system_message: str | Unset | None
    says_untied: bool
    image_token_id: int | None

    @property
    def tokens_per_tile(self) -> int:
        """Image tokens a tile becomes."""
        return (self.vision.grid // self.shuffle_factor) ** 2

    @property
    def projector_input_size(self) -> int:
        """Channels of a token after the pixel shuffle."""
        return self.vision.hidden_size * self.shuffle_factor**2
