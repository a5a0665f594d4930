"""Matrices of 4 or 8 bits in blocks, as the operator ``com.microsoft`` MatMulNBits takes them.

A row of a matrix [out, in] is cut into blocks of consecutive inputs. A block holds codes q, one scale s and one zero
point z; its weights are s * (q - z). Nothing but the weights is needed: no calibration data.

Rounding to the nearest code under the scale that just covers a block is far from the best a block can do: the outermost
weights decide the step of all others. Here several steps are tried; for the codes that each gives, the scale with the
least squared error is known in closed form (s = sum(w d) / sum(d^2) for d = q - z), and so is that error
(sum(w^2) - sum(w d)^2 / sum(d^2)). The best is kept.

Scales of 4-bit weights with zero points are *short*: float32 numbers of four bits of mantissa, those of a row among 256
neighbouring ones, so that a runtime may keep them in a byte each. The tried steps are then such numbers, and the scale
is the step: hardly more error, where float32 scales of blocks of 32 are a fifth of what is read.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from vintern_export.numbers import FloatArray

    Codes = npt.NDArray[np.uint8]

BLOCK_SIZES = (16, 32, 64, 128, 256)
CHUNK_VALUES = 1 << 17
"""Values worked on at a time: what the temporaries of the search leave in a core's cache."""
STEPS = {4: np.linspace(0.70, 1.05, 8, dtype=np.float32), 8: np.array([1.0], np.float32)}
"""Sizes of the step that are tried, over the step that covers the block."""
LEFT_OUT = 19
"""Lower bits of a float32 that are 0 in a short scale."""
SHORT_STEPS = range(-8, 2)
"""Short scales that are tried, 16 in an octave, counted from the one nearest to the step that covers the block."""
SHORT_SCALES = 256
"""Neighbouring short scales that a row may use."""
LEAST_SHORT = 1 << (23 - LEFT_OUT)
"""The least short scale, as a whole number: the least float32 that is not subnormal."""


