"""The table of docs/performance.md in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peerbench.engines import OURS, title

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 1 << 30
COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("vision", "vision, {tiles} tiles", lambda value: f"{value:.1f} s"),
    ("prefill_rate", "prefill", lambda value: f"{value:.0f} tokens/s"),
    ("decode_rate", "decode, greedy", lambda value: f"{value:.1f} tokens/s"),
    ("greedy_call", "whole call, greedy", lambda value: f"{value:.1f} s"),
    ("beam_call", "whole call, {num_beams} beams, penalty {repetition_penalty}", lambda value: f"{value:.1f} s"),
    ("beam_ratio", "beam step / greedy step", lambda value: f"{value:.2f}"),
    ("load", "load", lambda value: f"{value:.1f} s"),
    ("peak_memory", "peak memory", lambda value: f"{value / GIB:.1f} GiB"),
)
RATES = ("prefill_rate", "decode_rate")


def rows(lines: list[list[str]]) -> str:
    """A Markdown table; the first line is its head."""
    head, *body = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body]) + "\n"


def advantage(ours: dict[str, Any], peer: dict[str, Any], figure: str) -> float | None:
    """How many times better ours is: above 1 in our favour, whether the figure is a rate or a cost."""
    if figure not in ours or figure not in peer:
        return None
    return float(ours[figure] / peer[figure] if figure in RATES else peer[figure] / ours[figure])


class Notes:
    """Footnotes, numbered as they come."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """The mark of a note."""
        if text not in self.texts:
            self.texts.append(text)
        return f" [{self.texts.index(text) + 1}]"

    def __str__(self) -> str:
        return "".join(f"\n[{number}] {text}\n" for number, text in enumerate(self.texts, 1))


def notes_of(found: dict[str, Any], figure: str, penalty: float, notes: Notes) -> str:
    """Marks of what must be known beside a figure."""
    missing = found["not_offered"]
    if figure == "vision" and "vision" in missing:
        return notes.mark(missing["vision"])
    if figure.startswith("beam") and "beams" in missing:
        return notes.mark(missing["beams"])
    mark = notes.mark("without vision") if figure in {"greedy_call", "beam_call"} and "vision" in missing else ""
    if figure.startswith("beam") and found.get("beam_penalty", penalty) != penalty:
        mark += notes.mark(f"at penalty {found['beam_penalty']:g}: a penalty is refused with beams")
    return mark


def table(results: dict[str, Any]) -> str:
    """Figures, ratios and notes of a run."""
    task, engines, notes = results["task"], results["engines"], Notes()
    names = [head.format(**task) for _, head, _ in COLUMNS]
    lines = [["", *names]]
    for name, found in engines.items():
        cells = []
        for figure, _, style in COLUMNS:
            value = style(found[figure]) if figure in found else "–"
            cells.append(value + notes_of(found, figure, task["repetition_penalty"], notes))
        lines.append([title(name, found), *cells])
    text = rows(lines)
    if OURS in engines:
        lines = [["vintern is better by", *names]]
        for name, found in engines.items():
            if name != OURS:
                ratios = [advantage(engines[OURS], found, figure) for figure, _, _ in COLUMNS]
                lines.append([title(name, found), *("–" if ratio is None else f"{ratio:.2f} ×" for ratio in ratios)])
        if len(lines) > 1:
            text += "\n" + rows(lines)
    return text + str(notes) + "\n" + facts(results)


def facts(results: dict[str, Any]) -> str:
    """Machine, sizes and versions."""
    task, machine = results["task"], results["machine"]
    prompt = task["image_tokens"] + task["text_tokens"]
    versions = "; ".join(
        f"{title(name, found)}: " + ", ".join(f"{package} {version}" for package, version in found["versions"].items())
        for name, found in results["engines"].items()
    )
    rounds = "One round" if results["repeats"] == 1 else f"Medians of {results['repeats']} rounds"
    return (
        f"{rounds}; {task['tiles']} tiles, {task['image_tokens']} image tokens of {prompt} prompt tokens, "
        f"{task['new_tokens']} new tokens, {task['threads']} threads; {machine}. {versions}.\n"
    )
