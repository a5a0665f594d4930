"""Tables, streams and graph options, each against a plain evaluation."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import export
from support import golden
from support.checkpoints import copy_checkpoint, read_tensors, write_tensors
from vintern_export import weights
from vintern_export.checkpoint import Checkpoint
from vintern_export.numbers import BF16, F32, FloatArray, to_bfloat16_bits, to_float32
from vintern_export.tables import resize_position_embedding, rotary_tables
from vintern_export.verify.mathematics import erf, gelu, silu
from vintern_export.verify.run import verify_package
from vintern_export.weights import LinearWeight, PlainWeight


def kernel(t: float) -> float:
    t, a = abs(t), -0.75
    if t <= 1:
        return ((a + 2) * t - (a + 3)) * t * t + 1
    return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a if t < 2 else 0.0


def resized_value(table: FloatArray, y: int, x: int, target: int) -> FloatArray:
    """One cell of a bicubic resize without antialiasing, borders clamped, written out."""
    source = len(table)
    total = np.zeros(table.shape[2])
    centre_y, centre_x = ((d + 0.5) * source / target - 0.5 for d in (y, x))
    for row in range(math.floor(centre_y) - 1, math.floor(centre_y) + 3):
        for column in range(math.floor(centre_x) - 1, math.floor(centre_x) + 3):
            cell = table[min(max(row, 0), source - 1), min(max(column, 0), source - 1)]
            total += kernel(centre_y - row) * kernel(centre_x - column) * cell
    return total.astype(np.float32)


@pytest.mark.parametrize(("source", "target"), [(8, 5), (5, 8), (32, 16), (16, 32), (3, 7)])
def test_position_interpolation(source: int, target: int) -> None:
    table = np.random.default_rng(1).standard_normal((source**2 + 1, 6), dtype=np.float32)
    resized = resize_position_embedding(table, target)
    assert resized.shape == (target**2 + 1, 6)
    np.testing.assert_array_equal(resized[0], table[0])
    grid = table[1:].reshape(source, source, 6)
    expected = np.stack([resized_value(grid, y, x, target) for y in range(target) for x in range(target)])
    np.testing.assert_allclose(resized[1:], expected, rtol=0, atol=5e-6)


def test_position_interpolation_to_the_same_size_is_exact() -> None:
    table = np.random.default_rng(1).standard_normal((50, 6), dtype=np.float32)
    assert resize_position_embedding(table, 7) is table


def test_rotary_tables() -> None:
    cosines, sines = rotary_tables(128, 1e6, 32768)
    assert cosines.shape == sines.shape == (32768, 64)
    np.testing.assert_allclose(cosines**2 + sines**2, 1, atol=3e-7)
    angle = np.arange(32768) * 1.0
    np.testing.assert_allclose(cosines[:, 0], np.cos(angle), atol=1e-7)
    # The angle itself is a float32: exact frequencies would give another table far from the start.
    frequency = np.float32(1) / np.float32(1e6 ** (2 / 128))
    rounded = (np.arange(32768, dtype=np.float32) * frequency).astype(np.float64)
    np.testing.assert_allclose(sines[:, 1], np.sin(rounded), atol=1e-7)


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.14159], np.float32)
    exact = to_float32(to_bfloat16_bits(values), BF16)
    np.testing.assert_array_equal(exact[:4], np.array([1, 1, 1 + 2**-6, 1 + 2**-7], np.float32))
    assert abs(exact[4] + 3.14159) < 2**-7


def joined(weight: LinearWeight | PlainWeight) -> FloatArray:
    return np.concatenate([piece.reshape(-1) for piece in weight.pieces()]).reshape(weight.shape)


@pytest.mark.parametrize("held", [1 << 30, 4096, 1])
@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
def test_streams_give_the_same_values_whatever_the_budget(
    monkeypatch: pytest.MonkeyPatch, name: str, held: int
) -> None:
    monkeypatch.setattr(weights, "HELD_BYTES", held)
    monkeypatch.setattr(weights, "BLOCK_BYTES", max(1, held // 3))
    prefix = "language_model.model.layers.0.self_attn."
    with Checkpoint(golden.checkpoint(name)) as checkpoint:
        sources = [checkpoint[f"{prefix}{part}_proj.weight"] for part in "qkv"]
        expected = np.concatenate([source.float32() for source in sources])
        np.testing.assert_array_equal(joined(LinearWeight(sources)), expected.T)
        scale = np.linspace(-1, 1, len(expected), dtype=np.float32)
        np.testing.assert_array_equal(joined(LinearWeight(sources, scale)), (expected * scale[:, None]).T)
        np.testing.assert_array_equal(joined(PlainWeight(*sources, scale=scale)), expected * scale[:, None])


def test_reference_functions() -> None:
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    np.testing.assert_allclose(erf(x), [math.erf(v) for v in x], rtol=0, atol=6e-8)
    np.testing.assert_allclose(gelu(x), [v / 2 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()], atol=1e-6)
    np.testing.assert_allclose(silu(x), [v / (1 + math.exp(-v)) for v in x.tolist()], atol=1e-6)
    assert np.isfinite(silu(np.array([-1e30, 1e30], np.float32))).all()


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
@pytest.mark.parametrize(
    "values",
    [
        {"force_image_size": 84},
        {"force_image_size": 196, "ps_version": "v1"},
        {"ps_version": "v2"},
        {"downsample_ratio": 1},
        {"select_layer": 1},
        {"select_layer": 0},
    ],
)
def test_options_of_the_original_layout(tmp_path: Path, name: str, values: dict[str, Any]) -> None:
    """Each is exported and compared with NumPy on the checkpoint's own weights."""
    folder = copy_checkpoint(golden.checkpoint(name), tmp_path / "checkpoint", lambda config: config.update(values))
    tensors = read_tensors(folder)
    if values.get("downsample_ratio") == 1:
        width, hidden = tensors["vision_model.encoder.layers.0.ls1"][1].shape[0], tensors["mlp1.3.bias"][1].shape[0]
        generator = np.random.default_rng(2)
        for key, shape in (("mlp1.0.weight", (width,)), ("mlp1.0.bias", (width,)), ("mlp1.1.weight", (hidden, width))):
            tensors[key] = (F32, generator.standard_normal(shape, dtype=np.float32))
        write_tensors(folder, tensors)
    package = export(folder, tmp_path / "package")
    lines: list[str] = []
    assert verify_package(package.folder, folder, record=False, report=lines.append), lines