@dataclass(frozen=True)
class BlockFormat:
    """How a matrix is stored.

    Attributes:
        bits: 4 or 8.
        block_size: weights of a block, one of :data:`BLOCK_SIZES`.
        symmetric: whether the zero point is always the middle code, and not stored.
    """

    bits: int
    block_size: int
    symmetric: bool

    @property
    def has_short_scales(self) -> bool:
        """Whether scales are short."""
        return self.bits == 4 and not self.symmetric

    @property
    def middle(self) -> int:
        """The code of zero when symmetric."""
        return 1 << (self.bits - 1)

    def blocks(self, inputs: int) -> int:
        """Blocks of a row."""
        return -(-inputs // self.block_size)


@dataclass(frozen=True)
class Blocks:
    """Rows of a quantised matrix.

    Attributes:
        codes: [rows, blocks, block size], one code a byte; zero points fill the last block.
        scales: [rows, blocks].
        zero_points: [rows, blocks].
    """

    codes: Codes
    scales: FloatArray
    zero_points: Codes

    def values(self, inputs: int) -> FloatArray:
        """The weights the codes stand for, [rows, inputs]."""
        distances = self.codes.astype(np.float32) - self.zero_points[..., None].astype(np.float32)
        return np.ascontiguousarray((distances * self.scales[..., None]).reshape(len(self.codes), -1)[:, :inputs])


def quantised(rows: FloatArray, form: BlockFormat, threads: int = 1) -> Blocks:
    """Rows [n, inputs] of a matrix as blocks."""
    count, inputs = rows.shape
    blocks, size = form.blocks(inputs), form.block_size
    codes = np.empty((count, blocks, size), np.uint8)
    scales = np.empty((count, blocks), np.float32)
    zero_points = np.empty((count, blocks), np.uint8)
    step = max(1, CHUNK_VALUES // (blocks * size))

    def work(start: int) -> None:
        part = slice(start, min(start + step, count))
        padded = np.pad(rows[part], ((0, 0), (0, blocks * size - inputs)))
        search = shortly_scaled_blocks if form.has_short_scales else best_blocks
        found = search(padded.reshape(-1, blocks, size), form)
        codes[part] = found[0].reshape(-1, blocks, size)
        scales[part], zero_points[part] = found[1].reshape(-1, blocks), found[2].reshape(-1, blocks)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(0, count, step)):
            pass
    return Blocks(codes, scales, zero_points)


def best_blocks(rows: FloatArray, form: BlockFormat) -> tuple[Codes, FloatArray, Codes]:
    """The least squared error of all tried.

    Codes [n, size], scales [n] and zero points [n] of the n blocks of rows [rows, blocks, size].
    """
    values = rows.reshape(-1, form.block_size)
    step, zero = covering_step(values, form)
    best = Best(values)
    for factor in STEPS[form.bits]:
        codes, product, square = rounded(values, step * factor, zero, form)
        scale = np.divide(product, square, out=np.zeros_like(product), where=square > 0)
        best.take(product * scale, codes, scale)
    return best.codes.astype(np.uint8), best.scales, zero.astype(np.uint8)


def shortly_scaled_blocks(rows: FloatArray, form: BlockFormat) -> tuple[Codes, FloatArray, Codes]:
    """As :func:`best_blocks`, with short scales."""
    values = rows.reshape(-1, form.block_size)
    step, zero = covering_step(values, form)
    nearest = (step.view(np.uint32).astype(np.int64) + (1 << (LEFT_OUT - 1))) >> LEFT_OUT
    most = nearest.reshape(len(rows), -1).max(axis=1) + SHORT_STEPS[-1]
    least = np.repeat(np.maximum(most - (SHORT_SCALES - 1), LEAST_SHORT), rows.shape[1])
    best = Best(values)
    for offset in SHORT_STEPS:
        scale = (np.maximum(nearest + offset, least) << LEFT_OUT).astype(np.uint32).view(np.float32)
        codes, product, square = rounded(values, scale, zero, form)
        # The squared weights less the squared error.
        best.take(scale * (2 * product - scale * square), codes, scale)
    return best.codes.astype(np.uint8), best.scales, zero.astype(np.uint8)


class Best:
    """The best codes and scales so far of some blocks."""

    def __init__(self, values: FloatArray) -> None:
        self._scores = np.full(len(values), -np.inf, np.float32)
        self.codes = np.empty(values.shape, np.float32)
        self.scales = np.zeros(len(values), np.float32)

    def take(self, scores: FloatArray, codes: FloatArray, scales: FloatArray) -> None:
        """Takes over those whose score is higher."""
        better = scores > self._scores
        self._scores[better], self.scales[better] = scores[better], scales[better]
        self.codes[better] = codes[better]


def rounded(
    values: FloatArray, step: FloatArray, zero: FloatArray, form: BlockFormat
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Codes [n, size] of blocks under a step [n], and sum(w d) and sum(d^2) for d = q - z, [n] each."""
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step != 0)
    codes = values * inverse[:, None]
    np.rint(codes, out=codes)
    codes += zero[:, None]
    np.clip(codes, 0, np.float32(2 * form.middle - 1), out=codes)
    distances = codes - zero[:, None]
    return codes, np.einsum("ns,ns->n", values, distances), np.einsum("ns,ns->n", distances, distances)


def covering_step(values: FloatArray, form: BlockFormat) -> tuple[FloatArray, FloatArray]:
    """The step [n] that covers each block, and its zero point [n].

    When symmetric the weight of largest magnitude gets code 0, which lies further from the middle than the last code;
    the step is negative where that weight is positive.
    """
    if form.symmetric:
        rows = np.arange(len(values))
        extreme = values[rows, np.abs(values).argmax(axis=1)]
        return extreme / np.float32(-form.middle), np.full(len(values), form.middle, np.float32)
    low = np.minimum(values.min(axis=1), 0)
    high = np.maximum(values.max(axis=1), 0)
    step = (high - low) / np.float32(2 * form.middle - 1)
    zero = np.rint(np.divide(-low, step, out=np.zeros_like(low), where=step > 0))
    return step, zero


def packed_codes(codes: Codes, bits: int) -> npt.NDArray[Any]:
    """Codes [rows, blocks, size] as the operator stores them: bytes, of two 4-bit codes the first in the low bits."""
    if bits == 8:
        return codes
    return np.ascontiguousarray(codes[..., ::2] | (codes[..., 1::2] << np.uint8(4)))


def packed_zero_points(zero_points: Codes, bits: int) -> npt.NDArray[Any]:
    """Zero points [rows, blocks] as the operator stores them: bytes of a row, two 4-bit ones in each."""
    if bits == 8:
        return zero_points
    even = np.pad(zero_points, ((0, 0), (0, zero_points.shape[1] % 2)))
    return np.ascontiguousarray(even[:, ::2] | (even[:, 1::2] << np.uint8(4)))
