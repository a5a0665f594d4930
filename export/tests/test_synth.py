"""Random checkpoints: reproducible, exportable, with sensible activations; and the memory bound of an export."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import export
from support.checkpoints import read_config, read_tensors
from vintern_export.checkpoint import Checkpoint
from vintern_export.cli import main
from vintern_export.config_types import Layout
from vintern_export.layout import LM_HEAD
from vintern_export.numbers import BF16
from vintern_export.prompt import INTERNVL_2_5_MESSAGE, SENSETIME_MESSAGE
from vintern_export.synth import checkpoint as synth_checkpoint
from vintern_export.synth.checkpoint import write_checkpoint
from vintern_export.synth.noise import POOL_SIZE, RUN_SIZE, Noise
from vintern_export.synth.shapes import SHAPES, checkpoint_config
from vintern_export.synth.vocabulary import make_vocabulary, write_vocabulary
from vintern_export.tokenizer import export_tokenizer
from vintern_export.verify.run import verify_package

MEASURED = """
import sys
from pathlib import Path
from vintern_export.cli import main
code = main(sys.argv[1:])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(code, int(peak.split()[1]) * 1024)
"""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("layout", ["original", "transformers"])
def test_every_layout_and_dtype_exports_and_verifies(tmp_path: Path, layout: str, dtype: str) -> None:
    folder = tmp_path / "checkpoint"
    assert main(["synth", "tiny", str(folder), "--layout", layout, "--dtype", dtype]) == 0
    package = export(folder, tmp_path / "package")
    assert package.manifest["embed_tokens"]["dtype"] == dtype
    lines: list[str] = []
    assert verify_package(package.folder, folder, record=False, report=lines.append), lines


def test_the_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("first", "1"), ("again", "1"), ("other", "2")):
        assert main(["synth", "tiny", str(tmp_path / name), "--seed", seed]) == 0
    assert files(tmp_path / "first") == files(tmp_path / "again")
    assert files(tmp_path / "first")["model.safetensors"] != files(tmp_path / "other")["model.safetensors"]


def test_both_layouts_hold_the_same_kind_of_model(tmp_path: Path) -> None:
    for layout in ("original", "transformers"):
        assert main(["synth", "tiny", str(tmp_path / layout), "--layout", layout]) == 0
    configs = []
    for layout in ("original", "transformers"):
        with Checkpoint(tmp_path / layout) as checkpoint:
            configs.append((checkpoint.config.vision, checkpoint.config.language, checkpoint.config.tokens_per_tile))
    assert configs[0] == configs[1]


@pytest.mark.parametrize(
    ("name", "rows", "image_start", "tied"),
    [("vintern-3b", 151674, 151665, False), ("vintern-1b", 151655, 151646, True)],
)
def test_big_shapes_have_the_real_ids(tmp_path: Path, name: str, rows: int, image_start: int, tied: bool) -> None:
    shape = SHAPES[name]
    vocabulary = make_vocabulary(shape)
    assert vocabulary.size == rows
    assert [vocabulary.added[t] for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [151643, 151644, 151645]
    assert [vocabulary.added[t] for t in ("<img>", "</img>", "<IMG_CONTEXT>")] == [image_start + i for i in range(3)]
    config = checkpoint_config(shape, Layout.ORIGINAL, BF16, vocabulary.added, vocabulary.size)
    for single_file in (False, True):
        folder = tmp_path / str(single_file)
        folder.mkdir()
        write_vocabulary(vocabulary, folder, single_file=single_file)
        exported = export_tokenizer(folder, rows, None)
        assert (exported.ids.eos, exported.ids.image_start, exported.size) == (151645, image_start, rows)
    assert (config["llm_config"]["vocab_size"], config["llm_config"]["tie_word_embeddings"]) == (rows, tied)


def test_generation_goes_on_and_gives_known_tokens(tmp_path: Path) -> None:
    assert main(["synth", "tiny", str(tmp_path / "checkpoint")]) == 0
    package = export(tmp_path / "checkpoint", tmp_path / "package")
    ids = package.tokenizer.encode("Xin chào, đây là ảnh gì?", add_special_tokens=False).ids
    logits, output = package.greedy(package.embed(ids), {"max_new_tokens": 40})
    assert len(output) == 40
    assert max(output) < min(package.manifest["tokens"]["skipped_in_text"])
    assert 1 < logits.std() < 10
    assert len(set(output)) > 5


def test_tokenizer_round_trip(tmp_path: Path) -> None:
    assert main(["synth", "tiny", str(tmp_path / "checkpoint")]) == 0
    package = export(tmp_path / "checkpoint", tmp_path / "package")
    text = "<|im_start|>user\nHóa đơn 2024: tổng cộng 15.000 đ 🙂 你好<|im_end|>"
    ids = package.tokenizer.encode(text, add_special_tokens=False).ids
    assert package.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert len(package.tokenizer.encode(" tổng cộng", add_special_tokens=False).ids) == 2


def test_prompts_are_about_as_long_as_with_qwen2(tmp_path: Path) -> None:
    """The counts are those of Qwen2's own 151,643 tokens: times of a random checkpoint are those of a real one."""
    assert main(["synth", "tiny", str(tmp_path / "checkpoint")]) == 0
    tokenizer = export(tmp_path / "checkpoint", tmp_path / "package").tokenizer
    for text, real in (
        (SENSETIME_MESSAGE, 34),
        (INTERNVL_2_5_MESSAGE, 32),
        ("Thủ đô của Việt Nam là thành phố nào? Hãy kể ba điều về thành phố ấy.", 20),
        ("Mô tả hình ảnh một cách chi tiết.", 10),
    ):
        found = len(tokenizer.encode(text, add_special_tokens=False).ids)
        assert abs(found - real) <= 0.2 * real, (text, found, real)


