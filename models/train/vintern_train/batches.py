"""Batches of samples, made by worker processes beside the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vintern_train import tokenizer
from vintern_train.samples import IGNORE, Sample, SampleStream
from vintern_train.tiling import MEAN, STD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

POOL_BATCHES = 4
"""Batches whose samples are sorted by length together, so that little is padded."""
LENGTH_STEP = 32


@dataclass
class Batch:
    """Tensors of several samples; see :class:`Sample`. Rows are padded at the end."""

    tiles: Tensor
    patches: Tensor
    ids: Tensor
    labels: Tensor
    places: Tensor

    def pixel_values(self) -> Tensor:
        """Normalised pixels, [tiles, 3, TILE, TILE] float32."""
        scaled = self.tiles.permute(0, 3, 1, 2).float().div_(255)
        return scaled.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None]).contiguous()


def collate(samples: list[Sample]) -> Batch:
    """A batch of samples."""
    longest = max(len(sample.ids) for sample in samples)
    length = -(-longest // LENGTH_STEP) * LENGTH_STEP
    pad = tokenizer.special_ids()["<|endoftext|>"]

    def rows(arrays: list[np.ndarray], fill: int) -> Tensor:
        return torch.from_numpy(np.stack([np.pad(a, (0, length - len(a)), constant_values=fill) for a in arrays]))

    return Batch(
        torch.from_numpy(np.concatenate([sample.tiles for sample in samples])),
        torch.from_numpy(np.concatenate([sample.patches for sample in samples])),
        rows([sample.ids for sample in samples], pad),
        rows([sample.labels for sample in samples], IGNORE),
        rows([sample.places for sample in samples], -1),
    )


class BatchStream(IterableDataset[Batch]):
    """Endless batches of conversations; every worker draws its own.

    Args:
        seed: seeds the workers' streams.
        size: samples of a batch.
        receipts: share of receipts.
        max_lines: most lines of a page of general text.
        max_length: most tokens of a conversation.
    """

    def __init__(self, seed: int, size: int, receipts: float, max_lines: int, max_length: int) -> None:
        self.seed, self.size = seed, size
        self.receipts, self.max_lines, self.max_length = receipts, max_lines, max_length

    def stream(self) -> SampleStream:
        """The samples of the process that asks."""
        worker = get_worker_info()
        seed = self.seed * 64 + (worker.id if worker else 0)
        return SampleStream(seed, self.receipts, self.max_lines, self.max_length)

    def __iter__(self) -> Iterator[Batch]:
        stream = self.stream()
        while True:
            pool = sorted((stream.sample() for _ in range(self.size * POOL_BATCHES)), key=lambda s: len(s.ids))
            groups = [pool[start : start + self.size] for start in range(0, len(pool), self.size)]
            stream.random.shuffle(groups)
            yield from map(collate, groups)


class TileStream(BatchStream):
    """Endless batches of single tiles, for the tower alone; ``size`` is their number."""

    def __iter__(self) -> Iterator[Batch]:
        stream = self.stream()
        tiles: list[tuple[np.ndarray, np.ndarray]] = []
        while True:
            while len(tiles) < self.size * POOL_BATCHES:
                tiles += stream.tiles()
            stream.random.shuffle(tiles)
            taken, tiles = tiles[: self.size], tiles[self.size :]
            none = torch.empty(0)
            yield Batch(
                torch.from_numpy(np.stack([pixels for pixels, _ in taken])),
                torch.from_numpy(np.stack([patches for _, patches in taken])),
                none,
                none,
                none,
            )


def loader(stream: BatchStream, workers: int) -> Iterator[Batch]:
    """Batches of a stream made by worker processes."""
    return iter(DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=6 if workers else None))
