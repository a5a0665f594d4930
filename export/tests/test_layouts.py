"""The transformers layout gives the same package as the original one."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import export
from support import golden
from support.checkpoints import copy_checkpoint, read_config, to_transformers_layout, write_config
from support.runtime import Package
from vintern_export.config import load_config
from vintern_export.config_types import Unset
from vintern_export.errors import UnsupportedCheckpointError

DIFFERENT_FILES = {"manifest.json"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in DIFFERENT_FILES}


@pytest.mark.parametrize("early_names", [False, True])
def test_same_files_for_a_tower_with_layer_norm(
    packages: dict[str, Package], tmp_path: Path, early_names: bool
) -> None:
    source = golden.checkpoint("ckpt_a")
    folder = to_transformers_layout(source, tmp_path / "native", early_names=early_names)
    package = export(folder, tmp_path / "package")
    assert contents(package.folder) == contents(packages["ckpt_a"].folder)
    assert package.manifest["source"]["layout"] == "transformers"
    assert package.manifest["prompt"]["template"] == "internvl2_5"
    same = ("architecture", "tiling", "tokens", "embed_tokens", "graphs", "tokenizer")
    expected = packages["ckpt_a"].manifest
    assert {key: package.manifest[key] for key in same} == {key: expected[key] for key in same}


def test_same_files_for_rms_norm_and_tied_embeddings(tmp_path: Path) -> None:
    """The original pixel shuffle v1 does not exist in the transformers layout, so both are compared with v2."""
    source = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "v2", lambda c: c.update(ps_version="v2"))
    original = export(source, tmp_path / "original")
    native = export(to_transformers_layout(source, tmp_path / "native"), tmp_path / "package")
    assert contents(native.folder) == contents(original.folder)


def test_query_and_key_norms_of_the_transformers_layout_have_their_own_epsilon(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["ps_version"] = "v2"
        config["vision_config"]["layer_norm_eps"] = 1e-3

    source = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "original", change)
    native = to_transformers_layout(source, tmp_path / "native")
    assert load_config(source).model.vision.qk_norm_eps == 1e-3
    vision = load_config(native).model.vision
    assert (vision.layer_norm_eps, vision.qk_norm_eps) == (1e-3, 1e-6)


def test_a_chat_template_is_not_mistaken_for_a_message(tmp_path: Path) -> None:
    folder = to_transformers_layout(golden.checkpoint("ckpt_a"), tmp_path / "native")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert load_config(folder).model.system_message is Unset.UNSET


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (None, {"projector_hidden_act": "relu"}, "projector_hidden_act"),
        (None, {"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy"),
        (None, {"vision_feature_layer": [-1, -2]}, "vision_feature_layer"),
        (None, {"image_seq_length": 99}, "image_seq_length: found 99; supported: 256"),
        ("vision_config", {"use_mean_pooling": False}, r"vision_config\.use_mean_pooling"),
        ("vision_config", {"use_absolute_position_embeddings": False}, "use_absolute_position_embeddings"),
        ("vision_config", {"image_size": [448, 224]}, r"vision_config\.image_size"),
        ("text_config", {"rope_parameters": {"rope_type": "yarn", "factor": 4}}, r"rope_type: found .*; supported: default"),
        ("text_config", {"rope_scaling": {"type": "linear"}, "rope_parameters": None}, "supported: default or dynamic"),
        ("text_config", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("text_config", {"model_type": "qwen3", "architectures": None}, r"text_config\.model_type: found \"qwen3\""),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, section: str | None, values: dict[str, Any], message: str) -> None:
    folder = to_transformers_layout(golden.checkpoint("ckpt_a"), tmp_path / "native")
    config = read_config(folder)
    (config if section is None else config[section]).update(values)
    write_config(folder, config)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load_config(folder)


def test_rotary_base_at_its_old_and_new_places(tmp_path: Path) -> None:
    folder = to_transformers_layout(golden.checkpoint("ckpt_a"), tmp_path / "native")
    text = json.dumps(read_config(folder))
    places: list[dict[str, Any]] = [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 5e5}}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 5e5}, "rope_parameters": None},
        {"rope_theta": 5e5, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "rope_parameters": None},
    ]
    for place in places:
        config = json.loads(text)
        config["text_config"].update(place)
        write_config(folder, config)
        assert load_config(folder).model.language.rope_theta == 5e5
