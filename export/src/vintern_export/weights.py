"""Weights of a graph as streams: each yields its values in order, in pieces of bounded size.

A graph is built from shapes alone; the values are read, converted and written only when its data file is written.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vintern_export.numbers import BF16, FloatArray, to_float32

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vintern_export.numbers import RawArray, StoredDtype

BLOCK_BYTES = 32 << 20
"""Size of the pieces a weight is produced in."""
HELD_BYTES = 1 << 30
"""Most stored bytes held at once while a matrix is transposed; a larger one is read in several passes."""
TILE_ROWS, TILE_COLUMNS = 256, 64
"""Tile of a transposition that stays in the level-1 cache."""


class Weight(Protocol):
    """A tensor of a graph."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the graph."""

    @property
    def dtype(self) -> str | None:
        """What is stored as it is; None for values, which are stored in the precision of the graph's arithmetic."""

    def pieces(self) -> Iterator[RawArray]:
        """Consecutive pieces in C order, contiguous: of ``dtype``, or values in float32."""


class MatrixSource(Protocol):
    """A stored matrix [out, in] that is read by columns or by rows; see ``TensorSource``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape."""

    @property
    def dtype(self) -> StoredDtype:
        """Number format of the stored bits."""

    def read_columns(self, start: int, stop: int, block_bytes: int) -> RawArray:
        """Columns ``start:stop`` as stored bits, with at most ``block_bytes`` of extra memory."""

    def row_blocks(self, block_bytes: int) -> Iterator[tuple[int, RawArray]]:
        """(first row, rows as stored bits) in order, each block about ``block_bytes``."""


class ArrayWeight:
    """Values that were computed at export; ``half`` stores them in float16 whatever the graph's arithmetic."""

    def __init__(self, values: FloatArray, *, half: bool = False) -> None:
        self.dtype = "fp16" if half else None
        self._values: RawArray = np.ascontiguousarray(values, dtype=np.float16 if half else np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the graph."""
        return self._values.shape

    def pieces(self) -> Iterator[RawArray]:
        """The whole array."""
        yield self._values


class PlainWeight:
    """Tensors of the checkpoint as they are, joined along the first axis: vectors, or the parts of a packed bias."""

    dtype = None

    def __init__(self, *sources: MatrixSource, scale: FloatArray | None = None) -> None:
        self._sources = sources
        self._scale = scale
        self.shape = (sum(source.shape[0] for source in sources), *sources[0].shape[1:])

    def pieces(self) -> Iterator[FloatArray]:
        """The values, multiplied by ``scale`` [rows] where given."""
        row = 0
        for source in self._sources:
            for start, raw in source.row_blocks(BLOCK_BYTES):
                values = to_float32(raw, source.dtype)
                if self._scale is not None:
                    first = row + start
                    factor = self._scale[first : first + len(values)]
                    values = values * factor.reshape(-1, *(1,) * (values.ndim - 1))
                yield np.ascontiguousarray(values)
            row += source.shape[0]


class LinearWeight:
    """Linear weights [out, in] turned into one matrix [in, sum of out] for a MatMul.

    ``scale`` [sum of out] multiplies the outputs (a layer scale folded into the projection before it).
    """

    dtype = None

    def __init__(self, sources: Sequence[MatrixSource], scale: FloatArray | None = None) -> None:
        self._sources = list(sources)
        self._scale = scale
        self.inputs = math.prod(sources[0].shape[1:])
        self.outputs = sum(source.shape[0] for source in sources)

    @property
    def shape(self) -> tuple[int, ...]:
        """[in, sum of out]."""
        return (self.inputs, self.outputs)

    def pieces(self) -> Iterator[FloatArray]:
        """Blocks of rows of the transposed matrix."""
        stored_column_bytes = sum(source.shape[0] * source.dtype.raw.itemsize for source in self._sources)
        held = max(1, min(self.inputs, HELD_BYTES // stored_column_bytes))
        step = max(1, min(held, BLOCK_BYTES // (4 * self.outputs)))
        for low in range(0, self.inputs, held):
            high = min(low + held, self.inputs)
            parts = [(source.read_columns(low, high, BLOCK_BYTES), source.dtype) for source in self._sources]
            for start in range(low, high, step):
                stop = min(start + step, high)
                yield self._block(parts, start - low, stop - low)

    def rows(self) -> Iterator[FloatArray]:
        """Blocks of rows of the matrix as it is stored, [sum of out, in]."""
        for values in PlainWeight(*self._sources, scale=self._scale).pieces():
            yield values.reshape(len(values), -1)

    def _block(self, parts: list[tuple[RawArray, StoredDtype]], start: int, stop: int) -> FloatArray:
        out = np.empty((stop - start, self.outputs), np.float32)
        column = 0
        for raw, dtype in parts:
            transpose_into(out[:, column : column + len(raw)], raw[:, start:stop], dtype)
            column += len(raw)
        return out if self._scale is None else out * self._scale


def transpose_into(out: FloatArray, raw: RawArray, dtype: StoredDtype) -> None:
    """Writes the float32 transpose of ``raw`` [rows, columns] into ``out`` [columns, rows], tile by tile."""
    target: RawArray = out.view(np.uint32) if dtype is BF16 else out
    for column in range(0, raw.shape[1], TILE_COLUMNS):
        for row in range(0, raw.shape[0], TILE_ROWS):
            tile = raw[row : row + TILE_ROWS, column : column + TILE_COLUMNS]
            target[column : column + TILE_COLUMNS, row : row + TILE_ROWS] = tile.T
    if dtype is BF16:
        target <<= np.uint32(16)


def element_count(weight: Weight) -> int:
    """Number of values of a weight."""
    return math.prod(weight.shape)
