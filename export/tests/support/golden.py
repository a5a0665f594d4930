"""The golden data of the reference implementation, and the image preprocessing it was made with."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

GOLDEN = Path(__file__).parents[3] / "tests" / "golden"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def checkpoint(name: str) -> Path:
    return GOLDEN / name


def cases(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((GOLDEN / f"{name}.cases.json").read_text())
    return result


def arrays(name: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(GOLDEN / f"{name}.arrays.npz") as data:
        return dict(data)


def cubic(t: float) -> float:
    t, a = abs(t), -0.5
    if t < 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return (((t - 5) * t + 8) * t - 4) * a if t < 2 else 0.0


def resize_rows(image: Bytes, size: int) -> Bytes:
    """Pillow's bicubic with antialiasing along the first axis, in 22-bit fixed point."""
    length = image.shape[0]
    if length == size:
        return image
    out = np.empty((size, *image.shape[1:]), np.uint8)
    scale = length / size
    filter_scale = max(scale, 1.0)
    for index in range(size):
        centre = (index + 0.5) * scale
        low = max(0, int(centre - 2 * filter_scale + 0.5))
        high = min(length, int(centre + 2 * filter_scale + 0.5))
        weights = np.array([cubic((k + 0.5 - centre) / filter_scale) for k in range(low, high)])
        fixed = weights / weights.sum() * (1 << 22)
        whole = np.trunc(fixed + np.where(fixed < 0, -0.5, 0.5)).astype(np.int64)
        total = np.tensordot(whole, image[low:high].astype(np.int64), 1) + (1 << 21)
        out[index] = np.clip(total >> 22, 0, 255)
    return out


def resize(image: Bytes, width: int, height: int) -> Bytes:
    wide = resize_rows(image.transpose(1, 0, 2), width).transpose(1, 0, 2)
    return resize_rows(wide, height)


def grid(width: int, height: int, side: int, max_tiles: int) -> tuple[int, int]:
    aspect, best, best_difference = width / height, (1, 1), float("inf")
    shapes = [(i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles + 1) if i * j <= max_tiles]
    for columns, rows in sorted(shapes, key=lambda shape: shape[0] * shape[1]):
        difference = abs(aspect - columns / rows)
        larger = width * height > 0.5 * side * side * columns * rows
        if difference < best_difference or (difference == best_difference and larger):
            best, best_difference = (columns, rows), difference
    return best


def pixel_values(name: str, side: int, max_tiles: int) -> Floats:
    """[tiles, 3, S, S] of a golden image, thumbnail last."""
    decoded = GOLDEN / "decoded" / f"{name}.rgb.png"
    with Image.open(decoded if decoded.exists() else GOLDEN / "images" / name) as opened:
        image = np.asarray(opened.convert("RGB"))
    columns, rows = grid(image.shape[1], image.shape[0], side, max_tiles)
    whole = resize(image, side * columns, side * rows)
    tiles = [whole[side * y : side * (y + 1), side * x : side * (x + 1)] for y in range(rows) for x in range(columns)]
    if len(tiles) > 1:
        tiles.append(resize(image, side, side))
    scaled = np.stack(tiles).astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((scaled - MEAN) / DEVIATION).transpose(0, 3, 1, 2))


def sha256(values: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
