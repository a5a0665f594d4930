"""Splitting a checkpoint of either layout."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from peerbench.safetensors import stored_tensors
from peerbench.split import split, vision_config

if TYPE_CHECKING:
    from pathlib import Path

LANGUAGE = {"hidden_size": 2, "num_hidden_layers": 1, "vocab_size": 3, "bos_token_id": 0, "eos_token_id": 1}
VISION = {"hidden_size": 1, "qkv_bias": True, "qk_normalization": False}
ORIGINAL = {
    "vision_config": VISION | {"image_size": 4, "patch_size": 2},
    "llm_config": LANGUAGE,
    "downsample_ratio": 0.5,
    "force_image_size": 4,
    "select_layer": -1,
}


def checkpoint(folder: Path, config: dict[str, Any], tensors: dict[str, tuple[list[int], bytes]]) -> Path:
    """A checkpoint of 8-bit tensors."""
    folder.mkdir()
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def parts(folder: Path) -> list[dict[str, bytes]]:
    """The tensors of both parts of a checkpoint, which is split first."""
    found = []
    names = ("language", "vision")
    for name in names:
        (folder / name).mkdir()
    split(folder, folder / "tokenizer.json", *(folder / name for name in names))
    for name in names:
        tensors = stored_tensors(folder / name)
        found.append({key: t.file.read_bytes()[t.offset : t.offset + t.size] for key, t in tensors.items()})
    return found


def test_the_original_layout_is_renamed_and_its_fused_products_are_cut(tmp_path: Path) -> None:
    tensors = {
        "vision_model.embeddings.class_embedding": ([1, 1, 1], b"c"),
        "vision_model.encoder.layers.0.attn.qkv.weight": ([3, 1], b"qkv"),
        "vision_model.encoder.layers.0.attn.proj.bias": ([1], b"p"),
        "vision_model.encoder.layers.0.ls1": ([1], b"1"),
        "vision_model.encoder.layers.0.mlp.fc1.weight": ([1, 1], b"f"),
        "mlp1.3.bias": ([2], b"m3"),
        "language_model.model.embed_tokens.weight": ([3, 2], b"embeds"),
        "language_model.lm_head.weight": ([3, 2], b"output"),
    }
    language, vision = parts(checkpoint(tmp_path / "ck", ORIGINAL, tensors))
    assert language == {"model.embed_tokens.weight": b"embeds", "lm_head.weight": b"output"}
    layer = "vision_tower.encoder.layer.0."
    assert vision == {
        "vision_tower.embeddings.cls_token": b"c",
        f"{layer}attention.q_proj.weight": b"q",
        f"{layer}attention.k_proj.weight": b"k",
        f"{layer}attention.v_proj.weight": b"v",
        f"{layer}attention.projection_layer.bias": b"p",
        f"{layer}lambda_1": b"1",
        f"{layer}mlp.fc1.weight": b"f",
        "multi_modal_projector.linear_2.bias": b"m3",
    }


def test_the_layout_of_transformers_loses_a_prefix(tmp_path: Path) -> None:
    config = {"vision_config": VISION, "text_config": LANGUAGE, "downsample_ratio": 0.5}
    tensors = {
        "model.vision_tower.encoder.layer.0.lambda_2": ([1], b"2"),
        "model.multi_modal_projector.linear_1.bias": ([1], b"l"),
        "model.language_model.norm.weight": ([2], b"nn"),
        "lm_head.weight": ([3, 2], b"output"),
    }
    language, vision = parts(checkpoint(tmp_path / "ck", config, tensors))
    assert language == {"model.norm.weight": b"nn", "lm_head.weight": b"output"}
    assert vision == {
        "vision_tower.encoder.layer.0.lambda_2": b"2",
        "multi_modal_projector.linear_1.bias": b"l",
    }


def test_the_vision_part_has_a_language_model_without_layers() -> None:
    config = vision_config(ORIGINAL)
    assert config["text_config"]["num_hidden_layers"] == 0
    assert config["text_config"]["hidden_size"] == LANGUAGE["hidden_size"]
    assert config["vision_config"]["image_size"] == [4, 4]
    assert config["vision_config"]["attention_bias"] is True


def test_features_of_an_inner_layer_are_refused() -> None:
    with pytest.raises(ValueError, match="last layer"):
        vision_config(ORIGINAL | {"select_layer": -2})
