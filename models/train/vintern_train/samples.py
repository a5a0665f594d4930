"""Training samples: tiles, what stands in each patch, and conversations as token ids."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from vintern_train import degrade, questions, tokenizer
from vintern_train.lines import draw_lines
from vintern_train.receipts import ReceiptWriter
from vintern_train.text import CHARACTERS, TextSource
from vintern_train.tiling import PATCH, PATCHES, TILE, TOKENS, Grid, choose_grid, cut_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vintern_train.questions import Answer, Turn
    from vintern_train.scene import Scene

CLASS_OF = {character: number + 1 for number, character in enumerate(CHARACTERS)}
"""Class of a character in the patch head; 0 is "nothing more here"."""
CLASSES = len(CHARACTERS) + 1
SLOTS = 4
"""Characters of a patch, left to right, that are trained on; a patch with more is left out."""
MIN_TYPE = 14.0
"""Smallest type size, in pixels of the tiles and in either direction, that the model is expected to read."""
MIN_TRAINED_TYPE = 12.5
"""The smallest it is trained on."""
MIN_ADVANCE = 4.0
"""Characters narrower than this in a tile (those of a thumbnail) are not trained on, in pixels."""
IGNORE = -100
SPARSE_TILES_KEPT = 0.05
"""Share of the tiles without text that the tower's own training keeps."""
FULL_TILE = 7
"""Characters of a tile that is always kept."""


@dataclass
class Sample:
    """One picture.

    Attributes:
        tiles: [tiles, TILE, TILE, 3] uint8, the thumbnail last.
        patches: class of each slot of each patch, [tiles, PATCHES * PATCHES, SLOTS] int64, IGNORE where unknown.
        ids: tokens of the conversation, [length] int64.
        labels: the token to predict after each position, or IGNORE, [length].
        places: position in ``ids`` of the image token in which the token to predict stands, or -1, [length].
    """

    tiles: NDArray[np.uint8]
    patches: NDArray[np.int64]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    places: NDArray[np.int64]


def draw_scene(
    source: TextSource,
    *,
    receipt: bool,
    unseen: bool = False,
    lines: int | None = None,
    min_type: float = MIN_TYPE,
) -> tuple[Scene, Grid]:
    """A legible scene and its grid.

    Args:
        source: where the texts come from.
        receipt: a receipt, or lines of general text.
        unseen: whether to draw in the unseen fonts.
        lines: number of lines; drawn when None.
        min_type: smallest type, in pixels of the tiles.
    """
    while True:
        if receipt:
            page, size, fields = ReceiptWriter(source, unseen=unseen).write()
        else:
            page, size = draw_lines(source, unseen=unseen, count=lines)
            fields = None
        scene = degrade.finish(page, size, fields, source.random)
        grid = choose_grid(*scene.image.size)
        across, down = scale(scene, grid)
        if min(across, down) * scene.height >= min_type and len(scene.text) <= 340:
            return scene, grid


def scale(scene: Scene, grid: Grid) -> tuple[float, float]:
    """Pixels of the tiles per pixel of the picture, across and down."""
    return TILE * grid.columns / scene.image.width, TILE * grid.rows / scene.image.height


