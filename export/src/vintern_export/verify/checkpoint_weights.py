"""Weights and sizes for the NumPy evaluation, straight from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vintern_export.config_types import NormType
from vintern_export.layout import EMBED_TOKENS, LM_HEAD
from vintern_export.numbers import to_float32
from vintern_export.tables import resize_position_embedding, rotary_tables
from vintern_export.verify.reference import Architecture, Rotary

if TYPE_CHECKING:
    from vintern_export.checkpoint import Checkpoint
    from vintern_export.numbers import FloatArray

BLOCK_BYTES = 64 << 20
EMBEDDINGS = "vision_model.embeddings."


class CheckpointWeights:
    """Weights as the checkpoint stores them. Matrices are [out, in]."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def vector(self, name: str) -> FloatArray | None:
        """A vector, or None."""
        return self._checkpoint[name].float32() if name in self._checkpoint else None

    def apply(self, name: str, x: FloatArray) -> FloatArray:
        """x @ W^T + b, in blocks of output rows."""
        if f"{name}.weight" == LM_HEAD and LM_HEAD not in self._checkpoint:
            name = EMBED_TOKENS.removesuffix(".weight")
        source = self._checkpoint[f"{name}.weight"]
        out = np.empty((len(x), source.shape[0]), np.float32)
        for row, raw in source.row_blocks(BLOCK_BYTES):
            out[:, row : row + len(raw)] = x @ to_float32(raw, source.dtype).T
        bias = self.vector(f"{name}.bias")
        return out if bias is None else out + bias

    def patch_kernel(self) -> FloatArray:
        """[3 * patch * patch, C]."""
        kernel = self._checkpoint[f"{EMBEDDINGS}patch_embedding.weight"].float32()
        return kernel.reshape(len(kernel), -1).T

    def token_offsets(self) -> FloatArray:
        """[1 + patches, C]."""
        stored = self._checkpoint[f"{EMBEDDINGS}position_embedding"].float32()[0]
        positions = resize_position_embedding(stored, self._checkpoint.config.vision.grid)
        first = self._checkpoint[f"{EMBEDDINGS}class_embedding"].float32()[0]
        bias = self._checkpoint[f"{EMBEDDINGS}patch_embedding.bias"].float32()
        return np.concatenate([first + positions[:1], bias + positions[1:]])

    def rotary(self) -> Rotary:
        """Tables from the configuration."""
        language = self._checkpoint.config.language
        return Rotary(*rotary_tables(language.head_dim, language.rope_theta, language.max_position_embeddings))

    def architecture(self) -> Architecture:
        """The sizes of the configuration."""
        config = self._checkpoint.config
        vision, language = config.vision, config.language
        return Architecture(
            patch_size=vision.patch_size,
            vision_layers=vision.num_exported_layers,
            vision_heads=vision.num_attention_heads,
            vision_eps=vision.layer_norm_eps,
            vision_rms=vision.norm_type is NormType.RMS_NORM,
            qk_eps=vision.qk_norm_eps,
            shuffle_factor=config.shuffle_factor,
            transposed_tokens=config.transposed_tokens,
            layers=language.num_hidden_layers,
            heads=language.num_attention_heads,
            key_value_heads=language.num_key_value_heads,
            rms_eps=language.rms_norm_eps,
        )
