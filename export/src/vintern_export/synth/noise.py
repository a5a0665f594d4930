"""Normal noise by the gigabyte: one block of true random numbers, reused at random places with random signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vintern_export.numbers import FloatArray

POOL_SIZE = 1 << 24
"""Numbers that are really drawn. Weights repeat beyond that, at other places and with other signs: the values have the
right distribution and matrices are of full rank for all purposes here, but they are not independent draws."""
RUN_SIZE = (1 << 20) + 7
"""Longest run copied from one place of the pool; odd, so that runs do not line up with rows."""


class Noise:
    """A seeded stream of standard normal float32 values."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._pool = self._generator.standard_normal(POOL_SIZE, dtype=np.float32)

    def runs(self, count: int, scale: float) -> Iterator[FloatArray]:
        """``count`` values of standard deviation ``scale``, run by run."""
        done = 0
        while done < count:
            size = min(RUN_SIZE, count - done)
            start = int(self._generator.integers(0, POOL_SIZE - size + 1))
            sign = 1.0 if self._generator.integers(0, 2) else -1.0
            yield self._pool[start : start + size] * np.float32(sign * scale)
            done += size
