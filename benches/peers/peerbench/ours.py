"""Vintern's own figures: ``vintern bench`` in the terms of the adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from peerbench.settings import Settings


def command(settings: Settings) -> list[str | Path]:
    """One warm-up and one counted round of the two workloads."""
    sizes = {
        "--tiles": settings.tiles,
        "--new-tokens": settings.new_tokens,
        "--num-beams": settings.num_beams,
        "--threads": settings.threads,
    }
    words: list[str | Path] = [settings.program, "bench", "--model", settings.package, "--json", "--repeats", "1"]
    words += ["--workload", "greedy,beams"]
    return words + [str(word) for pair in sizes.items() for word in pair]


def figures(report: dict[str, Any], repetition_penalty: float) -> dict[str, Any]:
    """What ``vintern bench --json`` printed, times in seconds."""
    greedy, beams = report["workloads"]
    peaks = [(report, "load_peak_memory_bytes"), (greedy, "peak_memory_bytes"), (beams, "peak_memory_bytes")]

    def stage(workload: dict[str, Any], name: str) -> float:
        milliseconds: float = workload[name]["median"]
        return milliseconds / 1e3

    return {
        "precision": "int4",
        "versions": {"library": report["library"]},
        "kernels": report["placement"]["decoder"].get("kernels"),
        "load": report["load"] / 1e3,
        "peak_memory": max(part.get(key, 0) for part, key in peaks),
        "not_offered": {},
        "vision": stage(greedy, "vision") + stage(greedy, "projector"),
        "prompt_tokens": greedy["prompt_tokens"],
        "prefill": stage(greedy, "prefill"),
        "step": stage(greedy, "decode_step"),
        "greedy_call": stage(greedy, "total"),
        "beam_prefill": stage(beams, "prefill"),
        "beam_step": stage(beams, "decode_step"),
        "beam_penalty": repetition_penalty,
        "beam_call": stage(beams, "total"),
    }
