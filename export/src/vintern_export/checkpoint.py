"""A checkpoint folder: its configuration and its tensors by logical name, read piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from vintern_export.config import load_config
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.fields import read_json_object
from vintern_export.layout import LM_HEAD, current_name, is_ignored, logical_shapes, stored_tensor
from vintern_export.numbers import StoredDtype, to_float32
from vintern_export.safetensors_io import SafetensorsFile, TensorEntry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from vintern_export.config_types import ModelConfig
    from vintern_export.numbers import FloatArray, RawArray

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_NAMES_IN_MESSAGE = 4
UNTIED_WARNING = (
    "config.json says tie_word_embeddings: false, but the weights hold no output matrix; "
    "the exported model takes the token embeddings for it"
)


class TensorSource:
    """One logical tensor in a file, read by rows (the first axis).

    Attributes:
        shape: logical shape.
        dtype: number format in the file.
    """

    def __init__(
        self, file: SafetensorsFile, entry: TensorEntry, shape: tuple[int, ...], block: tuple[int, int]
    ) -> None:
        self._file = file
        self.shape = shape
        self.dtype: StoredDtype = entry.dtype
        self.row_bytes = (entry.stop - entry.start) // max(1, entry.shape[0])
        index, count = block
        self._start = entry.start + (entry.stop - entry.start) // count * index

    @property
    def size_bytes(self) -> int:
        """Bytes of the logical tensor in the file."""
        return self.row_bytes * self.shape[0]

    def read_rows(self, start: int, stop: int) -> RawArray:
        """Rows ``start:stop`` as stored bits, shape [stop - start, ...]."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype.raw)
        self._file.read_into(out, self._start + start * self.row_bytes)
        return out

    def row_blocks(self, block_bytes: int) -> Iterator[tuple[int, RawArray]]:
        """(first row, rows) in order, each block at most ``block_bytes`` (but at least one row)."""
        step = max(1, block_bytes // max(1, self.row_bytes))
        for start in range(0, self.shape[0], step):
            yield start, self.read_rows(start, min(start + step, self.shape[0]))

    def read_columns(self, start: int, stop: int, block_bytes: int) -> RawArray:
        """Columns ``start:stop`` of the tensor as a matrix [rows, stop - start] of stored bits.

        Axes after the first count as one. Extra memory is at most ``block_bytes``.
        """
        out = np.empty((self.shape[0], stop - start), self.dtype.raw)
        if stop - start == self.row_bytes // self.dtype.raw.itemsize:
            self._file.read_into(out, self._start)
            return out
        for row, block in self.row_blocks(block_bytes):
            out[row : row + len(block)] = block.reshape(len(block), -1)[:, start:stop]
        return out

    def float32(self) -> FloatArray:
        """The whole tensor as float32."""
        return to_float32(self.read_rows(0, self.shape[0]), self.dtype)


class Checkpoint:
    """An open checkpoint folder whose tensors have all been checked.

    Raises:
        UnsupportedCheckpointError: the configuration or the set of tensors is not one that can be exported.
    """

    def __init__(self, folder: Path) -> None:
        loaded = load_config(folder)
        self.folder = folder
        self.config: ModelConfig = loaded.model
        self.warnings = loaded.warnings
        self.weight_files = find_weight_files(folder)
        self._files: list[SafetensorsFile] = []
        try:
            self._files.extend(SafetensorsFile(path) for path in self.weight_files)
            self._sources = self._match_tensors()
            if self.config.says_untied and LM_HEAD not in self:
                self.warnings += (UNTIED_WARNING,)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the weight files."""
        while self._files:
            self._files.pop().close()

    def __getitem__(self, logical: str) -> TensorSource:
        return self._sources[logical]

    def __contains__(self, logical: str) -> bool:
        return logical in self._sources

    @property
    def source_files(self) -> list[Path]:
        """The files that determine the model: configuration and weights, sorted by name."""
        return sorted([self.folder / "config.json", *self.weight_files], key=lambda path: path.name)

    def _stored_entries(self) -> dict[str, tuple[SafetensorsFile, TensorEntry]]:
        entries: dict[str, tuple[SafetensorsFile, TensorEntry]] = {}
        for file in self._files:
            for name, dtype in file.dtypes_refused.items():
                if not is_ignored(name):
                    raise UnsupportedCheckpointError(
                        f"tensor {name} ({file.path.name})", f"dtype {dtype}", "BF16, F16 or F32 (unquantised) weights"
                    )
            for name, entry in file.entries.items():
                key = current_name(self.config.layout, name)
                if key in entries:
                    raise UnsupportedCheckpointError(
                        f"tensor {name}",
                        f"it twice ({entries[key][0].path.name}, {file.path.name})",
                        "each tensor once",
                    )
                entries[key] = (file, entry)
        return entries

    def _match_tensors(self) -> dict[str, TensorSource]:
        entries = self._stored_entries()
        sources: dict[str, TensorSource] = {}
        missing: list[str] = []
        used: set[str] = set()
        for logical, shape in logical_shapes(self.config).items():
            stored = stored_tensor(self.config.layout, logical, shape)
            if stored.name not in entries:
                if logical != LM_HEAD:
                    missing.append(stored.name)
                continue
            used.add(stored.name)
            file, entry = entries[stored.name]
            if entry.shape != stored.shape:
                raise UnsupportedCheckpointError(
                    f"tensor {stored.name} ({file.path.name})",
                    f"shape {list(entry.shape)}",
                    f"shape {list(stored.shape)}, which config.json asks for",
                )
            sources[logical] = TensorSource(file, entry, shape, stored.block)
        if missing:
            raise UnsupportedCheckpointError(
                "tensors",
                f"no {summary(missing)}",
                "every tensor config.json asks for",
                "The download may be incomplete.",
            )
        refuse_unexpected([name for name in entries if name not in used and not is_ignored(name)])
        return sources


def refuse_unexpected(names: list[str]) -> None:
    """Refuses a file with tensors that the exported model would leave out."""
    if names:
        adapters = any("lora_" in name for name in names)
        raise UnsupportedCheckpointError(
            "tensors",
            f"unexpected {summary(sorted(names))}",
            "the tensors that config.json asks for, and no others",
            "Merge the LoRA adapters into the weights first." if adapters else None,
        )


def summary(names: list[str]) -> str:
    """The first few names and how many more there are."""
    more = len(names) - MAX_NAMES_IN_MESSAGE
    return ", ".join(names[:MAX_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def find_weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: the shards of the index, or the single file."""
    index = folder / INDEX_NAME
    if index.is_file():
        weight_map = read_json_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UnsupportedCheckpointError(f"{INDEX_NAME} weight_map", "nothing usable", "a map from tensor to file")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if "/" in name or "\\" in name or not (folder / name).is_file():
                raise UnsupportedCheckpointError(INDEX_NAME, f"{name}, which is not in {folder}", "all shards in place")
        return [folder / name for name in names]
    single = folder / SINGLE_NAME
    if single.is_file():
        return [single]
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    found = f"none in {folder}" + (f" (but {pickles[0]})" if pickles else "")
    hint = "Convert the PyTorch files to safetensors first." if pickles else None
    raise UnsupportedCheckpointError("weight files", found, f"{SINGLE_NAME}, or shards with {INDEX_NAME}", hint)
