"""Head sizes that the decoder's attention operator does not take are widened with zeros, and nothing changes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from conftest import export
from vintern_export import weights
from vintern_export.checkpoint import Checkpoint
from vintern_export.config_types import Layout
from vintern_export.head_padding import (
    channel_places,
    padded_head_dim,
    padded_rotary,
    padded_vector,
    widened_columns,
    widened_rows,
)
from vintern_export.numbers import BF16, F16, F32, FloatArray, Precision, StoredDtype
from vintern_export.package import ExportOptions, export_package
from vintern_export.quantisation import BlockFormat
from vintern_export.quantised_matrix import MatrixStorage
from vintern_export.synth.checkpoint import write_checkpoint
from vintern_export.synth.shapes import SHAPES
from vintern_export.tables import rotary_tables
from vintern_export.verify.run import verify_package
from vintern_export.weights import LinearWeight

HEADS, KEY_VALUE_HEADS = 4, 2


def checkpoint_with(head_dim: int, folder: Path, dtype: StoredDtype = F32) -> Path:
    shape = dataclasses.replace(SHAPES["tiny"], hidden_size=HEADS * head_dim, max_position_embeddings=512)
    write_checkpoint(shape, folder, Layout.ORIGINAL, dtype, head_dim)
    return folder


def test_places_of_channels() -> None:
    assert [padded_head_dim(size) for size in (2, 8, 16, 20, 40, 64, 128)] == [16, 16, 16, 32, 48, 64, 128]
    assert channel_places(8, 4).tolist() == [0, 1, 8, 9, 16, 17, 24, 25]
    assert channel_places(96, 32).tolist() == list(range(96))
    assert padded_vector(np.arange(1, 5, dtype=np.float32), 4).tolist() == [1, 2, *[0] * 6, 3, 4, *[0] * 6]


def test_padding_turns_by_no_angle() -> None:
    cosines, sines = padded_rotary(*rotary_tables(20, 1e4, 9))
    assert cosines.shape == sines.shape == (9, 16)
    assert (cosines[:, 10:] == 1).all()
    assert (sines[:, 10:] == 0).all()
    assert (sines[1:, :10] != 0).all()


def by_hand(matrix: FloatArray, head_dim: int) -> FloatArray:
    """Zero rows after each half of each head."""
    half, wide = head_dim // 2, padded_head_dim(head_dim) // 2
    parts = []
    for start in range(0, len(matrix), half):
        parts += [matrix[start : start + half], np.zeros((wide - half, matrix.shape[1]), np.float32)]
    return np.concatenate(parts)


@pytest.mark.parametrize("held", [1 << 30, 4096, 1])
@pytest.mark.parametrize("dtype", [BF16, F16, F32])
def test_streams_of_widened_matrices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: StoredDtype, held: int
) -> None:
    monkeypatch.setattr(weights, "HELD_BYTES", held)
    monkeypatch.setattr(weights, "BLOCK_BYTES", max(1, held // 3))
    prefix = "language_model.model.layers.0.self_attn."
    with Checkpoint(checkpoint_with(20, tmp_path / "checkpoint", dtype)) as checkpoint:
        sources = [checkpoint[f"{prefix}{part}_proj.weight"] for part in "qkv"]
        rows = LinearWeight([widened_rows(source, 20) for source in sources])
        expected = np.concatenate([by_hand(source.float32(), 20) for source in sources]).T
        np.testing.assert_array_equal(np.concatenate(list(rows.pieces())), expected)
        source = checkpoint[f"{prefix}o_proj.weight"]
        columns = LinearWeight([widened_columns(source, 20)])
        np.testing.assert_array_equal(np.concatenate(list(columns.pieces())), by_hand(source.float32().T, 20))
        assert widened_rows(source, 32) is source
        assert widened_columns(source, 32) is source


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("head_dim", [2, 8, 20, 24, 40])
def test_every_even_head_size_verifies(tmp_path: Path, head_dim: int, precision: Precision) -> None:
    folder = checkpoint_with(head_dim, tmp_path / "checkpoint")
    package = export(folder, tmp_path / "package", ExportOptions(precision=precision))
    padded = padded_head_dim(head_dim)
    assert package.manifest["architecture"]["head_dim"] == padded
    assert package.variant("decoder")["inputs"][3]["shape"] == ["rows", KEY_VALUE_HEADS, "capacity", padded]
    for source in (folder, None):
        lines: list[str] = []
        assert verify_package(package.folder, source, record=False, report=lines.append), lines


def test_quantised_projections_of_widened_heads(tmp_path: Path) -> None:
    folder = checkpoint_with(20, tmp_path / "checkpoint")
    form = BlockFormat(8, 32, symmetric=False)
    storage = MatrixStorage("int8", form, form, accuracy_level=0)
    lines: list[str] = []
    export_package(folder, tmp_path / "package", "name", ExportOptions(storage=storage), lines.append)
    assert verify_package(tmp_path / "package", folder, record=False, report=lines.append), lines


def test_padding_of_the_cache_stays_zero(tmp_path: Path) -> None:
    package = export(checkpoint_with(20, tmp_path / "checkpoint"), tmp_path / "package")
    session = package.decoder(8)
    embeds = np.random.default_rng(1).standard_normal((1, 5, HEADS * 20), dtype=np.float32)
    _, cache = session.run(embeds, [0], session.empty_cache(1))
    padding = np.setdiff1d(np.arange(32), channel_places(20, 20))
    for values in cache.values():
        assert (values[..., padding] == 0).all()
        assert (values[:, :, :5][..., channel_places(20, 20)] != 0).any(axis=-1).all()
