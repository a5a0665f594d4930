"""The few functions a transformer is made of, in NumPy."""

from __future__ import annotations

import math

import numpy as np

from vintern_export.numbers import FloatArray

ERF_STEP = 1 / 256
ERF_LIMIT = 4.0
"""erf is 1 to float32 precision beyond this."""
_GRID = np.arange(0, ERF_LIMIT + 2 * ERF_STEP, ERF_STEP)
_ERF = np.array([math.erf(x) for x in _GRID])
_SLOPE = 2 / math.sqrt(math.pi) * np.exp(-(_GRID**2)) * ERF_STEP


def erf(x: FloatArray) -> FloatArray:
    """The error function, by cubic Hermite interpolation between exact values; absolute error below 1e-10."""
    magnitude = np.minimum(np.abs(x.astype(np.float64)), ERF_LIMIT)
    index = (magnitude / ERF_STEP).astype(np.int64)
    t = magnitude / ERF_STEP - index
    low, high = _ERF[index], _ERF[index + 1]
    rise = high - low
    a, b = _SLOPE[index] - rise, rise - _SLOPE[index + 1]
    value = low + t * rise + t * (1 - t) * (a * (1 - t) + b * t)
    return np.copysign(value, x).astype(np.float32)


def gelu(x: FloatArray) -> FloatArray:
    """Exact GELU: x/2 * (1 + erf(x / sqrt 2))."""
    return np.float32(0.5) * x * (np.float32(1) + erf(x * np.float32(math.sqrt(0.5))))


def silu(x: FloatArray) -> FloatArray:
    """x * sigmoid(x), without overflow for large negative x."""
    exponential = np.exp(-np.abs(x))
    sigmoid = np.where(x >= 0, 1 / (1 + exponential), exponential / (1 + exponential))
    return (x * sigmoid).astype(np.float32)


def softmax(scores: FloatArray) -> FloatArray:
    """Softmax over the last axis; entries of -inf become 0."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def layer_norm(x: FloatArray, weight: FloatArray, bias: FloatArray, epsilon: float) -> FloatArray:
    """LayerNorm over the last axis."""
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = np.mean(centred**2, axis=-1, keepdims=True)
    return (centred / np.sqrt(variance + epsilon) * weight + bias).astype(np.float32)


def rms_norm(x: FloatArray, weight: FloatArray, epsilon: float) -> FloatArray:
    """RMSNorm over the last axis."""
    wide = x.astype(np.float64)
    return (wide / np.sqrt(np.mean(wide**2, axis=-1, keepdims=True) + epsilon) * weight).astype(np.float32)


def split_heads(x: FloatArray, heads: int) -> FloatArray:
    """[positions, heads * D] -> [heads, positions, D]."""
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def join_heads(x: FloatArray) -> FloatArray:
    """[heads, positions, D] -> [positions, heads * D]."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)
