"""Writes a random checkpoint of a known shape."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vintern_export.config import load_config
from vintern_export.layout import EMBED_TOKENS, LM_HEAD, logical_shapes, stored_tensor
from vintern_export.numbers import BF16, to_bfloat16_bits
from vintern_export.output import HashedFile, write_file
from vintern_export.progress import progress_bar
from vintern_export.safetensors_io import safetensors_header
from vintern_export.staging import check_space, staged_folder
from vintern_export.synth.noise import Noise
from vintern_export.synth.shapes import checkpoint_config
from vintern_export.synth.vocabulary import Vocabulary, json_bytes, make_vocabulary, write_vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vintern_export.config_types import Layout, ModelConfig
    from vintern_export.numbers import FloatArray, RawArray, StoredDtype
    from vintern_export.output import Progress
    from vintern_export.synth.shapes import Shape

SHARD_BYTES = 2_000_000_000
LOGIT_DEVIATION = 4.0
"""Standard deviation of the logits over the known tokens: the best one stands out, but not always the same one."""


@dataclass(frozen=True)
class SynthTensor:
    """A tensor to write: stored name and shape, and the logical name that decides its values."""

    name: str
    shape: tuple[int, ...]
    logical: str


def write_checkpoint(shape: Shape, out: Path, layout: Layout, dtype: StoredDtype, seed: int) -> None:
    """Writes the checkpoint folder ``out``; the same arguments give the same bytes.

    Raises:
        ExportError: the folder exists, or the disk is full.
    """
    vocabulary = make_vocabulary(shape)
    with staged_folder(out) as folder:
        config = checkpoint_config(shape, layout, dtype, vocabulary.added, vocabulary.size)
        write_file(folder / "config.json", json_bytes(config))
        write_vocabulary(vocabulary, folder, single_file=layout.value == "transformers")
        model = load_config(folder).model
        shards = plan_shards(stored_tensors(model, tied=shape.tied), dtype)
        total = sum(math.prod(t.shape) * dtype.raw.itemsize for shard in shards for t in shard)
        check_space(folder, total)
        with progress_bar("synth", total) as progress:
            weights = RandomWeights(model, vocabulary, seed, tied=shape.tied)
            write_shards(folder, shards, weights, dtype, progress)


def stored_tensors(model: ModelConfig, *, tied: bool) -> list[SynthTensor]:
    """The tensors of the file in the order of the model."""
    tensors: dict[str, SynthTensor] = {}
    for logical, shape in logical_shapes(model).items():
        if logical == LM_HEAD and tied:
            continue
        stored = stored_tensor(model.layout, logical, shape)
        tensors.setdefault(stored.name, SynthTensor(stored.name, stored.shape, logical))
    return list(tensors.values())


def plan_shards(tensors: list[SynthTensor], dtype: StoredDtype) -> list[list[SynthTensor]]:
    """Splits the tensors into files of at most ``SHARD_BYTES``, in order."""
    shards: list[list[SynthTensor]] = [[]]
    size = 0
    for tensor in tensors:
        length = math.prod(tensor.shape) * dtype.raw.itemsize
        if shards[-1] and size + length > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += length
    return shards


def write_shards(
    folder: Path, shards: list[list[SynthTensor]], weights: RandomWeights, dtype: StoredDtype, progress: Progress
) -> None:
    """Writes one file, or several and their index."""
    count, index, total = len(shards), {}, 0
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
        with HashedFile(folder / name, progress) as file:
            file.write(safetensors_header([(tensor.name, dtype, tensor.shape) for tensor in shard]))
            for tensor in shard:
                index[tensor.name] = name
                total += math.prod(tensor.shape) * dtype.raw.itemsize
                for run in weights.runs(tensor):
                    file.write(stored_bits(run, dtype))
    if count > 1:
        content = {"metadata": {"total_size": total}, "weight_map": index}
        write_file(folder / "model.safetensors.index.json", json_bytes(content))


def stored_bits(values: FloatArray, dtype: StoredDtype) -> RawArray:
    """float32 values in the file's number format."""
    return to_bfloat16_bits(values) if dtype is BF16 else np.ascontiguousarray(values, dtype=dtype.raw)


class RandomWeights:
    """Values with scales at which activations neither explode nor vanish.

    Linear weights have standard deviation 1/sqrt(inputs), those that end a residual branch of the language model
    1/sqrt(2 * layers) of that. Rows of the output matrix of ids that no token has, and of special tokens, are zero:
    their logits are 0 where the best known token's is near 13, so generation gives readable text and seldom stops.
    """

    def __init__(self, model: ModelConfig, vocabulary: Vocabulary, seed: int, *, tied: bool) -> None:
        self._noise = Noise(seed)
        self._tied = tied
        self._known_rows = len(vocabulary.tokens)
        self._hidden = model.language.hidden_size
        self._branch = (2 * model.language.num_hidden_layers) ** -0.5

    def runs(self, tensor: SynthTensor) -> Iterator[FloatArray]:
        """The values of a tensor in order, run by run."""
        count = math.prod(tensor.shape)
        if tensor.logical == (EMBED_TOKENS if self._tied else LM_HEAD):
            known = min(self._known_rows, tensor.shape[0]) * tensor.shape[1]
            yield from self._noise.runs(known, LOGIT_DEVIATION * self._hidden**-0.5)
            yield from zeros(count - known)
            return
        offset, scale = self.distribution(tensor)
        for run in self._noise.runs(count, scale):
            yield run + np.float32(offset) if offset else run

    def distribution(self, tensor: SynthTensor) -> tuple[float, float]:
        """(mean, standard deviation) of a tensor's values."""
        name = tensor.logical
        if name == EMBED_TOKENS:
            return 0.0, 0.1
        if re.search(r"\.ls[12]$", name):
            return 0.1, 0.01
        if re.search(r"(norm\d?|layernorm|mlp1\.0)\.weight$", name):
            return 1.0, 0.1
        if name.endswith(("_embedding", ".bias")):
            return 0.0, 0.05
        scale = math.prod(tensor.shape[1:]) ** -0.5
        ends_branch = name.startswith("language_model") and name.endswith(("o_proj.weight", "down_proj.weight"))
        return 0.0, scale * self._branch if ends_branch else scale


def zeros(count: int) -> Iterator[FloatArray]:
    """``count`` zeros in pieces."""
    step = 1 << 22
    for start in range(0, count, step):
        yield np.zeros(min(step, count - start), np.float32)
