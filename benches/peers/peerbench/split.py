"""A Vintern checkpoint in two parts that other programs read without its own code.

The language model becomes a plain Qwen2 checkpoint. The vision tower and the projector become a checkpoint of the
transformers class ``InternVLModel`` whose language model has no layers. Both layouts are read: the original one
(``InternVLChatModel``) and that of transformers.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from peerbench.safetensors import StoredTensor, stored_tensors, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

LANGUAGE_PREFIXES = (
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("lm_head.", "lm_head."),
)
VISION_PREFIXES = (
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("vision_model.embeddings.class_embedding", "vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.", "vision_tower.embeddings.patch_embeddings.projection."),
    ("mlp1.0.", "multi_modal_projector.layer_norm."),
    ("mlp1.1.", "multi_modal_projector.linear_1."),
    ("mlp1.3.", "multi_modal_projector.linear_2."),
)
LAYER_PARTS = {
    "attn.proj": "attention.projection_layer",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
}


def read_json(file: Path) -> dict[str, Any]:
    """An object of a JSON file."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    """An object as a JSON file."""
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def language_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of ``config.json`` that describes the language model."""
    language: dict[str, Any] = config.get("llm_config") or config["text_config"]
    return language


def image_size(config: dict[str, Any]) -> int:
    """Side of a tile in pixels."""
    size = config.get("force_image_size") or config["vision_config"]["image_size"]
    return int(size[0] if isinstance(size, list) else size)


def tokens_of_a_tile(config: dict[str, Any]) -> int:
    """Image tokens that a tile becomes."""
    patch = config["vision_config"]["patch_size"]
    side = image_size(config) // (patch[0] if isinstance(patch, list) else patch)
    return int(side**2 * config["downsample_ratio"] ** 2)


def vision_config(config: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` of the vision part, in the terms of transformers.

    Raises:
        ValueError: features of another layer than the last are asked for.
    """
    vision: dict[str, Any] = config["vision_config"]
    if config.get("select_layer", config.get("vision_feature_layer", -1)) != -1:
        raise ValueError("only features of the last layer of the vision tower are measured")
    if "text_config" not in config:
        vision = vision | {
            "model_type": "internvl_vision",
            "image_size": [vision["image_size"]] * 2,
            "patch_size": [vision["patch_size"]] * 2,
            "attention_bias": vision["qkv_bias"],
            "use_qk_norm": vision["qk_normalization"],
            "use_absolute_position_embeddings": True,
        }
    language = {key: value for key, value in language_config(config).items() if not key.endswith("_token_id")}
    return {
        "architectures": ["InternVLModel"],
        "model_type": "internvl",
        "downsample_ratio": config["downsample_ratio"],
        "image_token_id": 0,
        "projector_hidden_act": "gelu",
        "text_config": language | {"num_hidden_layers": 0, "max_window_layers": 0, "vocab_size": 1},
        "vision_config": vision,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    }


def language_tensors(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The language model's tensors under the names of ``Qwen2ForCausalLM``."""
    return {
        plain + name.removeprefix(stored): tensor
        for name, tensor in tensors.items()
        for stored, plain in LANGUAGE_PREFIXES
        if name.startswith(stored)
    }


def vision_tensors(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The other tensors under the names of ``InternVLModel``; a fused product of queries, keys and values is cut."""
    found: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        layer = re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.+?)(\.weight|\.bias)?", name)
        if layer is None:
            names = [theirs + name.removeprefix(ours) for ours, theirs in VISION_PREFIXES if name.startswith(ours)]
            found |= dict.fromkeys(names, tensor)
            continue
        prefix, part, kind = f"vision_tower.encoder.layer.{layer[1]}.", layer[2], layer[3] or ""
        if part == "attn.qkv":
            for block, letter in enumerate("qkv"):
                found[f"{prefix}attention.{letter}_proj{kind}"] = tensor.rows(block, 3)
        else:
            found[f"{prefix}{LAYER_PARTS.get(part, part)}{kind}"] = tensor
    return found


def split(checkpoint: Path, tokenizer: Path, language: Path, vision: Path) -> None:
    """Writes the folders ``language`` and ``vision``; ``tokenizer`` is the checkpoint's as a ``tokenizer.json``."""
    config = read_json(checkpoint / "config.json")
    tensors = stored_tensors(checkpoint)
    qwen2 = language_config(config)
    write_json(language / "config.json", qwen2 | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})
    ends: dict[str, Any] = {key: qwen2[key] for key in ("bos_token_id", "eos_token_id") if key in qwen2}
    write_json(language / "generation_config.json", ends)
    shutil.copy(tokenizer, language / "tokenizer.json")
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    write_json(language / "tokenizer_config.json", special | {"tokenizer_class": "PreTrainedTokenizerFast"})
    write_tensors(language / "model.safetensors", language_tensors(tensors))
    write_json(vision / "config.json", vision_config(config))
    write_tensors(vision / "model.safetensors", vision_tensors(tensors))
