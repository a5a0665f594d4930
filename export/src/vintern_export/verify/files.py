"""Reads a package's manifest and checks its files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from vintern_export.errors import PackageError, UsageError
from vintern_export.manifest import FORMAT, FORMAT_VERSION, MANIFEST_NAME, Manifest
from vintern_export.numbers import to_float32
from vintern_export.safetensors_io import SafetensorsFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vintern_export.numbers import FloatArray

BLOCK_BYTES = 8 << 20


def load_manifest(folder: Path) -> Manifest:
    """Reads ``manifest.json``.

    Raises:
        UsageError: there is no package, or one of another version.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{folder} is not a model package: it has no {MANIFEST_NAME}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    found = (manifest.get("format"), manifest.get("format_version")) if isinstance(manifest, dict) else (None, None)
    if found != (FORMAT, FORMAT_VERSION):
        raise UsageError(
            f"{path}: found format {found[0]!r} version {found[1]!r}; supported: {FORMAT!r} {FORMAT_VERSION}"
        )
    return dict(manifest)


def listed_files(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Every file entry of a manifest."""
    yield manifest["tokenizer"]["file"]
    yield manifest["embed_tokens"]["file"]
    for variants in manifest["graphs"].values():
        for variant in variants:
            yield from variant["files"]
    if "parity" in manifest:
        yield manifest["parity"]["file"]


def check_files(folder: Path, manifest: Manifest, progress: Callable[[int], None]) -> None:
    """Checks presence, size and SHA-256 of every file.

    Raises:
        PackageError: names the first file that differs.
    """
    for entry in listed_files(manifest):
        path = folder / entry["name"]
        if not path.is_file():
            raise PackageError(f"{entry['name']} is missing from {folder}")
        size = path.stat().st_size
        if size != entry["size"]:
            raise PackageError(f"{entry['name']} has {size} bytes, the manifest says {entry['size']}")
        if file_sha256(path, progress) != entry["sha256"]:
            raise PackageError(f"{entry['name']} does not have the SHA-256 of the manifest: its content has changed")


def file_sha256(path: Path, progress: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(BLOCK_BYTES)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            progress(count)
    return digest.hexdigest()


def embedding_rows(folder: Path, manifest: Manifest, ids: list[int]) -> FloatArray:
    """Rows of the token embedding table as float32, [len(ids), H]."""
    with SafetensorsFile(folder / manifest["embed_tokens"]["file"]["name"]) as file:
        entry = file.entries[manifest["embed_tokens"]["tensor"]]
        out = np.empty((len(ids), entry.shape[1]), entry.dtype.raw)
        for position, identifier in enumerate(ids):
            file.read_into(out[position], entry.start + identifier * out[0].nbytes)
        return to_float32(out, entry.dtype)
