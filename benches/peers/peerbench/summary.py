"""Medians over the rounds."""

from __future__ import annotations

from statistics import median
from typing import Any

FIGURES = (
    "load",
    "vision",
    "prefill",
    "step",
    "greedy_call",
    "beam_prefill",
    "beam_step",
    "beam_call",
    "peak_memory",
)


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The rounds of an engine in one object: medians, and what follows from them; the rest is that of the last round.

    ``prefill_rate`` and ``decode_rate`` are tokens a second, ``beam_ratio`` is a step of beams over a greedy one.
    """
    found = dict(rounds[-1])
    found |= {name: median(r[name] for r in rounds) for name in FIGURES if all(name in r for r in rounds)}
    found["prefill_rate"] = found["prompt_tokens"] / found["prefill"]
    found["decode_rate"] = 1 / found["step"]
    if "beam_step" in found:
        found["beam_ratio"] = found["beam_step"] / found["step"]
    return found
