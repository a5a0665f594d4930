"""Attention heads widened with zeros, for head sizes the decoder's attention operator does not take.

GroupQueryAttention with rotary embedding wants head sizes divisible by 16. The rotary embedding turns channel i with
channel i + D/2, so each half of a head gets its own zeros at the end. Zero queries and keys add nothing to a score, and
zero values make output channels that meet zero weights: the result is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from vintern_export.checkpoint import TensorSource
    from vintern_export.numbers import FloatArray, RawArray, StoredDtype
    from vintern_export.weights import MatrixSource

HEAD_SIZE_MULTIPLE = 16


def padded_head_dim(head_dim: int) -> int:
    """The smallest head size the operator takes that holds ``head_dim`` channels."""
    return -(-head_dim // HEAD_SIZE_MULTIPLE) * HEAD_SIZE_MULTIPLE


def channel_places(channels: int, head_dim: int) -> npt.NDArray[np.intp]:
    """Where each of ``channels`` = heads * head_dim channels stands among heads * padded_head_dim."""
    half = padded_head_dim(head_dim) // 2
    padded_channels = channels // head_dim * 2 * half
    return np.flatnonzero(np.arange(padded_channels) % half < head_dim // 2)


def padded_vector(values: FloatArray, head_dim: int) -> FloatArray:
    """A vector over heads * head_dim channels, widened: a projection's bias."""
    out = np.zeros(len(values) // head_dim * padded_head_dim(head_dim), np.float32)
    out[channel_places(len(values), head_dim)] = values
    return out


def padded_rotary(cosines: FloatArray, sines: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rotary tables [length, head_dim / 2], widened by angles of zero: cosine 1, sine 0."""
    half = cosines.shape[1]
    width = ((0, 0), (0, padded_head_dim(2 * half) // 2 - half))
    return np.pad(cosines, width, constant_values=1), np.pad(sines, width)


def widened_rows(source: TensorSource, head_dim: int) -> MatrixSource:
    """The projection [heads * head_dim, in] to queries, keys or values with heads the operator takes."""
    return source if head_dim == padded_head_dim(head_dim) else PaddedRows(source, head_dim)


def widened_columns(source: TensorSource, head_dim: int) -> MatrixSource:
    """The projection [out, heads * head_dim] of the attention's output with heads the operator takes."""
    return source if head_dim == padded_head_dim(head_dim) else PaddedColumns(source, head_dim)


class PaddedRows:
    """A projection [heads * head_dim, in] whose heads are widened by rows of zeros."""

    def __init__(self, source: TensorSource, head_dim: int) -> None:
        self._source = source
        self._places = channel_places(source.shape[0], head_dim)
        self.dtype: StoredDtype = source.dtype
        self.shape = (source.shape[0] // head_dim * padded_head_dim(head_dim), *source.shape[1:])

    def read_columns(self, start: int, stop: int, block_bytes: int) -> RawArray:
        """Columns ``start:stop`` as stored bits; zero is all bits zero in every number format."""
        out = np.zeros((self.shape[0], stop - start), self.dtype.raw)
        for row, block in self._source.row_blocks(block_bytes):
            out[self._places[row : row + len(block)]] = block[:, start:stop]
        return out

    def row_blocks(self, block_bytes: int) -> Iterator[tuple[int, RawArray]]:
        """The widened matrix at once: the projections of attention are small."""
        yield 0, self.read_columns(0, self.shape[1], block_bytes)


class PaddedColumns:
    """A projection [out, heads * head_dim] whose heads are widened by columns of zeros."""

    def __init__(self, source: TensorSource, head_dim: int) -> None:
        self._source = source
        self._places = channel_places(source.shape[1], head_dim)
        self.dtype: StoredDtype = source.dtype
        self.shape = (source.shape[0], source.shape[1] // head_dim * padded_head_dim(head_dim))

    def read_columns(self, start: int, stop: int, block_bytes: int) -> RawArray:
        """Columns ``start:stop`` of the widened matrix as stored bits."""
        out = np.zeros((self.shape[0], stop - start), self.dtype.raw)
        first, last = np.searchsorted(self._places, (start, stop))
        places = self._places[first:last] - start
        for row, block in self._source.row_blocks(block_bytes):
            out[row : row + len(block), places] = block[:, first:last]
        return out

    def row_blocks(self, block_bytes: int) -> Iterator[tuple[int, RawArray]]:
        """The widened matrix at once: the projections of attention are small."""
        yield 0, self.read_columns(0, self.shape[1], block_bytes)
