"""A progress bar by bytes, silent where standard error is not a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress_bar(label: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar while the block runs and yields the function that advances it."""
    hidden = not sys.stderr.isatty()
    with tqdm(total=total_bytes, desc=label, unit="B", unit_scale=True, file=sys.stderr, disable=hidden) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance
