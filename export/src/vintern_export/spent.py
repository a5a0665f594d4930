"""What a command cost: seconds, bytes written, peak memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

GIB = 1 << 30
MIB = 1 << 20


def spent(started: float, folder: Path) -> str:
    """For example ``64 s, 13.3 GiB written, peak memory 0.77 GiB``; ``started`` is a ``time.monotonic()``."""
    written = sum(file.stat().st_size for file in Path(folder).iterdir())
    text = f"{time.monotonic() - started:.0f} s, {size_text(written)} written"
    peak = peak_memory()
    return text if peak is None else f"{text}, peak memory {size_text(peak)}"


def size_text(count: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{count / GIB:.2f} GiB" if count >= GIB // 2 else f"{count / MIB:.0f} MiB"


def peak_memory() -> int | None:
    """Most bytes this process had resident at once; None on systems that do not say."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - not there on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
