"""The few functions a transformer is made of, in NumPy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from vintern_export.numbers import FloatArray

ERF_STEP = 1 / 256
ERF_LIMIT = 4.0
"""erf is 1 to float32 precision beyond this."""
_GRID = np.arange(0, ERF_LIMIT + 2 * ERF_STEP, ERF_STEP)
_ERF = np.array([math.erf(x) for x in _GRID])
_SLOPE = 2 / math.sqrt(math.pi) * np.exp(-(_GRID**2)) * ERF_STEP


def float32(x: npt.ArrayLike) -> FloatArray:
    """Rounds to float32."""
    return np.asarray(x, dtype=np.float32)


def erf(x: FloatArray) -> FloatArray:
    """The error function, by cubic Hermite interpolation between exact values; absolute error below 1e-10."""
    magnitude = np.minimum(np.abs(x.astype(np.float64)), ERF_LIMIT)
    index = (magnitude / ERF_STEP).astype(np.int64)
    t = magnitude / ERF_STEP - index
    low, high = _ERF[index], _ERF[index + 1]
    rise = high - low
    a, b = _SLOPE[index] - rise, rise - _SLOPE[index + 1]
    value = low + t * rise + t * (1 - t) * (a * (1 - t) + b * t)
    return float32(np.copysign(value, x))


def gelu(x: FloatArray) -> FloatArray:
    """Exact GELU: x/2 * (1 + erf(x / sqrt 2))."""
    return np.float32(0.5) * x * (np.float32(1) + erf(x * np.float32(math.sqrt(0.5))))


def silu(x: FloatArray) -> FloatArray:
    """x * sigmoid(x), without overflow for large negative x."""
    exponential = np.exp(-np.abs(x))
    sigmoid = np.where(x >= 0, 1 / (1 + exponential), exponential / (1 + exponential))
    return float32(x * sigmoid)


def softmax(scores: npt.NDArray[np.floating]) -> FloatArray:
    """Softmax over the last axis; entries of -inf become 0."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return float32(weights / weights.sum(axis=-1, keepdims=True))


def layer_norm(x: FloatArray, weight: FloatArray, bias: FloatArray, epsilon: float) -> FloatArray:
    """LayerNorm over the last axis."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = np.mean(centred**2, axis=-1, keepdims=True)
    return float32(centred / np.sqrt(variance + epsilon) * weight + bias)


def rms_norm(x: FloatArray, weight: FloatArray, epsilon: float) -> FloatArray:
    """RMSNorm over the last axis."""
    wide = x.astype(np.float64)
    return float32(wide / np.sqrt(np.mean(wide**2, axis=-1, keepdims=True) + epsilon) * weight)


def split_heads(x: FloatArray, heads: int) -> FloatArray:
    """[positions, heads * D] -> [heads, positions, D]."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def join_heads(x: FloatArray) -> FloatArray:
    """[heads, positions, D] -> [positions, heads * D]."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)
