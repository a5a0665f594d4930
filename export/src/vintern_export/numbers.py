"""Number formats: how weights are stored in checkpoints, and how they are written to graphs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
RawArray = npt.NDArray[Any]
"""Weights as stored: float32, float16, or bfloat16 as its 16 bits in uint16."""


@dataclass(frozen=True)
class StoredDtype:
    """A checkpoint number format: its safetensors name, the NumPy type of its bits, and its name in a manifest."""

    name: str
    raw: np.dtype[Any]
    manifest_name: str


BF16 = StoredDtype("BF16", np.dtype("<u2"), "bf16")
F16 = StoredDtype("F16", np.dtype("<f2"), "fp16")
F32 = StoredDtype("F32", np.dtype("<f4"), "fp32")
DTYPES = {dtype.name: dtype for dtype in (BF16, F16, F32)}


class Precision(Enum):
    """Number format of a graph's arithmetic, and of its weights where they are not quantised."""

    FP32 = "fp32"
    FP16 = "fp16"


def to_float32(raw: RawArray, dtype: StoredDtype) -> FloatArray:
    """Stored bits as float32, exactly. A bfloat16 is the upper half of a float32."""
    if dtype is BF16:
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.astype(np.float32, copy=False)


def to_bfloat16_bits(values: FloatArray) -> RawArray:
    """float32 rounded to the nearest bfloat16 (ties to even), as its 16 bits. Finite values only."""
    bits = values.view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)
