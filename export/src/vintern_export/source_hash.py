"""The hash that identifies a source checkpoint, computed beside the export."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

BLOCK_BYTES = 8 << 20


@contextmanager
def hashing_in_background(files: list[Path]) -> Iterator[Future[str]]:
    """Hashes ``files`` in a thread while the block runs; leaving the block early stops it."""
    stop = Event()
    with ThreadPoolExecutor(1, "source-hash") as pool:
        try:
            yield pool.submit(source_digest, files, stop)
        finally:
            stop.set()


def source_digest(files: list[Path], stop: Event | None = None) -> str:
    """SHA-256 of the listing ``sha256sum FILES`` prints: one line ``HASH  NAME`` a file, in the order given."""
    listing = hashlib.sha256()
    for path in files:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            buffer = bytearray(BLOCK_BYTES)
            while (count := file.readinto(buffer)) and not (stop is not None and stop.is_set()):
                digest.update(memoryview(buffer)[:count])
        listing.update(f"{digest.hexdigest()}  {path.name}\n".encode())
    return listing.hexdigest()
