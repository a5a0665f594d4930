"""Graphs of standard operators: which operators they hold, and that they share weights with the fused ones."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from support import golden
from vintern_export.cli import main

COMPONENTS = ("vision_encoder", "projector", "decoder")
TENSORRT = json.loads((Path(__file__).parent / "data/tensorrt_operators.json").read_text())
"""Operators and number formats that TensorRT's parser takes; where the list is from stands in it."""
TYPE_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "FP32", TensorProto.FLOAT16: "FP16", TensorProto.INT32: "INT32", TensorProto.INT64: "INT64",
}  # fmt: skip


def exported(folder: Path, checkpoint: str, *words: str) -> dict[str, Any]:
    assert main([str(golden.checkpoint(checkpoint)), str(folder), *words]) == 0
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def tensor_types(path: Path) -> dict[str, int]:
    """Number format of every tensor of a graph, as ONNX infers it."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), strict_mode=True).graph
    values = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)
    }
    return values | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("checkpoint", ["ckpt_a", "ckpt_b"])
def test_standard_graphs(tmp_path: Path, checkpoint: str, precision: str) -> None:
    """Only ai.onnx operators, checked in full with their shapes; and they compute what NumPy does."""
    out = tmp_path / "package"
    manifest = exported(out, checkpoint, "--variant", "standard", "--precision", precision)
    for component in COMPONENTS:
        (entry,) = manifest["graphs"][component]
        assert (entry["variant"], set(entry["opset"])) == ("standard", {"ai.onnx"})
        path = out / entry["files"][0]["name"]
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path, load_external_data=False)
        assert {node.domain for node in model.graph.node} == {""}
        first, last = TENSORRT["opsets"]
        assert first <= entry["opset"]["ai.onnx"] <= last
        types = tensor_types(path)
        for node in model.graph.node:
            taken = TENSORRT["operators"].get(node.op_type)
            assert taken, f"{node.op_type} is not on TensorRT's list"
            found = {TYPE_NAMES[types[name]] for name in (*node.input, *node.output) if name}
            assert found <= set(taken), f"{node.op_type}: {found} of {taken}"
    assert main(["verify", str(out), "--checkpoint", str(golden.checkpoint(checkpoint))]) == 0


def test_both_variants_share_their_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "package"
    manifest = exported(out, "ckpt_a", "--variant", "both")
    for component in COMPONENTS:
        fused, standard = manifest["graphs"][component]
        assert (fused["variant"], standard["variant"]) == ("fused", "standard")
        assert fused["files"][1] == standard["files"][1]
        assert standard["files"][0]["name"] == f"{component}.standard.onnx"
    assert len(list(out.glob("*.data"))) == len(COMPONENTS)
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    assert capsys.readouterr().out.count("pass") == 9


@pytest.mark.parametrize(
    ("provider", "variants"),
    [("cpu", ["fused"]), ("tensorrt", ["fused", "standard"]), ("openvino", ["fused", "standard"])],
)
def test_variants_by_provider(tmp_path: Path, provider: str, variants: list[str]) -> None:
    manifest = exported(tmp_path / "package", "ckpt_a", "--for", provider)
    entries = manifest["graphs"]["decoder"]
    assert [entry["variant"] for entry in entries] == variants
    assert entries[-1]["providers"] == [provider]


@pytest.mark.parametrize("words", [["--variant", "standard"], ["--variant", "both"], ["--for", "tensorrt"]])
def test_quantised_standard_graphs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main([str(golden.checkpoint("ckpt_a")), str(tmp_path / "p"), "--precision", "int8", *words]) == 2
    assert "found no standard operator for quantised matrices; supported: fp32, fp16" in capsys.readouterr().err
