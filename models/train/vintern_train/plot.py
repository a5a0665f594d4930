"""Draws the curves of a run's log: ``python -m vintern_train.plot log.jsonl curves.png``."""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

LOSSES = {"patch_loss": "patches", "token_loss": "answers", "guide_loss": "where to look"}
SHARES = {"patch_accuracy": "characters of patches", "token_accuracy": "tokens of answers", "looking": "looks right"}
SCORES = {
    "lines CER": "lines, character error",
    "receipts CER": "receipts, character error",
    "receipts total": "totals right",
    "receipts date": "dates right",
}


def with_hours(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a log with the hours since the start; lines written twice after a restart are dropped."""
    kept: dict[tuple[str, int, bool], dict[str, Any]] = {}
    hours = 0.0
    for line in lines:
        hours = line.get("seconds", 3600 * hours) / 3600
        kept[line["stage"], line["step"], "seconds" in line] = line | {"hours": hours}
    return sorted(kept.values(), key=lambda line: line["hours"])


def draw(lines: list[dict[str, Any]], file: Path) -> None:
    """Losses, accuracies and scores over the hours of training."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    for axis, curves, title in zip(
        axes, (LOSSES, SHARES, SCORES), ("loss", "share right in training", "greedy answers"), strict=True
    ):
        for key, label in curves.items():
            points = [(line["hours"], line[key]) for line in lines if key in line]
            if points:
                axis.plot(*zip(*points, strict=True), label=label, linewidth=1, marker="." if curves is SCORES else "")
        starts = [next(iter(group))["hours"] for _, group in groupby(lines, key=lambda line: line["stage"])]
        for start in starts[1:]:
            axis.axvline(start, color="grey", linewidth=0.5, linestyle="--")
        axis.set(title=title, xlabel="hours")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0].set_yscale("log")
    figure.savefig(file, dpi=90, metadata={"Software": None})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, metavar="LOG", help="log.jsonl of a run")
    parser.add_argument("picture", type=Path, metavar="PNG", help="the file to draw")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.log.read_text(encoding="utf-8").splitlines()]
    draw(with_hours(lines), arguments.picture)


if __name__ == "__main__":
    main()
