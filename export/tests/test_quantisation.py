"""Weights of 4 and 8 bits: rounding, storage as the operator reads it, and what it costs."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from support import golden
from vintern_export.cli import main
from vintern_export.numbers import FloatArray
from vintern_export.quantisation import BlockFormat, Blocks, packed_codes, packed_zero_points, quantised

FORMATS = [
    BlockFormat(bits, size, symmetric) for bits in (4, 8) for size in (16, 32, 128) for symmetric in (True, False)
]


def matrix(rows: int, inputs: int) -> FloatArray:
    """Weights with heavy tails, as trained ones have."""
    return np.random.default_rng(7).standard_t(5, (rows, inputs)).astype(np.float32)


def product_by_the_operator(x: FloatArray, blocks: Blocks, form: BlockFormat, inputs: int, level: int) -> FloatArray:
    weights = {"codes": packed_codes(blocks.codes, form.bits), "scales": blocks.scales}
    if not form.symmetric:
        weights["zero_points"] = packed_zero_points(blocks.zero_points, form.bits)
    node = helper.make_node(
        "MatMulNBits", ["x", *weights], ["y"], domain="com.microsoft", K=inputs, N=len(blocks.codes), bits=form.bits,
        block_size=form.block_size, accuracy_level=level,
    )  # fmt: skip
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "product", floats[:1], floats[1:], initializers)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(onnx.ModelProto.SerializeToString(model), providers=["CPUExecutionProvider"])
    result: FloatArray = session.run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize("inputs", [256, 72])
def test_the_operator_reads_what_is_packed(form: BlockFormat, inputs: int) -> None:
    """With inputs that fill their last block and such that do not; odd numbers of blocks pad the zero points."""
    blocks = quantised(matrix(24, inputs), form)
    x = np.random.default_rng(1).standard_normal((5, inputs)).astype(np.float32)
    x[0] *= 1000
    expected = x @ blocks.values(inputs).T
    found = product_by_the_operator(x, blocks, form, inputs, 0)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max(axis=1).max())
    rounded = product_by_the_operator(x, blocks, form, inputs, 4)
    errors = np.linalg.norm(rounded - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert errors.max() < 0.02, "a massive row costs the others nothing"


def nearest(rows: FloatArray, form: BlockFormat) -> FloatArray:
    """Plain rounding to the nearest code, written out for one block a row."""
    low, high = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
    top = 2**form.bits - 1
    if form.symmetric:
        scale, zero = np.abs(rows).max(axis=1) / (2 ** (form.bits - 1)), np.full(len(rows), 2.0 ** (form.bits - 1))
    else:
        scale = (high - low) / top
        zero = np.rint(-low / scale)
    codes = np.clip(np.rint(rows / scale[:, None]) + zero[:, None], 0, top)
    return np.asarray((codes - zero[:, None]) * scale[:, None], np.float32)


@pytest.mark.parametrize(("bits", "gain"), [(4, 0.96), (8, 1.0)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [32, 128])
def test_it_is_closer_than_the_nearest_code(bits: int, gain: float, symmetric: bool, size: int) -> None:
    form = BlockFormat(bits, size, symmetric)
    rows = matrix(512, size)
    error = np.linalg.norm(quantised(rows, form).values(size) - rows, axis=1)
    plain = np.linalg.norm(nearest(rows, form) - rows, axis=1)
    assert error.sum() < (gain + 0.01 * form.has_short_scales) * plain.sum()
    # A short scale is at most a sixty-fourth off the best one.
    slack, share = (1.02, 0.95) if form.has_short_scales else (1.0001, 0.97)
    assert (error <= plain * slack).mean() > share


@pytest.mark.parametrize("size", [16, 32, 128])
def test_short_scales_fit_a_byte(size: int) -> None:
    """As the runtime keeps them: four bits of mantissa, 256 neighbouring numbers in a row."""
    rows = matrix(200, 8 * size)
    rows[1] *= 1e-30
    rows[2, size:] *= 1e-9
    rows[3, size:] = 0
    rows[4] = 0
    scales = quantised(rows, BlockFormat(4, size, symmetric=False)).scales
    bits = scales.view(np.uint32)
    assert not (bits & 0x7FFFF).any()
    assert (np.ptp(bits >> 19, axis=1) <= 255).all()
    assert (scales > 0).all()


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_blocks_without_variety(form: BlockFormat) -> None:
    rows = np.zeros((3, 2 * form.block_size), np.float32)
    rows[1], rows[2, form.block_size :] = 0.25, -3
    tolerance = 1 / 32 if form.has_short_scales else 1e-6
    np.testing.assert_allclose(quantised(rows, form).values(rows.shape[1]), rows, rtol=tolerance)


def test_threads_change_nothing() -> None:
    form, rows = BlockFormat(4, 32, symmetric=False), matrix(300, 1000)
    one, many = quantised(rows, form), quantised(rows, form, threads=5)
    for name in ("codes", "scales", "zero_points"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


def report(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def logits_error(text: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith("logits alone")]
    return float(line.split("rms rel")[1])


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (["int8"], 0.05),
        (["int8", "--accuracy-level", 0], 0.04),
        (["int8", "--block-size", 32], 0.05),
        (["int4"], 0.42),
        (["int4", "--accuracy-level", 0, "--lm-head", "int4"], 0.42),
        (["int4", "--block-size", 128, "--symmetric"], 0.7),
    ],
    ids=str,
)
def test_golden_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: list[object], limit: float
) -> None:
    """The graphs compute what the codes say; the error against the checkpoint is what these random networks make of it."""
    checkpoint = golden.checkpoint(name)
    assert main([str(checkpoint), str(tmp_path / "package"), "--precision", *map(str, words)]) == 0
    text = report(capsys, "verify", tmp_path / "package", "--checkpoint", checkpoint)
    assert text.count("pass") == 5
    assert logits_error(text) < limit


def test_graphics_processors_get_half_precision_and_no_zero_points(tmp_path: Path) -> None:
    words = [golden.checkpoint("ckpt_a"), tmp_path / "package", "--precision", "int4", "--for", "cuda"]
    assert main([str(word) for word in words]) == 0
    model = onnx.load(tmp_path / "package/decoder.onnx", load_external_data=False)
    types = {tensor.data_type for tensor in model.graph.initializer if not tensor.name.startswith("constant.")}
    assert types == {TensorProto.FLOAT16, TensorProto.UINT8}
    assert {len(node.input) for node in model.graph.node if node.op_type == "MatMulNBits"} == {3}


def operators(folder: Path, graph: str) -> set[str]:
    return {node.op_type for node in onnx.load(folder / f"{graph}.onnx", load_external_data=False).graph.node}


@pytest.mark.parametrize(("words", "quantised"), [([], True), (["--vision", "float"], False)])
def test_precision_of_the_vision_graphs(tmp_path: Path, words: list[str], quantised: bool) -> None:
    """Its biases are added by the operator, its patch embedding stays a plain product."""
    out = tmp_path / "package"
    assert main([str(golden.checkpoint("ckpt_a")), str(out), "--precision", "int4", *words]) == 0
    for graph in ("vision_encoder", "projector"):
        assert ("MatMulNBits" in operators(out, graph)) is quantised
    assert "MatMul" in operators(out, "vision_encoder")
    assert ("MatMul" in operators(out, "projector")) is not quantised
    manifest = json.loads((out / "manifest.json").read_text())
    (entry,) = manifest["graphs"]["vision_encoder"]
    assert entry["precision"] == ("int8" if quantised else "fp32")
    form = {"bits": 8, "block_size": 128, "symmetric": False}
    assert entry.get("quantisation") == ({"body": form, "accuracy_level": 4} if quantised else None)


@pytest.mark.parametrize(
    ("words", "cache"), [([], TensorProto.FLOAT16), (["--cache", "fp32"], TensorProto.FLOAT)], ids=str
)
def test_precision_of_the_cache(tmp_path: Path, words: list[str], cache: int) -> None:
    """Attention has one precision for all of its inputs; the rest of the graph is in float32."""
    out = tmp_path / "package"
    assert main([str(golden.checkpoint("ckpt_a")), str(out), "--precision", "int8", *words]) == 0
    graph = onnx.load(out / "decoder.onnx", load_external_data=False).graph
    found = {port.type.tensor_type.elem_type for port in graph.input if port.name.startswith("past_key_values.")}
    assert found == {cache}
    floats = {tensor.name: tensor.data_type for tensor in graph.initializer if tensor.data_type != TensorProto.UINT8}
    tables = {"rotary.cos", "rotary.sin"}
    assert {floats[name] for name in tables} == {cache}
    others = {kind for name, kind in floats.items() if name not in tables and not name.startswith("constant.")}
    assert others == {TensorProto.FLOAT}
    layers = sum(node.op_type == "GroupQueryAttention" for node in graph.node)
    casts = sum(node.op_type == "Cast" for node in graph.node)
    assert casts == (2 * layers if cache == TensorProto.FLOAT16 else 0)


def test_a_cache_in_float32_is_for_cpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [golden.checkpoint("ckpt_a"), tmp_path / "p", "--precision", "int4", "--for", "cuda", "--cache", "fp32"]
    assert main([str(word) for word in words]) == 2
    assert "--cache fp32 with --for cuda: found no kernel of its attention" in capsys.readouterr().err


def test_quantised_vision_is_for_cpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [golden.checkpoint("ckpt_a"), tmp_path / "p", "--precision", "int4", "--for", "cuda", "--vision", "int8"]
    assert main([str(word) for word in words]) == 2
    assert "--vision int8 with --for cuda: found no kernel that gains by it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--block-size", "32"], ["--symmetric"], ["--lm-head", "int4"], ["--vision", "int8"], ["--cache", "fp16"]],
)
def test_options_of_quantisation_without_it_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main([str(golden.checkpoint("ckpt_a")), str(tmp_path / "package"), *words]) == 2
    assert f"{words[0]} is for quantised weights; found --precision fp32" in capsys.readouterr().err
    assert not (tmp_path / "package").exists()
