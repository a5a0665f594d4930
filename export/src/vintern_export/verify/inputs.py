"""Deterministic inputs that exercise the graphs, unusual magnitudes included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from vintern_export.verify.files import embedding_rows

if TYPE_CHECKING:
    from pathlib import Path

    from vintern_export.manifest import Manifest
    from vintern_export.numbers import FloatArray

TEXT = "Hãy mô tả hình ảnh này một cách chi tiết. What is the total amount on this receipt?"
MAX_TEXT_TOKENS = 24
OUTLIER_POSITIONS = 15
OUTLIER_CHANNELS = 3
OUTLIER_FACTOR = 100.0
MASSIVE_FACTOR = 30.0


@dataclass(frozen=True)
class Inputs:
    """Inputs of all graphs.

    Attributes:
        pixel_values: [2, 3, S, S] in the range of normalised images.
        input_ids: a text prompt.
        text: its embeddings [m, H].
        outliers: embeddings [15, H] with a massive first position and a few outlier channels.
    """

    pixel_values: FloatArray
    input_ids: list[int]
    text: FloatArray
    outliers: FloatArray


def make_inputs(folder: Path, manifest: Manifest) -> Inputs:
    """The inputs for a package; the same package always gets the same ones."""
    generator = np.random.Generator(np.random.PCG64(20241022))
    tokenizer = Tokenizer.from_file(str(folder / manifest["tokenizer"]["file"]["name"]))
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids[:MAX_TEXT_TOKENS]
    text = embedding_rows(folder, manifest, ids)
    hidden = text.shape[1]
    outliers = generator.standard_normal((OUTLIER_POSITIONS, hidden), dtype=np.float32) * text.std()
    outliers[0] *= np.float32(MASSIVE_FACTOR)
    outliers[:, generator.choice(hidden, min(hidden, OUTLIER_CHANNELS), replace=False)] *= np.float32(OUTLIER_FACTOR)
    return Inputs(pixel_values(generator, manifest["architecture"]["image_size"]), ids, text, outliers)


def pixel_values(generator: np.random.Generator, side: int) -> FloatArray:
    """Two tiles [2, 3, S, S]: a drawing with flat areas, lines and a gradient, and noise. Range about -2.1 to 2.6."""
    axis = np.linspace(0, 1, side, dtype=np.float32)
    drawing = np.stack([np.add.outer(axis, axis) / 2, np.subtract.outer(axis, axis) / 2 + 0.5, np.outer(axis, axis)])
    drawing[:, side // 4 : side // 2, side // 8 : side // 3] = 1.0
    drawing[:, :: max(2, side // 9), side // 2 :] = 0.0
    noise = generator.random((3, side, side), dtype=np.float32)
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
    deviation = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
    return ((np.stack([drawing, noise]).astype(np.float32) - mean) / deviation).astype(np.float32)
