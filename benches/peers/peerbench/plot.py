"""The figures as bars, in SVG."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from peerbench.engines import OURS, title
from peerbench.table import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PANELS = ("vision", "prefill_rate", "decode_rate", "beam_call")
BETTER = {"vision": "shorter is better", "beam_call": "shorter is better"}
LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH = 180, 190, 90
BAR_HEIGHT, GAP, HEAD = 18, 6, 44
OUR_COLOUR, PEER_COLOUR = "#2a6f97", "#a9b4bd"


def text(x: float, y: float, content: str, **attributes: str) -> str:
    """A line of text; underscores in attribute names are hyphens."""
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:g}" y="{y:g}"{extra}>{escape(content)}</text>'


def panel(results: dict[str, Any], figure: str, left: float, top: float) -> Iterator[str]:
    """One figure of all engines."""
    engines = results["engines"]
    head, style = next((head, style) for name, head, style in COLUMNS if name == figure)
    better = BETTER.get(figure, "longer is better")
    yield text(left, top + 16, f"{head.format(**results['task'])} ({better})", font_weight="bold")
    most = max((found[figure] for found in engines.values() if figure in found), default=1.0)
    for index, (name, found) in enumerate(engines.items()):
        y = top + HEAD - 16 + index * (BAR_HEIGHT + GAP)
        start, middle = left + LABEL_WIDTH, y + BAR_HEIGHT * 0.72
        yield text(start - 8, middle, title(name, found), text_anchor="end")
        width = BAR_WIDTH * found.get(figure, 0.0) / most
        colour = OUR_COLOUR if name == OURS else PEER_COLOUR
        yield f'<rect x="{start}" y="{y:g}" width="{width:.1f}" height="{BAR_HEIGHT}" fill="{colour}"/>'
        yield text(start + width + 6, middle, value(found, figure, style, results["task"]["repetition_penalty"]))


def value(found: dict[str, Any], figure: str, style: Callable[[float], str], penalty: float) -> str:
    """What stands beside a bar."""
    if figure not in found:
        return "not offered"
    remarks = []
    if figure == "beam_call":
        remarks += ["penalty 1"] if found["beam_penalty"] != penalty else []
        remarks += ["no vision"] if "vision" in found["not_offered"] else []
    return style(found[figure]) + (f", {', '.join(remarks)}" if remarks else "")


def plot(results: dict[str, Any]) -> str:
    """Four panels in two rows."""
    height = HEAD + len(results["engines"]) * (BAR_HEIGHT + GAP)
    width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH + 40
    parts = [
        part
        for index, figure in enumerate(PANELS)
        for part in panel(results, figure, 10 + index % 2 * width, 10 + index // 2 * height)
    ]
    size = f'width="{2 * width + 20}" height="{2 * height + 20}"'
    view = f'viewBox="0 0 {2 * width + 20} {2 * height + 20}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} font-family="sans-serif" font-size="12">'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, ground, *parts, "</svg>"]) + "\n"
