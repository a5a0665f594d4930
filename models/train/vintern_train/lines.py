"""Pages of one to eight lines of general text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vintern_train import fonts
from vintern_train.drawing import Page, text_width

if TYPE_CHECKING:
    from random import Random

    from vintern_train.fonts import Face
    from vintern_train.text import TextSource

MAX_LINE = 38
"""Characters of the longest line."""


@dataclass(frozen=True)
class Line:
    """A line before it is placed."""

    text: str
    face: Face
    size: int
    width: float


def draw_lines(source: TextSource, *, unseen: bool, count: int | None = None) -> tuple[Page, float]:
    """A page of lines and the size of its smallest type in pixels.

    Args:
        source: where the texts come from.
        unseen: whether to draw in the unseen fonts.
        count: number of lines; drawn when None.
    """
    random = source.random
    count = count or random.choice((1, 2, 3))
    size = random.randint(18, 44 if count > 1 else 60)
    lines = make_lines(source, count, size, unseen=unseen)
    pitch = random.uniform(1.2, 1.9)
    wide = random.random() < 0.2
    side = [random.uniform(0.25, 4.0 if wide else 1.2) * size for _ in range(2)]
    ends = [random.uniform(0.1, 2.0 if wide else 0.7) * size for _ in range(2)]
    heights = [line.size * pitch for line in lines[1:]]
    width = max(line.width for line in lines) + sum(side)
    height = lines[0].size * 1.25 + sum(heights) + 0.3 * size + sum(ends)
    page = Page(round(width), round(height))
    align = random.choice((0.0, 0.0, 0.0, 0.5, 1.0))
    baseline = ends[0] + lines[0].size * 1.1
    for line, step in zip(lines, [*heights, 0.0], strict=True):
        if page.canvas.position:
            page.canvas.newline()
        page.write(line.text, line.face, line.size, side[0] + align * (page.width - sum(side) - line.width), baseline)
        baseline += step
    if random.random() < 0.08:
        page.frame(random.uniform(1, 5))
    return page, min(line.size for line in lines)


def make_lines(source: TextSource, count: int, size: int, *, unseen: bool) -> list[Line]:
    """Texts in faces: mostly one face and size a page, sometimes a new one on every line."""
    random = source.random
    mixed = random.random() < 0.2
    target = random.randint(4, MAX_LINE)
    face: Face | None = None
    lines = []
    for _ in range(count):
        text = fitted_text(source, target, random)
        if face is None or mixed or not face.covers(text):
            face = fonts.pick_face(random, text, unseen=unseen)
        here = round(size * random.uniform(0.75, 1.3)) if mixed else size
        lines.append(Line(text, face, here, text_width(text, face, here)))
    return lines


def fitted_text(source: TextSource, target: int, random: Random) -> str:
    """A line near a length: several texts joined, then cut between words."""
    text = source.line()
    while len(text) < target - 6 and random.random() < 0.7:
        text += " " + source.line()
    if len(text) > MAX_LINE:
        text = text[:MAX_LINE]
        text = text.rpartition(" ")[0] or text
    return text.strip()