def test_layers_after_the_selected_one_are_not_exported(tmp_path: Path) -> None:
    source = golden.checkpoint("ckpt_a")
    selected = copy_checkpoint(source, tmp_path / "selected", lambda config: config.update(select_layer=-2))

    def shorten(config: dict[str, Any]) -> None:
        config["vision_config"]["num_hidden_layers"] = 1

    shorter = copy_checkpoint(source, tmp_path / "shorter", shorten)
    dropped = "vision_model.encoder.layers.1."
    write_tensors(shorter, {name: t for name, t in read_tensors(shorter).items() if not name.startswith(dropped)})
    first, second = (export(folder, tmp_path / f"package-{folder.name}") for folder in (selected, shorter))
    for name in ("vision_encoder.onnx", "vision_encoder.onnx.data"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    assert first.manifest["architecture"]["vision_num_hidden_layers"] == 1


def test_a_padded_vocabulary_and_an_explicit_head_dim(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["llm_config"] |= {"vocab_size": 960, "head_dim": 32}

    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint", change)
    tensors, generator = read_tensors(folder), np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "language_model.model.embed_tokens.weight": (960, 64),
        "language_model.lm_head.weight": (960, 64),
    }
    for index in range(2):
        prefix = f"language_model.model.layers.{index}.self_attn."
        for part, size in (("q", 128), ("k", 64), ("v", 64)):
            shapes |= {f"{prefix}{part}_proj.weight": (size, 64), f"{prefix}{part}_proj.bias": (size,)}
        shapes[f"{prefix}o_proj.weight"] = (64, 128)
    for name, shape in shapes.items():
        tensors[name] = (F32, generator.standard_normal(shape, dtype=np.float32) / np.float32(8))
    write_tensors(folder, tensors)
    package = export(folder, tmp_path / "package")
    architecture = package.manifest["architecture"]
    assert (architecture["vocab_size"], architecture["head_dim"]) == (960, 32)
    lines: list[str] = []
    assert verify_package(package.folder, folder, record=False, report=lines.append), lines