def test_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synth_checkpoint, "SHARD_BYTES", 200_000)
    assert main(["synth", "tiny", str(tmp_path / "shards")]) == 0
    monkeypatch.undo()
    assert main(["synth", "tiny", str(tmp_path / "single")]) == 0
    shards = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    assert len(shards) > 2
    assert all((tmp_path / "shards" / name).stat().st_size < 220_000 for name in shards)
    one, many = read_tensors(tmp_path / "single"), read_tensors(tmp_path / "shards")
    assert set(one) == set(many)
    assert all(np.array_equal(one[name][1], many[name][1]) for name in one)


def test_a_tied_checkpoint_has_no_output_matrix(tmp_path: Path) -> None:
    shape = dataclasses.replace(SHAPES["tiny"], tied=True)
    write_checkpoint(shape, tmp_path / "tied", Layout.ORIGINAL, BF16, 0)
    assert LM_HEAD not in read_tensors(tmp_path / "tied")
    assert read_config(tmp_path / "tied")["llm_config"]["tie_word_embeddings"] is True
    export(tmp_path / "tied", tmp_path / "package")


def test_noise_is_normal() -> None:
    values = np.concatenate(list(Noise(7).runs(3 * RUN_SIZE + 5, 2.0)))
    assert values.size == 3 * RUN_SIZE + 5 < POOL_SIZE
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 2) < 0.01


def test_an_existing_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["synth", "tiny", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["synth", "tiny", str(tmp_path / "x"), "--seed", "-1"]) == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_far_below_the_size_of_the_package(tmp_path: Path) -> None:
    """A vocabulary of real size: its output matrix alone takes more than an export may use."""
    shape = dataclasses.replace(SHAPES["vintern-3b"], layers=1, hidden_size=1024, heads=8, vision_layers=1)
    write_checkpoint(shape, tmp_path / "checkpoint", Layout.ORIGINAL, BF16, 0)
    words = [str(tmp_path / "checkpoint"), str(tmp_path / "package")]
    result = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True)
    code, peak = map(int, result.stdout.split())
    decoder = (tmp_path / "package" / "decoder.onnx.data").stat().st_size
    assert code == 0
    assert decoder > 750_000_000
    assert peak < 600_000_000
