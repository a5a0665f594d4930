"""Presets that a checkpoint ships."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from conftest import export
from support import golden
from support.checkpoints import copy_checkpoint
from support.runtime import Package
from vintern_export.cli import main
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.manifest import TILING, manifest_bytes
from vintern_export.presets import PRESETS_NAME, RULES, Presets, read_presets

EVERY_SETTING = {
    "description": "Đọc chữ trong ảnh.",
    "min_tiles": 2,
    "max_tiles": 12,
    "use_thumbnail": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "length_penalty": 0,
    "early_stopping": "never",
    "no_repeat_ngram_size": 0,
    "min_new_tokens": 0,
    "max_new_tokens": 2048,
    "orientation": "ignore",
}


def with_presets(folder: Path, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    (folder / PRESETS_NAME).write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, content: object) -> Presets:
    return read_presets(with_presets(folder, content), TILING)


def test_the_manifest_has_them_after_the_prompt(packages: dict[str, Package], tmp_path: Path) -> None:
    presets = {"read": EVERY_SETTING, "describe": {"repetition_penalty": 1}}
    file = {"presets": presets, "default_with_image": "read", "default_text": "text"}
    checkpoint = with_presets(copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "ckpt_a"), file)
    package = export(checkpoint, tmp_path / "package")
    manifest, plain = package.manifest, packages["ckpt_a"].manifest
    assert manifest["presets"] == presets
    assert manifest["default_presets"] == {"with_image": "read", "text": "text"}
    keys = list(plain)
    after = keys.index("prompt") + 1
    assert list(manifest) == [*keys[:after], "presets", "default_presets", *keys[after:]]
    assert not (package.folder / PRESETS_NAME).exists()


def test_the_source_hash_is_that_of_the_weights(packages: dict[str, Package], tmp_path: Path) -> None:
    checkpoint = tmp_path / "ckpt_a"
    checkpoint.mkdir()
    for path in golden.checkpoint("ckpt_a").iterdir():
        (checkpoint / path.name).write_bytes(path.read_bytes())
    package = export(with_presets(checkpoint, {"presets": {"read": {}}}), tmp_path / "package")
    assert package.manifest["presets"] == {"read": {}}
    assert package.manifest["source"] == packages["ckpt_a"].manifest["source"]


@pytest.mark.parametrize("content", [{}, {"presets": {}}])
def test_a_file_that_says_nothing_changes_nothing(
    packages: dict[str, Package], tmp_path: Path, content: dict[str, Any]
) -> None:
    presets = read(tmp_path, content)
    assert presets == Presets()
    manifest = packages["ckpt_a"].manifest
    unchanged = {**manifest, **presets.manifest_entries()}
    assert manifest_bytes(unchanged) == (packages["ckpt_a"].folder / "manifest.json").read_bytes()
    assert "presets" not in manifest
    assert "default_presets" not in manifest


def test_every_setting_has_a_rule() -> None:
    assert list(RULES) == list(EVERY_SETTING)


def test_defaults_may_name_built_in_presets(tmp_path: Path) -> None:
    assert read(tmp_path, {"default_with_image": "benchmark"}).manifest_entries() == {
        "default_presets": {"with_image": "benchmark"}
    }


@pytest.mark.parametrize(
    ("key", "values", "supported"),
    [
        ("description", [3, "", " ", "two\nlines", "\x1b[2J", "\x9b", "\ud800", None], "one line of text"),
        ("min_tiles", [0, 257, 1.0, "1", True, None], "an integer from 1 to 256"),
        ("max_tiles", [0, -1, 257, []], "an integer from 1 to 256"),
        ("use_thumbnail", [1, "true", None], "true or false"),
        ("num_beams", [0, 65, 3.0, "3", True], "an integer from 1 to 64"),
        ("repetition_penalty", [0, -1, 101, math.nan, math.inf, "1", True, None], "a number from 0.01 to 100"),
        ("length_penalty", [-11, 11, 10**400, -math.inf, {}], "a number from -10 to 10"),
        ("early_stopping", ["true", "maybe", 1, None], 'true, false or "never"'),
        ("no_repeat_ngram_size", [-1, 2**32, False], "an integer from 0 to 4294967295"),
        ("min_new_tokens", [-1, 2**32, 0.5], "an integer from 0 to 4294967295"),
        ("max_new_tokens", [0, 2**32, 10**30], "an integer from 1 to 4294967295"),
        ("orientation", ["up", True, ["auto"], None], '"auto" or "ignore"'),
    ],
)
def test_values_that_are_refused(tmp_path: Path, key: str, values: list[object], supported: str) -> None:
    for value in values:
        with pytest.raises(UnsupportedCheckpointError) as caught:
            read_presets(with_presets(tmp_path, json.dumps({"presets": {"read": {key: value}}})), TILING)
        found = json.dumps(value, ensure_ascii=False)
        assert str(caught.value) == f"{PRESETS_NAME} presets.read.{key}: found {found}; supported: {supported}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "vintern_presets.json: found text that is not JSON"),
        ([], "vintern_presets.json: found list; supported: a JSON object"),
        ({"read": {}}, "vintern_presets.json read: found {}; supported: the keys presets, default_with_image, default_text"),
        ({"presets": None}, "vintern_presets.json presets: found null; supported: a JSON object"),
        ({"presets": ["read"]}, 'vintern_presets.json presets: found ["read"]; supported: a JSON object'),
        ({"presets": {"read": None}}, "vintern_presets.json presets.read: found null; supported: a JSON object"),
        ({"presets": {"read": 3}}, "vintern_presets.json presets.read: found 3; supported: a JSON object"),
        ({"presets": {"read": {"beams": 3}}}, "vintern_presets.json presets.read.beams: found 3; supported: the keys description, min_tiles, "),
        ({"presets": {"Read": {}}}, "vintern_presets.json presets: found the name 'Read'; supported: names of lower-case letters, digits, - and _"),
        ({"presets": {"": {}}}, "presets: found the name ''"),
        ({"presets": {"read\n": {}}}, "presets: found the name 'read\\n'"),
        ({"presets": {"đọc": {}}}, "presets: found the name 'đọc'"),
        ({"presets": {"read": {"min_tiles": 7}}}, "vintern_presets.json presets.read.min_tiles: found 7; supported: at most max_tiles = 6"),
        ({"presets": {"read": {"min_tiles": 3, "max_tiles": 2}}}, "presets.read.min_tiles: found 3; supported: at most max_tiles = 2"),
        ({"presets": {"read": {}}, "default_text": "raed"}, 'vintern_presets.json default_text: found "raed"; supported: the name of a preset: read, describe, text, benchmark'),
        ({"default_with_image": None}, "vintern_presets.json default_with_image: found null; supported: the name of a preset: describe, text, benchmark"),
        ({"default_with_image": ["text"]}, 'default_with_image: found ["text"]; supported: the name of a preset'),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UnsupportedCheckpointError) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)


def test_a_refusal_comes_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    with_presets(checkpoint, {"presets": {"read": {"num_beams": "three"}}})
    assert main([str(checkpoint), str(tmp_path / "package")]) == 2
    error = f'error: {PRESETS_NAME} presets.read.num_beams: found "three"; supported: an integer from 1 to 64\n'
    assert capsys.readouterr().err == error
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
