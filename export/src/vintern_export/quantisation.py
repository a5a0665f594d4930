"""Matrices of 4 or 8 bits in blocks, as the operator ``com.microsoft`` MatMulNBits takes them.

A row of a matrix [out, in] is cut into blocks of consecutive inputs. A block holds codes q, one scale s and one zero
point z; its weights are s * (q - z). Nothing but the weights is needed: no calibration data.

Rounding to the nearest code under the scale that just covers a block is far from the best a block can do: the outermost
weights decide the step of all others. Here several steps are tried; for the codes that each gives, the scale with the
least squared error is known in closed form (s = sum(w d) / sum(d^2) for d = q - z), and so is that error
(sum(w^2) - sum(w d)^2 / sum(d^2)). The best is kept.
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
        found = best_blocks(padded.reshape(-1, size), form)
        codes[part] = found[0].reshape(-1, blocks, size)
        scales[part], zero_points[part] = found[1].reshape(-1, blocks), found[2].reshape(-1, blocks)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(0, count, step)):
            pass
    return Blocks(codes, scales, zero_points)


def best_blocks(values: FloatArray, form: BlockFormat) -> tuple[Codes, FloatArray, Codes]:
    """Codes [n, size], scales [n] and zero points [n] of blocks [n, size]: the least squared error of all tried."""
    step, zero = covering_step(values, form)
    best_score = np.full(len(values), -1.0, np.float32)
    best_codes = np.empty(values.shape, np.float32)
    best_scale = np.zeros(len(values), np.float32)
    top = np.float32(2 * form.middle - 1)
    for factor in STEPS[form.bits]:
        tried = step * factor
        inverse = np.divide(1, tried, out=np.zeros_like(tried), where=tried != 0)
        codes = values * inverse[:, None]
        np.rint(codes, out=codes)
        codes += zero[:, None]
        np.clip(codes, 0, top, out=codes)
        distances = codes - zero[:, None]
        product = np.einsum("ns,ns->n", values, distances)
        square = np.einsum("ns,ns->n", distances, distances)
        scale = np.divide(product, square, out=np.zeros_like(product), where=square > 0)
        score = product * scale
        better = score > best_score
        best_score[better], best_scale[better] = score[better], scale[better]
        best_codes[better] = codes[better]
    return best_codes.astype(np.uint8), best_scale, zero.astype(np.uint8)


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
