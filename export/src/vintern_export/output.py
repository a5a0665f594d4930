"""Files of a package, hashed while they are written."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from vintern_export.errors import EnvironmentFailureError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from vintern_export.numbers import RawArray

Progress = Callable[[int], None]
"""Called with the number of bytes just written."""

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class FileRecord:
    """A file as the manifest lists it."""

    name: str
    size: int
    sha256: str

    def as_json(self) -> dict[str, object]:
        """The manifest entry."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256}


class HashedFile:
    """A new file that computes its SHA-256 as it grows.

    Raises:
        EnvironmentFailureError: the disk, the quota or the file size limit is exhausted.
    """

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self.path = path
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._progress = progress
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: bytes | RawArray) -> None:
        """Appends bytes, or the bytes of a C-contiguous array."""
        view = memoryview(data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data)
        self._hash.update(view)
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:])
        except OSError as error:
            raise disk_failure(self.path, error) from error
        self.size += len(view)
        if self._progress is not None:
            self._progress(len(view))

    def pad_to(self, alignment: int) -> int:
        """Appends zeros up to a multiple of ``alignment`` and returns the new size."""
        missing = -self.size % alignment
        if missing:
            self.write(bytes(missing))
        return self.size

    def record(self) -> FileRecord:
        """Name, size and hash so far."""
        return FileRecord(self.path.name, self.size, self._hash.hexdigest())


def disk_failure(path: Path, error: OSError) -> EnvironmentFailureError:
    """The error for a failed write."""
    hint = f"Free some space on the disk of {path.parent}." if error.errno in DISK_ERRORS else None
    return EnvironmentFailureError(f"cannot write {path.name}: {error.strerror}", hint)


def write_file(path: Path, data: bytes, progress: Progress | None = None) -> FileRecord:
    """Writes a small file at once."""
    with HashedFile(path, progress) as file:
        file.write(data)
        return file.record()
