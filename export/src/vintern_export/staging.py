"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vintern_export.errors import EnvironmentFailureError, UsageError
from vintern_export.output import disk_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

SPACE_MARGIN_BYTES = 16 << 20


@contextmanager
def staged_folder(target: Path, *, replaces: str | None = None) -> Iterator[Path]:
    """Yields an empty sibling folder that becomes ``target`` when the block ends without an error.

    On any error, an interrupt included, the sibling is removed and ``target`` stays as it was.

    Args:
        target: the folder to make. An empty one may exist already.
        replaces: a folder with files may be replaced if it holds a file of this name.

    Raises:
        UsageError: ``target`` exists and may not be replaced.
        EnvironmentFailureError: the folders cannot be made or renamed.
    """
    target = Path(os.path.normpath(target.absolute()))
    check_target(target, replaces)
    staging = target.parent / f".{target.name}.partial-{os.getpid()}"
    old = target.parent / f".{target.name}.replaced-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    except OSError as error:
        raise disk_failure(target, error) from error
    try:
        yield staging
        if target.exists():
            target.rename(old)
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_target(target: Path, replaces: str | None) -> None:
    """Refuses a target that exists, unless it is an empty folder or one that may be replaced."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} exists and is not a folder")
    if not target.exists() or not any(target.iterdir()):
        return
    if replaces is None:
        raise UsageError(f"{target} exists already", "Choose another folder, or remove this one.")
    if not (target / replaces).is_file():
        raise UsageError(
            f"{target} holds files but no {replaces}", "Only a model package is replaced; remove it yourself."
        )


def check_space(folder: Path, needed: int) -> None:
    """Refuses to start when the disk is plainly too small.

    Raises:
        EnvironmentFailureError: fewer than ``needed`` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + SPACE_MARGIN_BYTES:
        raise EnvironmentFailureError(
            f"not enough space in {folder.parent}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
        )
