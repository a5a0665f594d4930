"""What happens to a page before a camera or scanner has it: turned, coloured, shaded, blurred, noisy, compressed."""

from __future__ import annotations

import functools
import io
import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from random import Random

    from numpy.typing import NDArray

    from vintern_train.drawing import Page
    from vintern_train.scene import Receipt, Scene

MIN_CONTRAST = 90
"""Smallest difference in luma between paper and ink, of 255."""
MAX_ANGLE = 3.0
"""Degrees."""


def finish(page: Page, size: float, receipt: Receipt | None, random: Random) -> Scene:
    """Turns a drawn page into a picture.

    Args:
        page: the mask and its characters.
        size: smallest type, in pixels.
        receipt: the page's fields, if any.
        random: the only source of chance.
    """
    mask, matrix = turned(page.mask, random)
    scene = page.canvas.scene(mask, size, receipt)
    scene.centres = scene.centres @ matrix[:, :2].T + matrix[:, 2]
    pixels = coloured((np.asarray(mask) / 255).astype(np.float32), random)
    if random.random() < 0.45:
        pixels += noise(pixels.shape, random) * random.uniform(1, 13)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if random.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.045 * size)))
    if random.random() < 0.45:
        image = compressed(image, random.randint(35, 92))
    scene.image = image
    return scene


def turned(mask: Image.Image, random: Random) -> tuple[Image.Image, NDArray[np.float32]]:
    """The mask turned by a few degrees on a page large enough, and the matrix [2, 3] that maps points to it."""
    if random.random() < 0.55:
        return mask, np.asarray([[1, 0, 0], [0, 1, 0]], np.float32)
    limit = min(MAX_ANGLE, math.degrees(math.atan2(0.9 * mask.height, mask.width)))
    angle = math.radians(random.gauss(0, 0.5) * limit)
    angle = max(-math.radians(limit), min(math.radians(limit), angle))
    cos, sin = math.cos(angle), math.sin(angle)
    width = round(mask.width * cos + mask.height * abs(sin))
    height = round(mask.height * cos + mask.width * abs(sin))
    forward = np.asarray([[cos, -sin], [sin, cos]])
    offset = np.asarray([width, height]) / 2 - forward @ np.asarray([mask.width, mask.height]) / 2
    inverse = forward.T
    back = -inverse @ offset
    coefficients = (inverse[0, 0], inverse[0, 1], back[0], inverse[1, 0], inverse[1, 1], back[1])
    image = mask.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return image, np.concatenate([forward, offset[:, None]], axis=1).astype(np.float32)


def coloured(ink: NDArray[np.float32], random: Random) -> NDArray[np.float32]:
    """Ink and paper in colours of enough contrast, [height, width, 3] in 0..255; the paper may be shaded or stained."""
    paper, colour = colours(random)
    ground = np.broadcast_to(paper, (*ink.shape, 3))
    if random.random() < 0.4:
        amplitude = random.uniform(3, 22)
        ground = ground + (low_frequency(ink.shape, random) * amplitude)[:, :, None]
    strength = random.uniform(0.85, 1.0)
    alpha = (ink * strength)[:, :, None]
    return (ground * (1 - alpha) + colour * alpha).astype(np.float32)


def colours(random: Random) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours of paper and ink."""
    while True:
        if random.random() < 0.55:
            light = random.uniform(200, 255)
            paper = np.asarray([light + random.uniform(-12, 12) for _ in range(3)], np.float32)
            dark = random.uniform(0, 70)
            ink = np.asarray([dark + random.uniform(-10, 10) for _ in range(3)], np.float32)
        else:
            paper = np.asarray([random.uniform(0, 255) for _ in range(3)], np.float32)
            ink = np.asarray([random.uniform(0, 255) for _ in range(3)], np.float32)
        paper, ink = np.clip(paper, 0, 255), np.clip(ink, 0, 255)
        weights = np.asarray([0.299, 0.587, 0.114], np.float32)
        if abs(float((paper - ink) @ weights)) >= MIN_CONTRAST:
            return paper, ink


def low_frequency(shape: tuple[int, ...], random: Random) -> NDArray[np.float32]:
    """A smooth field in -1..1."""
    small = np.asarray([[random.uniform(-1, 1) for _ in range(random.randint(2, 5))]], np.float32)
    rows = [small[0] * random.uniform(0.2, 1) + random.uniform(-0.5, 0.5) for _ in range(random.randint(2, 4))]
    image = Image.fromarray(np.stack(rows).astype(np.float32), mode="F")
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


@functools.cache
def noise_pool() -> NDArray[np.float32]:
    """Standard normal numbers, drawn once; noise is cut from it at random places."""
    return np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32)


def noise(shape: tuple[int, ...], random: Random) -> NDArray[np.float32]:
    """Normal noise of a shape, the same in all channels half of the time."""
    pool = noise_pool()
    if random.random() < 0.5:
        shape = (*shape[:2], 1)
    count = math.prod(shape)
    if count > pool.size:
        pool = np.tile(pool, -(-count // pool.size) + 1)
    start = random.randrange(pool.size - count + 1)
    return pool[start : start + count].reshape(shape)


def compressed(image: Image.Image, quality: int) -> Image.Image:
    """The image after a round of JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
