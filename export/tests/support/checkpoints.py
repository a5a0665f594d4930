"""Changes checkpoints for tests: other layouts, other configurations, other tensors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vintern_export.checkpoint import Checkpoint, find_weight_files
from vintern_export.config_types import Layout
from vintern_export.layout import LM_HEAD, logical_shapes, transformers_name
from vintern_export.numbers import StoredDtype
from vintern_export.safetensors_io import SafetensorsFile, safetensors_header

Tensors = dict[str, tuple[StoredDtype, npt.NDArray[Any]]]
"""Name -> (number format, stored bits)."""


def read_tensors(folder: Path) -> Tensors:
    tensors: Tensors = {}
    for path in find_weight_files(folder):
        with SafetensorsFile(path) as file:
            for name, entry in file.entries.items():
                values = np.empty(entry.shape, entry.dtype.raw)
                file.read_into(values, entry.start)
                tensors[name] = (entry.dtype, values)
    return tensors


def write_tensors(folder: Path, tensors: Tensors) -> None:
    for path in folder.glob("model*.safetensors*"):
        path.unlink()
    header = safetensors_header([(name, dtype, values.shape) for name, (dtype, values) in tensors.items()])
    data = b"".join(values.tobytes() for _, values in tensors.values())
    (folder / "model.safetensors").write_bytes(header + data)


def read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False))


def copy_checkpoint(source: Path, target: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    """A copy whose configuration went through ``change``."""
    shutil.copytree(source, target)
    config = read_config(target)
    change(config)
    write_config(target, config)
    return target


def to_transformers_layout(source: Path, target: Path, *, early_names: bool = False) -> Path:
    """A golden checkpoint in the transformers layout; ``early_names`` as versions before 4.52 saved them."""
    copy_checkpoint(source, target)
    config = read_config(source)
    vision, language = dict(config["vision_config"]), dict(config["llm_config"])
    language["rope_parameters"] = {"rope_theta": language.pop("rope_theta"), "rope_type": "default"}
    side, patch = vision.pop("image_size"), vision.pop("patch_size")
    added = json.loads((source / "added_tokens.json").read_text())
    vision |= {
        "model_type": "internvl_vision",
        "architectures": ["InternVLVisionModel"],
        "image_size": [side, side],
        "patch_size": [patch, patch],
        "attention_bias": vision.pop("qkv_bias"),
        "use_qk_norm": vision.pop("qk_normalization"),
    }
    native = {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": 0.5,
        "image_seq_length": (side // patch // 2) ** 2,
        "image_token_id": added["<IMG_CONTEXT>"],
        "projector_hidden_act": "gelu",
        "text_config": language,
        "vision_config": vision,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    }
    write_config(target, native)
    tensors: Tensors = {}
    with Checkpoint(source) as checkpoint:
        assert checkpoint.config.layout is Layout.ORIGINAL
        for logical, shape in logical_shapes(checkpoint.config).items():
            if logical != LM_HEAD or logical in checkpoint:
                tensor = checkpoint[logical]
                name = early_name(transformers_name(logical)) if early_names else transformers_name(logical)
                tensors[name] = (tensor.dtype, tensor.read_rows(0, shape[0]))
    write_tensors(target, tensors)
    return target


def early_name(name: str) -> str:
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.", 1)
    return f"language_model.{name}" if name.startswith("lm_head.") else name.removeprefix("model.")
