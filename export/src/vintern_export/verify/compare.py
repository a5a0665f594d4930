"""Differences between a graph and the NumPy evaluation, and what is tolerated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vintern_export.numbers import FloatArray

SMALLEST = float(np.finfo(np.float32).tiny)
TOLERANCES = {"fp32": 5e-5, "fp16": 2e-2}
"""Largest difference allowed, relative to the largest magnitude of the reference, by precision."""


@dataclass(frozen=True)
class Comparison:
    """The outcome for one component. ``relative`` is the difference over the reference's largest magnitude."""

    component: str
    precision: str
    absolute: float
    relative: float

    @property
    def tolerance(self) -> float:
        """What this precision allows."""
        return TOLERANCES[self.precision]

    @property
    def passed(self) -> bool:
        """Whether the difference is tolerated. Values that are not finite never are."""
        return bool(self.relative <= self.tolerance)

    def line(self) -> str:
        """One row of the report."""
        verdict = "pass" if self.passed else "FAIL"
        return (
            f"{self.component:<28} {self.precision}  max abs {self.absolute:9.3e}  max rel {self.relative:9.3e}  "
            f"tolerance {self.tolerance:.0e}  {verdict}"
        )


def compare(component: str, precision: str, pairs: list[tuple[FloatArray, FloatArray]]) -> Comparison:
    """The largest differences over (result, reference) pairs; each pair is scaled by its own reference."""
    absolute = relative = 0.0
    for result, reference in pairs:
        if not np.isfinite(result).all() or not np.isfinite(reference).all():
            return Comparison(component, precision, float("nan"), float("nan"))
        difference = float(np.abs(result.astype(np.float32) - reference).max())
        scale = float(np.abs(reference).max())
        absolute = max(absolute, difference)
        relative = max(relative, difference / max(scale, SMALLEST))
    return Comparison(component, precision, absolute, relative)
