"""``verify`` accepts good packages and catches each kind of damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from conftest import export
from support import golden
from support.checkpoints import copy_checkpoint, read_tensors, write_tensors
from support.runtime import Package
from vintern_export.cli import main
from vintern_export.numbers import Precision
from vintern_export.package import ExportOptions
from vintern_export.verify.compare import TOLERANCES, compare
from vintern_export.verify.files import file_sha256, listed_files


@pytest.fixture
def package(packages: dict[str, Package], tmp_path: Path) -> Path:
    return Path(shutil.copytree(packages["ckpt_b"].folder, tmp_path / "package"))


def verify(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["verify", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def rehash(folder: Path) -> None:
    """Makes the manifest agree with changed files."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for entry in listed_files(manifest):
        entry["sha256"] = file_sha256(folder / entry["name"])
        entry["size"] = (folder / entry["name"]).stat().st_size
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
def test_good_packages_pass(packages: dict[str, Package], capsys: pytest.CaptureFixture[str], name: str) -> None:
    for extra in ([], ["--checkpoint", golden.checkpoint(name)]):
        code, text = verify(capsys, packages[name].folder, *extra)
        assert code == 0, text
        components = [line[:24].rstrip() for line in text.splitlines()]
        assert components == [
            "file hashes", "vision encoder", "projector", "decoder prefill", "decoder step with a past"
        ]  # fmt: skip
        assert text.count("pass") == 5


def test_half_precision_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ckpt_a", "ckpt_b"):
        source = golden.checkpoint(name)
        package = export(source, tmp_path / name, ExportOptions(precision=Precision.FP16))
        for extra in ([], ["--checkpoint", source]):
            code, text = verify(capsys, package.folder, *extra)
            assert code == 0, text
            assert text.count("fp16") == 4


def test_a_changed_byte_is_named(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = package / "decoder.onnx.data"
    data = bytearray(path.read_bytes())
    data[5_000_000] ^= 1
    path.write_bytes(data)
    code, text = verify(capsys, package)
    assert code == 1
    assert "decoder.onnx.data does not have the SHA-256 of the manifest" in text


def test_missing_and_shortened_files_are_named(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = package / "projector.onnx.data"
    path.write_bytes(path.read_bytes()[:-1])
    assert "projector.onnx.data has 176639 bytes, the manifest says 176640" in verify(capsys, package)[1]
    path.unlink()
    code, text = verify(capsys, package)
    assert (code, "projector.onnx.data is missing" in text) == (1, True)


def test_a_wrong_weight_is_caught_with_the_checkpoint(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(package / "decoder.onnx", load_external_data=False)
    name = "language_model.model.layers.1.self_attn.o_proj.weight"
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    offset = int(next(entry.value for entry in tensor.external_data if entry.key == "offset"))
    path = package / "decoder.onnx.data"
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = np.float32(3).tobytes()
    path.write_bytes(data)
    rehash(package)
    assert verify(capsys, package)[0] == 0, "without the checkpoint the package's own weights are the reference"
    code, text = verify(capsys, package, "--checkpoint", golden.checkpoint("ckpt_b"))
    assert code == 1
    failed = [line[:15] for line in text.splitlines() if line.endswith("FAIL")]
    assert failed == ["decoder prefill", "decoder step wi"]


def change_graph(folder: Path, graph: str, change: Callable[[Any], None]) -> None:
    path = folder / f"{graph}.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    rehash(folder)


def drop_last_gelu(graph: Any) -> None:
    node = [n for n in graph.node if n.op_type == "Gelu"][-1]
    node.attribute[0].s = b"tanh"


def wrong_scale(graph: Any) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "scale":
                attribute.f *= 1.01


@pytest.mark.parametrize(
    ("graph", "change", "component"),
    [("projector", drop_last_gelu, "projector"), ("decoder", wrong_scale, "decoder prefill")],
)
def test_a_wrong_operator_is_caught(
    package: Path, capsys: pytest.CaptureFixture[str], graph: str, change: Callable[[Any], None], component: str
) -> None:
    change_graph(package, graph, change)
    code, text = verify(capsys, package)
    assert code == 1
    assert any(line.startswith(component) and line.endswith("FAIL") for line in text.splitlines())


def test_a_graph_that_does_not_load(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_graph(package, "projector", lambda graph: setattr(graph.node[0], "op_type", "NoSuchOperator"))
    code, text = verify(capsys, package)
    assert (code, "projector.onnx does not load in ONNX Runtime" in text) == (1, True)


def test_recorded_parity(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(capsys, package, "--record")[0] == 0
    first = (package / "parity.safetensors").read_bytes()
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["parity"]["file"]["name"] == "parity.safetensors"
    tensors = load_file(package / "parity.safetensors")
    count = len(tensors["input_ids"])
    shapes = {name: (array.dtype.name, array.shape) for name, array in tensors.items()}
    assert shapes == {
        "pixel_values": ("float32", (2, 3, 112, 112)),
        "features": ("float32", (2, 64, 48)),
        "image_embeds": ("float32", (2, 16, 128)),
        "input_ids": ("int64", (count,)),
        "logits": ("float32", (931,)),
    }
    runtime = Package(package)
    logits = runtime.last_logits(runtime.embed(tensors["input_ids"].tolist()))
    np.testing.assert_allclose(logits, tensors["logits"], rtol=0, atol=1e-4)
    embeds = runtime.image_embeds(tensors["pixel_values"])
    np.testing.assert_allclose(embeds, tensors["image_embeds"], rtol=0, atol=1e-4)
    assert verify(capsys, package, "--record")[0] == 0
    assert (package / "parity.safetensors").read_bytes() == first
    assert not list(package.glob(".*"))


def test_nothing_is_recorded_after_a_failure(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_graph(package, "projector", drop_last_gelu)
    assert verify(capsys, package, "--record")[0] == 1
    assert not (package / "parity.safetensors").exists()


def test_infinite_values_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    tensors = read_tensors(folder)
    tensors["mlp1.3.bias"][1][0] = np.inf
    write_tensors(folder, tensors)
    code, text = verify(capsys, export(folder, tmp_path / "package").folder)
    assert code == 1
    assert [line[:9] for line in text.splitlines() if line.endswith("FAIL")] == ["projector"]


def test_comparison_is_relative_to_the_reference() -> None:
    reference = np.array([0.0, 200.0], np.float32)
    off = reference + np.float32(200 * TOLERANCES["fp32"] * 2)
    assert not compare("x", "fp32", [(off, reference)]).passed
    assert compare("x", "fp16", [(off, reference)]).passed
    assert not compare("x", "fp16", [(np.array([np.nan, 200], np.float32), reference)]).passed


def test_folders_that_are_no_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = verify(capsys, tmp_path)
    assert (code, "is not a model package" in text) == (2, True)
    (tmp_path / "manifest.json").write_text('{"format": "vintern-package", "format_version": 2}')
    code, text = verify(capsys, tmp_path)
    assert (code, "found format 'vintern-package' version 2; supported: 'vintern-package' 1" in text) == (2, True)
