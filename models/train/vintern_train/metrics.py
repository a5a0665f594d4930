"""Scores of answers: error rates, exact matches, validity and fields of the extraction."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def edit_distance(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Levenshtein distance: insertions, deletions and substitutions count 1."""
    previous = list(range(len(wanted) + 1))
    for row, item in enumerate(found, 1):
        current = [row]
        for column, other in enumerate(wanted, 1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (item != other)))
        previous = current
    return previous[-1]


def fields(text: str) -> list[tuple[str, Any]] | None:
    """The fields of an extraction as a flat list, or None where it is not JSON of the promised form."""
    try:
        content = json.loads(text)
        items = [(f"item {n} {key}", item[key]) for n, item in enumerate(content["items"]) for key in ("name", "price")]
        return [("shop", content["shop"]), ("date", content["date"]), *items, ("total", content["total"])]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


@dataclass
class Scores:
    """Sums over the cases of a group.

    Error rates are edits over characters (words) of the right text, summed over the group before dividing.
    """

    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, task: str, found: str, wanted: str) -> None:
        """Adds an answer."""
        counts = self.counts
        if task == "read":
            counts["characters"] += len(wanted)
            counts["character edits"] += edit_distance(found, wanted)
            counts["words"] += len(wanted.split())
            counts["word edits"] += edit_distance(found.split(), wanted.split())
        elif task == "extract":
            self.add_extraction(found, wanted)
        else:
            counts[f"{task}s"] += 1
            counts[f"{task}s right"] += found == wanted

    def add_extraction(self, found: str, wanted: str) -> None:
        """Adds an extraction."""
        right, given = fields(wanted) or [], fields(found)
        self.counts["extractions"] += 1
        self.counts["valid"] += given is not None
        self.counts["fields"] += len(right)
        known = dict(given or [])
        self.counts["fields right"] += sum(known.get(key) == value for key, value in right)

    def rates(self) -> dict[str, float]:
        """Rates in 0..1 (error rates may pass 1)."""
        pairs = {
            "CER": ("character edits", "characters"),
            "WER": ("word edits", "words"),
            "total": ("totals right", "totals"),
            "date": ("dates right", "dates"),
            "JSON valid": ("valid", "extractions"),
            "fields": ("fields right", "fields"),
        }
        counts = self.counts
        return {name: counts[part] / counts[whole] for name, (part, whole) in pairs.items() if counts[whole]}


COLUMNS = ("CER", "WER", "total", "date", "JSON valid", "fields")


def table(scores: dict[str, Scores]) -> str:
    """A Markdown table, one row a group, in percent."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for name, group in scores.items():
        rates = group.rates()
        cells = [f"{100 * rates[column]:.1f} %" if column in rates else "" for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
