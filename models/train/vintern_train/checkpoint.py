"""A trained state as a checkpoint folder in the original InternVLChatModel layout, and back.

``python -m vintern_train.checkpoint RUN CHECKPOINT`` writes the folder ``vintern-export`` reads.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vintern_train import tokenizer
from vintern_train.model import Sizes, Vintern
from vintern_train.questions import SYSTEM_MESSAGE
from vintern_train.tiling import MAX_TILES, PATCH, TILE

WEIGHTS = "model.safetensors"
TRAINING_ONLY = "patch_head."
PLAIN = {"max_tiles": MAX_TILES, "num_beams": 1, "repetition_penalty": 1.0}
"""Greedy and without a penalty: a page says many things twice, and a penalty forbids that."""
PRESETS = {
    "presets": {
        "read": PLAIN | {"description": "transcription, greedy", "max_new_tokens": 512},
        "ask": PLAIN | {"description": "one field of a receipt, greedy", "max_new_tokens": 64},
        "extract": PLAIN | {"description": "a receipt as JSON, 3 beams", "num_beams": 3, "max_new_tokens": 512},
        "describe": PLAIN | {"description": "the card's call, unpenalised", "num_beams": 3, "max_new_tokens": 512},
    },
    "default_with_image": "describe",
}
"""Settings that suit this model, by task; the exporter puts them into the package."""


def config(sizes: Sizes) -> dict[str, Any]:
    """``config.json``."""
    ids = tokenizer.special_ids()
    dtype = {"torch_dtype": "float16"}
    vision = {
        "architectures": ["InternVisionModel"],
        "hidden_act": "gelu",
        "hidden_size": sizes.vision_hidden,
        "image_size": TILE,
        "intermediate_size": sizes.vision_intermediate,
        "layer_norm_eps": 1e-6,
        "model_type": "intern_vit_6b",
        "norm_type": "layer_norm",
        "num_attention_heads": sizes.vision_heads,
        "num_channels": 3,
        "num_hidden_layers": sizes.vision_layers,
        "patch_size": PATCH,
        "qk_normalization": False,
        "qkv_bias": True,
    }
    language = {
        "architectures": ["Qwen2ForCausalLM"],
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "max_position_embeddings": sizes.max_length,
        "model_type": "qwen2",
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "num_key_value_heads": sizes.key_value_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": sizes.rope_theta,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "vocab_size": tokenizer.vocabulary_size(),
    }
    return {
        "architectures": ["InternVLChatModel"],
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": TILE,
        "llm_config": language | dtype,
        "max_dynamic_patch": MAX_TILES,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "select_layer": -1,
        "system_message": SYSTEM_MESSAGE,
        "template": "internvl2_5",
        "tie_word_embeddings": False,
        "use_thumbnail": True,
        "vision_config": vision | dtype,
    } | dtype


def write_checkpoint(model: Vintern, folder: Path) -> None:
    """Writes a checkpoint folder, replacing one of the same name."""
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    tensors = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in sorted(model.state_dict().items())
        if not name.startswith(TRAINING_ONLY)
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    tokenizer.write_json(folder / "config.json", config(model.sizes))
    tokenizer.write_json(folder / "vintern_presets.json", PRESETS)
    tokenizer.write_tokenizer(folder)


def read_checkpoint(folder: Path) -> Vintern:
    """The model of a checkpoint folder, in float32; its patch head is not in the file and is left random."""
    model = Vintern(Sizes())
    tensors = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    missing = model.load_state_dict(tensors, strict=False)
    if missing.unexpected_keys or any(not key.startswith(TRAINING_ONLY) for key in missing.missing_keys):
        raise ValueError(f"{folder / WEIGHTS} does not hold this model: {missing}")
    return model.eval()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the training run")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the folder to write")
    arguments = parser.parse_args()
    model = Vintern(Sizes())
    model.load_state_dict(torch.load(arguments.run / "state.pt", weights_only=True)["model"])
    write_checkpoint(model, arguments.checkpoint)


if __name__ == "__main__":
    main()
