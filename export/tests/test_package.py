"""The package as files: contract, determinism, atomicity."""

import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from conftest import export
from support import golden
from support.checkpoints import copy_checkpoint, read_tensors, write_tensors
from support.runtime import Package
from vintern_export import graph_file
from vintern_export.cli import main
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.numbers import F32, FloatArray, Precision
from vintern_export.package import ExportOptions
from vintern_export.source_hash import source_digest
from vintern_export.verify.files import listed_files
from vintern_export.weights import LinearWeight

TOP_KEYS = [
    "format", "format_version", "exporter", "source", "architecture", "tiling", "prompt", "tokens", "tokenizer",
    "embed_tokens", "graphs",
]  # fmt: skip
DTYPES = {1: "fp32", 6: "int32", 7: "int64", 10: "fp16"}


def entries(value: Any) -> list[str]:
    return sorted(path.name for path in value.iterdir())


@pytest.mark.parametrize("name", ["ckpt_a", "ckpt_b"])
def test_manifest(packages: dict[str, Package], name: str) -> None:
    package = packages[name]
    manifest = package.manifest
    assert list(manifest) == TOP_KEYS
    assert (manifest["format"], manifest["format_version"]) == ("vintern-package", 1)
    files = list(listed_files(manifest))
    assert sorted([*(entry["name"] for entry in files), "manifest.json"]) == entries(package.folder)
    for entry in files:
        data = (package.folder / entry["name"]).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest["tiling"]["max_tiles"] == 6


def test_architecture(packages: dict[str, Package]) -> None:
    assert packages["ckpt_b"].manifest["architecture"] == {
        "image_size": 112, "patch_size": 14, "tokens_per_tile": 16, "vision_hidden_size": 48,
        "vision_num_hidden_layers": 2, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 931, "embedding_rows": 931, "max_length": 32768,
    }  # fmt: skip
    source = packages["ckpt_b"].manifest["source"]
    names = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    digest = source_digest([golden.checkpoint("ckpt_b") / name for name in names])
    assert source == {"name": "ckpt_b", "layout": "internvl_chat", "sha256": digest}


@pytest.mark.parametrize("graph", ["vision_encoder", "projector", "decoder"])
def test_graph_files_match_the_manifest(packages: dict[str, Package], graph: str) -> None:
    package = packages["ckpt_b"]
    variant = package.variant(graph)
    assert [file["name"] for file in variant["files"]] == [f"{graph}.onnx", f"{graph}.onnx.data"]
    model = onnx.load(package.folder / f"{graph}.onnx", load_external_data=False)
    assert model.ir_version <= 10
    opsets = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    assert opsets == variant["opset"]
    assert opsets["ai.onnx"] <= 23
    for ports, key in ((model.graph.input, "inputs"), (model.graph.output, "outputs")):
        found = [
            {
                "name": port.name,
                "dtype": DTYPES[port.type.tensor_type.elem_type],
                "shape": [d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim],
            }
            for port in ports
        ]
        assert found == variant[key]
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            assert place["location"] == f"{graph}.onnx.data"
            assert int(place["offset"]) % 4096 == 0


def test_decoder_ports_follow_the_contract(packages: dict[str, Package]) -> None:
    variant = packages["ckpt_a"].variant("decoder")
    cache = ["rows", 2, "capacity", 16]
    assert variant["inputs"][:3] == [
        {"name": "inputs_embeds", "dtype": "fp32", "shape": ["rows", "positions", 64]},
        {"name": "seqlens_k", "dtype": "int32", "shape": ["rows"]},
        {"name": "total_sequence_length", "dtype": "int32", "shape": []},
    ]
    names = [f"past_key_values.{i}.{part}" for i in range(2) for part in ("key", "value")]
    assert variant["inputs"][3:] == [{"name": name, "dtype": "fp32", "shape": cache} for name in names]
    assert variant["outputs"][0] == {"name": "logits", "dtype": "fp32", "shape": ["rows", 931]}
    presents = [name.replace("past_key_values", "present") for name in names]
    assert variant["outputs"][1:] == [{"name": name, "dtype": "fp32", "shape": cache} for name in presents]


def test_export_is_deterministic(packages: dict[str, Package], tmp_path: Path) -> None:
    again = export(golden.checkpoint("ckpt_a"), tmp_path / "again")
    for name in entries(again.folder):
        assert (again.folder / name).read_bytes() == (packages["ckpt_a"].folder / name).read_bytes(), name


