"""Tensors of safetensors files as ranges of bytes: they are renamed and moved, never computed with."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file: ``size`` bytes from ``offset``, row by row."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size: int

    def rows(self, block: int, blocks: int) -> StoredTensor:
        """The ``block``-th of so many equal blocks of rows."""
        size = self.size // blocks
        shape = (self.shape[0] // blocks, *self.shape[1:])
        return replace(self, shape=shape, offset=self.offset + block * size, size=size)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a checkpoint by name."""
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            tensors[name] = StoredTensor(entry["dtype"], tuple(entry["shape"]), file, 8 + length + begin, end - begin)
    return tensors


def write_tensors(file: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """One safetensors file with these tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.size]}
        end += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            with tensor.file.open("rb") as source:
                source.seek(tensor.offset)
                left = tensor.size
                while left:
                    data = source.read(min(left, COPY_BYTES))
                    if not data:
                        raise EOFError(f"{tensor.file} ends too early")
                    out.write(data)
                    left -= len(data)
