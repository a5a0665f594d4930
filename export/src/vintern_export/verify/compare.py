"""Differences between a graph and the NumPy evaluation, and what is tolerated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vintern_export.numbers import FloatArray

SMALLEST = float(np.finfo(np.float32).tiny)
TOLERANCES = {"fp32": 5e-5, "fp16": 2e-2, "int8": 2e-1, "int4": 2e-1}
"""Largest difference allowed, relative to the largest magnitude of the reference, by precision.

The reference of a quantised graph has the weights its codes stand for; what is left is the rounding of activations to 8
bits (accuracy level 4), which inputs with outlier channels make large. Without it the graphs agree as in fp32.
"""


@dataclass(frozen=True)
class Comparison:
    """The outcome for one component.

    Attributes:
        absolute: the largest difference.
        relative: the largest difference over the largest magnitude of its reference.
        rms: the root of the summed squared differences over that of the reference's squares.
    """

    component: str
    precision: str
    absolute: float
    relative: float
    rms: float

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

    def error_line(self) -> str:
        """One row of the report of what quantisation costs, which is not judged."""
        return (
            f"{self.component:<28} {self.precision}  max abs {self.absolute:9.3e}  max rel {self.relative:9.3e}  "
            f"rms rel {self.rms:9.3e}"
        )


def compare(component: str, precision: str, pairs: list[tuple[FloatArray, FloatArray]]) -> Comparison:
    """The largest differences over (result, reference) pairs; each pair is scaled by its own reference."""
    absolute = relative = squares = reference_squares = 0.0
    for result, reference in pairs:
        if not np.isfinite(result).all() or not np.isfinite(reference).all():
            return Comparison(component, precision, *[float("nan")] * 3)
        differences = result.astype(np.float32) - reference
        difference = float(np.abs(differences).max())
        scale = float(np.abs(reference).max())
        absolute = max(absolute, difference)
        relative = max(relative, difference / max(scale, SMALLEST))
        squares += float(np.square(differences, dtype=np.float64).sum())
        reference_squares += float(np.square(reference, dtype=np.float64).sum())
    return Comparison(component, precision, absolute, relative, (squares / max(reference_squares, SMALLEST)) ** 0.5)