def test_embedding_table_is_copied_verbatim(packages: dict[str, Package]) -> None:
    for name, dtype in (("ckpt_a", "fp32"), ("ckpt_b", "bf16")):
        assert packages[name].manifest["embed_tokens"]["dtype"] == dtype
        stored = read_tensors(golden.checkpoint(name))["language_model.model.embed_tokens.weight"][1].tobytes()
        assert (packages[name].folder / "embed_tokens.safetensors").read_bytes().endswith(stored)


def test_half_precision(tmp_path: Path, packages: dict[str, Package]) -> None:
    options = ExportOptions(precision=Precision.FP16, provider="cuda")
    package = export(golden.checkpoint("ckpt_b"), tmp_path / "half", options)
    variant = package.variant("decoder")
    assert (variant["precision"], variant["providers"]) == ("fp16", ["cuda"])
    dtypes = {port["dtype"] for port in variant["inputs"] if port["name"].startswith("past")}
    assert dtypes == {"fp16"}
    exact, ids = packages["ckpt_b"], golden.arrays("ckpt_b")["lm_text.input_ids"].tolist()
    assert abs(package.last_logits(package.embed(ids)) - exact.last_logits(exact.embed(ids))).max() < 0.05
    sizes = [p.variant("decoder")["files"][1]["size"] for p in (package, exact)]
    assert sizes[0] < 0.6 * sizes[1]


def test_half_precision_refuses_values_beyond_its_range(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    tensors = read_tensors(folder)
    name = "language_model.model.layers.1.mlp.down_proj.weight"
    assert tensors[name][0] is F32
    tensors[name][1][3, 5] = 1e5
    write_tensors(folder, tensors)
    with pytest.raises(
        UnsupportedCheckpointError, match=rf"{name}: found a value of magnitude 100000; supported: .* 65504"
    ):
        export(folder, tmp_path / "package", ExportOptions(precision=Precision.FP16))
    assert entries(tmp_path) == ["checkpoint"]
    export(folder, tmp_path / "package")


def test_an_existing_folder_is_refused_without_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "package"
    words = [str(golden.checkpoint("ckpt_a")), str(out)]
    out.mkdir()
    assert main(words) == 0, "an empty folder is as good as none"
    (out / "decoder.onnx").write_bytes(b"old")
    assert main(words) == 2
    assert f"{out} exists already" in capsys.readouterr().err
    assert (out / "decoder.onnx").read_bytes() == b"old"
    assert main([*words, "--force"]) == 0
    assert (out / "decoder.onnx").read_bytes() != b"old"
    assert entries(tmp_path) == ["package"]


def test_force_replaces_packages_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    assert main([str(folder), str(folder), "--force"]) == 2
    assert "holds files but no manifest.json" in capsys.readouterr().err
    assert (folder / "config.json").is_file()
    (tmp_path / "file").touch()
    assert main([str(folder), str(tmp_path / "file"), "--force"]) == 2


@pytest.fixture
def package_of_old(tmp_path: Path) -> Path:
    """A package that a failed export must leave alone."""
    return export(golden.checkpoint("ckpt_b"), tmp_path / "package").folder


def failing_pieces(error: BaseException) -> Any:
    def pieces(_: LinearWeight) -> Iterator[FloatArray]:
        raise error

    return pieces


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(5, "Input/output error"), 3), (KeyboardInterrupt(), 130), (MemoryError(), None)]
)
def test_a_failure_midway_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, package_of_old: Path, error: BaseException, code: int | None
) -> None:
    before = {path.name: path.read_bytes() for path in package_of_old.iterdir()}
    monkeypatch.setattr(LinearWeight, "pieces", failing_pieces(error))
    words = [str(golden.checkpoint("ckpt_a")), str(package_of_old), "--force"]
    if code is None:
        with pytest.raises(type(error)):
            main(words)
    else:
        assert main(words) == code
    assert entries(package_of_old.parent) == ["package"]
    assert {path.name: path.read_bytes() for path in package_of_old.iterdir()} == before


def test_a_termination_signal_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def terminate(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(graph_file, "onnx_model", terminate)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([str(golden.checkpoint("ckpt_a")), str(tmp_path / "package")]) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert entries(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    result = subprocess.run(
        [sys.executable, "-m", "vintern_export", str(golden.checkpoint("ckpt_a")), str(tmp_path / "package")],
        preexec_fn=small_files_only,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 3
    assert "error: cannot write decoder.onnx.data: File too large" in result.stderr
    assert entries(tmp_path) == []


def test_too_little_space_is_seen_in_advance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert main([str(golden.checkpoint("ckpt_a")), str(tmp_path / "package")]) == 3
    assert "not enough space" in capsys.readouterr().err
    assert entries(tmp_path) == []
