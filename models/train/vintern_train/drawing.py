"""Draws lines of text into a mask and keeps account of where each character went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from vintern_train import fonts
from vintern_train.scene import Canvas, Span

if TYPE_CHECKING:
    from vintern_train.fonts import Face

MIDDLE_OF_X_HEIGHT = 0.26
"""Height of the middle of a lower-case letter above the baseline, in ems; about the same in all text faces."""


@dataclass
class Page:
    """A mask to draw on: 0 is paper, 255 ink.

    Args:
        width: in pixels.
        height: in pixels.
    """

    width: int
    height: int
    canvas: Canvas = field(default_factory=Canvas)

    def __post_init__(self) -> None:
        self.mask = Image.new("L", (self.width, self.height), 0)
        self._draw = ImageDraw.Draw(self.mask)

    def write(self, text: str, face: Face, size: int, x: float, baseline: float) -> Span:
        """Writes text from x on; returns its place in the page's text."""
        sized = fonts.load(face.path, size)
        self._draw.text((x, baseline), text, fill=255, font=sized.font, anchor="ls")
        start, left = self.canvas.position, x
        for character, advance in zip(text, sized.advances(text), strict=True):
            self.canvas.add(character, left + advance / 2, baseline - MIDDLE_OF_X_HEIGHT * size, advance)
            left += advance
        return Span(start, self.canvas.position)

    def gap(self, left: float, right: float, baseline: float, size: int) -> None:
        """Counts the empty room between two columns as one space."""
        middle = (left + right) / 2
        self.canvas.add(" ", middle, baseline - MIDDLE_OF_X_HEIGHT * size, max(right - left, 1.0))

    def rule(self, y: float, left: float, right: float, style: str) -> None:
        """A horizontal line: solid, dashed or dotted. It is no text."""
        dash, step = {"solid": (right - left, right - left), "dashed": (8, 14), "dotted": (2, 6)}[style]
        x = left
        while x < right:
            self._draw.line((x, y, min(x + dash, right), y), fill=200, width=1)
            x += step

    def frame(self, margin: float) -> None:
        """A rectangle near the edge of the page."""
        self._draw.rectangle((margin, margin, self.width - 1 - margin, self.height - 1 - margin), outline=200)


def text_width(text: str, face: Face, size: int) -> float:
    """Width of a text in pixels."""
    return fonts.load(face.path, size).width(text)
