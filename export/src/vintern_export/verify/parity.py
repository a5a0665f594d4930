"""Stores reference results in a package, so that a runtime without NumPy can check itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from vintern_export.manifest import MANIFEST_NAME, Manifest, manifest_bytes
from vintern_export.output import write_file

if TYPE_CHECKING:
    from pathlib import Path

PARITY_NAME = "parity.safetensors"
DTYPE_NAMES = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}


def record_parity(folder: Path, manifest: Manifest, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """Writes ``parity.safetensors`` and its manifest entry; an older one is replaced. The manifest changes last."""
    staged = folder / f".{PARITY_NAME}.partial"
    staged.unlink(missing_ok=True)
    try:
        record = write_file(staged, safetensors_bytes(tensors))
        updated = manifest | {"parity": {"file": record.as_json() | {"name": PARITY_NAME}}}
        staged_manifest = folder / f".{MANIFEST_NAME}.partial"
        staged_manifest.unlink(missing_ok=True)
        write_file(staged_manifest, manifest_bytes(updated))
        staged.replace(folder / PARITY_NAME)
        staged_manifest.replace(folder / MANIFEST_NAME)
    finally:
        staged.unlink(missing_ok=True)


def safetensors_bytes(tensors: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """A small safetensors file."""
    header: dict[str, Any] = {}
    offset = 0
    for name, array in tensors.items():
        header[name] = {
            "dtype": DTYPE_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(array.tobytes() for array in tensors.values())])
