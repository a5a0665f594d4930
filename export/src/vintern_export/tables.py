"""Tables computed at export: rotary cosines and sines, and the position embedding at the tile's grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vintern_export.numbers import FloatArray

CUBIC_A = -0.75
"""Coefficient of the bicubic kernel that PyTorch's ``interpolate`` uses."""


def rotary_tables(head_dim: int, theta: float, length: int) -> tuple[FloatArray, FloatArray]:
    """Cosines and sines of the rotary embedding, each [length, head_dim / 2].

    Follows the reference's float32 steps: inv_freq_i = 1 / theta^(2i / head_dim), angle = position * inv_freq_i, with
    every step rounded to float32. The power and the cosine are evaluated in float64 and rounded once, which is what a
    correctly rounded float32 function returns.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    power = np.power(np.float64(np.float32(theta)), exponent.astype(np.float64)).astype(np.float32)
    inv_freq = np.float32(1.0) / power
    angle = np.outer(np.arange(length, dtype=np.float32), inv_freq).astype(np.float64)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def resize_position_embedding(table: FloatArray, grid: int) -> FloatArray:
    """Fits a position embedding [1 + g*g, C] to a grid of ``grid`` x ``grid`` patches: [1 + grid*grid, C].

    The class token's row stays. The others are resized as ``torch.nn.functional.interpolate`` does it: bicubic with
    A = -0.75, align_corners false, no antialiasing, borders clamped. The same size is an exact identity.
    """
    stored = round((len(table) - 1) ** 0.5)
    if stored == grid:
        return table
    weights = bicubic_matrix(stored, grid)
    rows = table[1:].reshape(stored, stored, -1).astype(np.float64)
    resized = np.einsum("ya,xb,abc->yxc", weights, weights, rows, optimize=True)
    return np.concatenate([table[:1], resized.reshape(grid * grid, -1).astype(np.float32)])


def bicubic_matrix(source: int, target: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Weights [target, source] of a bicubic resize along one axis.

    Coordinates and kernel values are float32, as in the reference; only the sums that use them are float64.
    """
    scale = np.float32(source) / np.float32(target)
    matrix = np.zeros((target, source), np.float64)
    for index in range(target):
        centre = scale * (np.float32(index) + np.float32(0.5)) - np.float32(0.5)
        low = int(np.floor(centre))
        fraction = centre - np.float32(low)
        for tap in range(-1, 3):
            position = min(max(low + tap, 0), source - 1)
            matrix[index, position] += cubic_kernel(abs(fraction - np.float32(tap)))
    return matrix


def cubic_kernel(distance: np.float32) -> np.float32:
    """Keys' cubic convolution kernel with A = -0.75, for 0 <= distance <= 2."""
    a = np.float32(CUBIC_A)
    if distance <= 1:
        return ((a + np.float32(2)) * distance - (a + np.float32(3))) * distance * distance + np.float32(1)
    return ((a * distance - np.float32(5) * a) * distance + np.float32(8) * a) * distance - np.float32(4) * a