def cells(scene: Scene, grid: Grid, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tile each character of the text stands in, and the square of ``size`` pixels in that tile, row by row."""
    across, down = scale(scene, grid)
    side = TILE // size
    column = np.clip((scene.centres[:, 0] * across // size).astype(int), 0, grid.columns * side - 1)
    row = np.clip((scene.centres[:, 1] * down // size).astype(int), 0, grid.rows * side - 1)
    return (row // side) * grid.columns + column // side, (row % side) * side + column % side


def patch_classes(scene: Scene, grid: Grid) -> NDArray[np.int64]:
    """What stands in each patch of each tile, the thumbnail last; see :class:`Sample`."""
    classes = np.zeros((grid.tiles, PATCHES * PATCHES, SLOTS), np.int64)
    fill_patches(classes[: grid.columns * grid.rows], scene, grid)
    if grid.tiles > 1:
        fill_patches(classes[-1:], scene, Grid(1, 1))
    return classes


def fill_patches(classes: NDArray[np.int64], scene: Scene, grid: Grid) -> None:
    """Fills the classes of the tiles of a grid."""
    if np.median(scene.advances[scene.advances > 0]) * scale(scene, grid)[0] < MIN_ADVANCE:
        classes[:] = IGNORE
        return
    tile, patch = cells(scene, grid, PATCH)
    used = np.zeros(classes.shape[:2], int)
    for index in np.argsort(scene.centres[:, 0], kind="stable"):
        if scene.text[index] == "\n":
            continue
        place = tile[index], patch[index]
        if used[place] < SLOTS:
            classes[place][used[place]] = CLASS_OF[scene.text[index]]
        used[place] += 1
    classes[used > SLOTS] = IGNORE


def image_token_of(scene: Scene, grid: Grid) -> NDArray[np.int64]:
    """The image token, counted from the first tile's first, in which each character of the text stands."""
    tile, token = cells(scene, grid, 2 * PATCH)
    return tile * TOKENS + token


def make_sample(scene: Scene, grid: Grid, turns: list[Turn]) -> Sample:
    """The sample of a scene and a conversation about it."""
    ids, _ = tokenizer.encode(questions.prompt_text(turns[0].question, grid.tiles * TOKENS))
    first_image_token = ids.index(tokenizer.special_ids()["<IMG_CONTEXT>"])
    image_tokens = image_token_of(scene, grid) + first_image_token
    labels, places = [IGNORE] * (len(ids) - 1), [-1] * (len(ids) - 1)
    for number, turn in enumerate(turns):
        if number:
            asked, _ = tokenizer.encode("\n" + questions.turn_text(turn.question))
            ids += asked
            labels += [IGNORE] * len(asked)
            places += [-1] * len(asked)
        answer_ids, answer_places = encode_answer(turn.answer, image_tokens)
        ids += answer_ids
        labels += answer_ids
        places += answer_places
    return Sample(
        cut_tiles(scene.image, grid),
        patch_classes(scene, grid),
        np.asarray(ids[:-1], np.int64),
        np.asarray(labels, np.int64),
        np.asarray(places, np.int64),
    )


def encode_answer(answer: Answer, image_tokens: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Token ids of an answer with the end token, and the position of the image token each stands in, or -1."""
    ids, offsets = tokenizer.encode(answer.text)
    places = []
    for start, end in offsets:
        sources = [source for source in answer.sources[start:end] if source >= 0]
        places.append(int(image_tokens[sources[0]]) if sources else -1)
    return [*ids, tokenizer.special_ids()["<|im_end|>"]], [*places, -1]


class SampleStream:
    """An endless stream of samples.

    Args:
        seed: seeds everything; streams of other seeds are other streams.
        receipts: share of receipts.
        max_lines: most lines of a page of general text.
        max_length: most tokens of a conversation, the image's included.
    """

    def __init__(self, seed: int, receipts: float, max_lines: int, max_length: int) -> None:
        self.random = Random(seed)
        self.source = TextSource(self.random, held_out=False)
        self.receipts = receipts
        self.max_lines = max_lines
        self.max_length = max_length

    def scene(self) -> tuple[Scene, Grid]:
        """The next scene."""
        if self.random.random() < self.receipts:
            return draw_scene(self.source, receipt=True, min_type=MIN_TRAINED_TYPE)
        lines = min(self.random.choice((1, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8)), self.max_lines)
        return draw_scene(self.source, receipt=False, lines=lines, min_type=MIN_TRAINED_TYPE)

    def tiles(self) -> list[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Tiles of the next scene and what stands in their patches; the fewer characters, the fewer are kept."""
        receipt = self.random.random() < self.receipts
        lines = self.random.randint(1, self.max_lines)
        scene, grid = draw_scene(self.source, receipt=receipt, lines=lines, min_type=MIN_TRAINED_TYPE)
        pairs = zip(cut_tiles(scene.image, grid), patch_classes(scene, grid), strict=True)
        return [pair for pair in pairs if self.random.random() < SPARSE_TILES_KEPT + (pair[1] > 0).sum() / FULL_TILE]

    def sample(self) -> Sample:
        """The next sample."""
        while True:
            scene, grid = self.scene()
            sample = make_sample(scene, grid, questions.conversation(scene, self.random))
            if len(sample.ids) <= self.max_length:
                return sample
