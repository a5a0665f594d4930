"""The reference's tiling: grid by aspect ratio, Pillow's bicubic resize, tiles row by row, a thumbnail at the end.

Pixel arithmetic is that of Pillow 10.4 (pinned in requirements.txt), which the runtime reproduces to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 128
PATCH = 16
PATCHES = TILE // PATCH
"""Patches along the side of a tile."""
TOKENS = (PATCHES // 2) ** 2
"""Language-model tokens of a tile."""
MAX_TILES = 12
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Grid:
    """Columns and rows of tiles."""

    columns: int
    rows: int

    @property
    def tiles(self) -> int:
        """Number of tiles, with the thumbnail."""
        count = self.columns * self.rows
        return count + (count > 1)


def choose_grid(width: int, height: int, max_tiles: int = MAX_TILES) -> Grid:
    """The grid of 1 to ``max_tiles`` tiles whose aspect ratio is closest; the larger of equals for large images."""
    candidates = [Grid(c, r) for c in range(1, max_tiles + 1) for r in range(1, max_tiles + 1) if c * r <= max_tiles]
    candidates.sort(key=lambda grid: grid.columns * grid.rows)
    aspect = width / height
    best, best_difference = candidates[0], float("inf")
    for grid in candidates:
        difference = abs(aspect - grid.columns / grid.rows)
        if difference < best_difference:
            best, best_difference = grid, difference
        elif difference == best_difference and width * height > 0.5 * TILE * TILE * grid.columns * grid.rows:
            best = grid
    return best


def cut_tiles(image: Image.Image, grid: Grid) -> NDArray[np.uint8]:
    """Tiles of an RGB image, [tiles, TILE, TILE, 3]."""
    whole = np.asarray(image.resize((TILE * grid.columns, TILE * grid.rows), Image.Resampling.BICUBIC))
    tiles = whole.reshape(grid.rows, TILE, grid.columns, TILE, 3).transpose(0, 2, 1, 3, 4).reshape(-1, TILE, TILE, 3)
    if grid.columns * grid.rows == 1:
        return tiles
    thumbnail = np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC))
    return np.concatenate([tiles, thumbnail[None]])


def pixel_values(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalised pixels [tiles, 3, TILE, TILE]; each step a float32 operation, as in torchvision."""
    scaled = tiles.astype(np.float32) / np.float32(255)
    values = (scaled - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
