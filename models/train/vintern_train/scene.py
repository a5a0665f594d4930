"""A page of text: what is drawn where, the text it says, and the fields of a receipt within that text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``end`` of a scene's text."""

    start: int
    end: int


@dataclass(frozen=True)
class Item:
    """A line of a receipt: the name as printed, the price as printed and in đồng."""

    name: Span
    price: Span
    amount: int


@dataclass(frozen=True)
class Receipt:
    """The fields of a receipt, as spans of the scene's text."""

    shop: Span
    date: Span
    items: tuple[Item, ...]
    total: Span
    amount: int


@dataclass
class Scene:
    """A rendered picture and where each character of its text stands.

    Attributes:
        image: RGB.
        text: the lines in reading order, joined by newlines.
        centres: pixel position of the middle of each character, x-height in y, [characters, 2] float32; the row of a
            newline means nothing.
        advances: width of each character in pixels, [characters] float32; 0 for newlines.
        height: of a line in pixels, the smallest on the page.
        receipt: the fields, where it is a receipt.
    """

    image: Image.Image
    text: str
    centres: NDArray[np.float32]
    advances: NDArray[np.float32]
    height: float
    receipt: Receipt | None = None


@dataclass
class Canvas:
    """Collects characters while lines are drawn."""

    text: list[str] = field(default_factory=list)
    centres: list[tuple[float, float]] = field(default_factory=list)
    advances: list[float] = field(default_factory=list)

    def add(self, character: str, x: float, y: float, advance: float) -> None:
        """Adds a character centred at (x, y)."""
        self.text.append(character)
        self.centres.append((x, y))
        self.advances.append(advance)

    def newline(self) -> None:
        """Ends a line."""
        self.add("\n", 0.0, 0.0, 0.0)

    @property
    def position(self) -> int:
        """Index of the next character."""
        return len(self.text)

    def scene(self, image: Image.Image, height: float, receipt: Receipt | None = None) -> Scene:
        """The finished scene."""
        centres = np.asarray(self.centres, np.float32).reshape(-1, 2)
        return Scene(image, "".join(self.text), centres, np.asarray(self.advances, np.float32), height, receipt)
