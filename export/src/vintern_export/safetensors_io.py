"""Reading and writing safetensors files piece by piece, so that no whole file is ever in memory.

Format: an 8-byte little-endian header length, a JSON header ``{name: {dtype, shape, data_offsets}}``, the data.
Files are read with positioned reads rather than mapped: mapped pages would count as resident memory.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.numbers import DTYPES, StoredDtype

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from vintern_export.numbers import RawArray

MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""
READ_BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class TensorEntry:
    """A tensor's place in a file: dtype, shape, and absolute byte range."""

    dtype: StoredDtype
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """An open safetensors file. ``dtypes_refused`` holds tensors of types that cannot be exported, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self.entries: dict[str, TensorEntry] = {}
        self.dtypes_refused: dict[str, str] = {}
        try:
            self._read_header()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; further reads fail."""
        os.close(self._descriptor)

    def _damaged(self, what: str) -> UnsupportedCheckpointError:
        return UnsupportedCheckpointError(self.path.name, what, "a complete safetensors file", "Download it again.")

    def _read_header(self) -> None:
        size = os.fstat(self._descriptor).st_size
        prefix = os.pread(self._descriptor, 8, 0)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise self._damaged(f"{size} bytes without a valid header")
        try:
            header = json.loads(os.pread(self._descriptor, length, 8))
        except ValueError as error:
            raise self._damaged(f"a header that is not JSON ({error})") from error
        data_start = 8 + length
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (data_start + int(offset) for offset in entry["data_offsets"])
            shape = tuple(int(n) for n in entry["shape"])
            dtype = DTYPES.get(entry["dtype"])
            if dtype is None:
                self.dtypes_refused[name] = str(entry["dtype"])
                continue
            if end > size:
                raise self._damaged(f"{size} bytes where tensor {name} ends at byte {end}")
            if end - begin != math.prod(shape) * dtype.raw.itemsize:
                raise self._damaged(f"tensor {name} with {end - begin} bytes for shape {list(shape)} {dtype.name}")
            self.entries[name] = TensorEntry(dtype, shape, begin, end)

    def read_into(self, buffer: RawArray, offset: int) -> None:
        """Fills a C-contiguous ``buffer`` with the file's bytes from ``offset`` on."""
        view = memoryview(buffer.reshape(-1).view(np.uint8).data)
        done = 0
        while done < len(view):
            count = os.preadv(self._descriptor, [view[done : done + READ_BLOCK_BYTES]], offset + done)
            if count == 0:
                raise self._damaged(f"an end of file at byte {offset + done}")
            done += count


def safetensors_header(tensors: list[tuple[str, StoredDtype, tuple[int, ...]]]) -> bytes:
    """The length prefix and header of a file that holds ``tensors`` in this order, padded to 8 bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + math.prod(shape) * dtype.raw.itemsize
        header[name] = {"dtype": dtype.name, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
