"""Runs the graphs of a package on ONNX Runtime's CPU provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from vintern_export.errors import PackageError
from vintern_export.graph import Variant

if TYPE_CHECKING:
    from pathlib import Path

    from vintern_export.numbers import FloatArray

Entry = dict[str, Any]
MASKED = -65504.0
"""Bias of a position that takes no part: the lowest float16."""
TOLERATES_NO_PREPACKING = ("fp32", "fp16")
"""Precisions whose matrices can be read as they are stored; MatMulNBits has no fast kernel for unpacked weights."""


class Session:
    """One graph, without prepacked copies of its weights where that can be.

    float32 weights stay mapped files, so a large package needs little memory of its own. The CPU provider computes
    float16 graphs through float32 and holds such copies of the weights, twice the size of the graph's data file.
    """

    def __init__(self, folder: Path, variant: Entry) -> None:
        self.variant = variant
        options = onnxruntime.SessionOptions()
        if variant["precision"] in TOLERATES_NO_PREPACKING:
            options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        name = variant["files"][0]["name"]
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / name),
                options,
                providers=["CPUExecutionProvider"],
            )
        except Exception as error:  # the binding raises bare exceptions of its own
            raise PackageError(f"{name} does not load in ONNX Runtime {onnxruntime.__version__}: {error}") from error

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Evaluates the graph; outputs by name."""
        names = [output["name"] for output in self.variant["outputs"]]
        return dict(zip(names, self._session.run(names, feeds), strict=True))


class DecoderSession:
    """A decoder with a key-value cache of fixed capacity for some rows."""

    def __init__(self, folder: Path, variant: Entry, capacity: int) -> None:
        self._session = Session(folder, variant)
        self._cache_inputs = [port for port in variant["inputs"] if port["name"].startswith("past_key_values.")]
        self._capacity = capacity

    def empty_cache(self, rows: int) -> dict[str, Any]:
        """Zeros [rows, kv heads, capacity, head_dim] for every past input."""
        sizes = {"rows": rows, "capacity": self._capacity}
        return {
            port["name"]: np.zeros(
                [sizes.get(axis, axis) for axis in port["shape"]], np.float16 if port["dtype"] == "fp16" else np.float32
            )
            for port in self._cache_inputs
        }

    def run(self, embeds: FloatArray, past: list[int], cache: dict[str, Any]) -> tuple[FloatArray, dict[str, Any]]:
        """One call: embeds [rows, positions, H] after ``past`` positions a row -> (logits [rows, V], new cache)."""
        if self._session.variant["variant"] == Variant.STANDARD.value:
            return self._run_standard(embeds, past, cache)
        totals = [length + embeds.shape[1] for length in past]
        feeds = {
            "inputs_embeds": embeds,
            "seqlens_k": np.array([total - 1 for total in totals], np.int32),
            "total_sequence_length": np.array(max(totals), np.int32),
        }
        outputs = self._session.run(feeds | cache)
        logits = outputs.pop("logits")
        return logits, {name.replace("present.", "past_key_values."): value for name, value in outputs.items()}

    def _run_standard(
        self, embeds: FloatArray, past: list[int], cache: dict[str, Any]
    ) -> tuple[FloatArray, dict[str, Any]]:
        """The graph gives the new keys and values alone; they are written behind each row's past."""
        rows, positions = embeds.shape[:2]
        bias = np.full((rows, 1, positions, self._capacity + positions), MASKED, np.float32)
        for row, length in enumerate(past):
            bias[row, :, :, :length] = 0
            bias[row, :, :, self._capacity :] = np.triu(np.full((positions, positions), MASKED, np.float32), 1)
        feeds = {
            "inputs_embeds": embeds,
            "position_ids": np.array([np.arange(positions) + length for length in past], np.int32),
            "attention_bias": bias,
        }
        outputs = self._session.run(feeds | cache)
        logits = outputs.pop("logits")
        updated = {name: value.copy() for name, value in cache.items()}
        for name, new in outputs.items():
            for row, length in enumerate(past):
                target = updated[name.replace("present.", "past_key_values.")]
                target[row, :, length : length + positions] = new[row]
        return logits, updated
