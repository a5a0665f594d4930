"""The two parts of a checkpoint as GGUF files. Runs in llama.cpp's virtual environment: needs NumPy and gguf.

gguf knows by what name each tensor of the transformers layout goes there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np

from peerbench.safetensors import StoredTensor, stored_tensors
from peerbench.split import image_size, read_json

if TYPE_CHECKING:
    from pathlib import Path

QUANTS = gguf.GGMLQuantizationType
PROJECTOR = {"layer_norm": 0, "linear_1": 1, "linear_2": 3}
"""Places of the projector's layers in the original model's list of modules, by which llama.cpp calls them."""


def bits(tensor: StoredTensor) -> Any:
    """A bfloat16 tensor, mapped, as uint16.

    Raises:
        ValueError: it is of another type.
    """
    if tensor.dtype != "BF16":
        raise ValueError(f"{tensor.file.name} must hold bfloat16, not {tensor.dtype}")
    return np.memmap(tensor.file, np.dtype("<u2"), "r", tensor.offset, tensor.shape)


def widened(tensor: StoredTensor) -> Any:
    """A tensor as float32."""
    return (bits(tensor).astype(np.uint32) << 16).view(np.float32)


def write(writer: Any) -> None:
    """Writes the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_language(folder: Path, file: Path) -> None:
    """A plain Qwen2 checkpoint of bfloat16 as it is."""
    config = read_json(folder / "config.json")
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    add_tokenizer(writer, read_json(folder / "tokenizer.json"), config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    for name, tensor in stored_tensors(folder).items():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if len(tensor.shape) == 1:
            writer.add_tensor(gguf_name, widened(tensor))
        else:
            writer.add_tensor(gguf_name, bits(tensor).view(np.uint8), raw_dtype=QUANTS.BF16)
    write(writer)


def add_tokenizer(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """The byte-level vocabulary; ids without a token get a name that no text contains."""
    size = config["vocab_size"]
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index], types[index] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], special
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(value=False)


def write_vision(folder: Path, file: Path) -> None:
    """The vision tower and the projector; matrices at Q8_0, the rest in float32."""
    config = read_json(folder / "config.json")
    vision = config["vision_config"]
    writer = gguf.GGUFWriter(file, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_clip_has_vision_encoder(value=True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.INTERNVL)
    writer.add_vision_projection_dim(config["text_config"]["hidden_size"])
    writer.add_vision_image_size(image_size(config))
    writer.add_vision_patch_size(vision["patch_size"][0])
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["num_hidden_layers"])
    writer.add_vision_head_count(vision["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(vision["layer_norm_eps"])
    writer.add_vision_image_mean([0.485, 0.456, 0.406])
    writer.add_vision_image_std([0.229, 0.224, 0.225])
    writer.add_vision_use_gelu(value=True)
    writer.add_vision_projector_scale_factor(int(1 / config["downsample_ratio"]))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, vision["num_hidden_layers"])
    for name, tensor in stored_tensors(folder).items():
        gguf_name = vision_name(name, names)
        values = widened(tensor)
        if values.ndim == 2 and values.shape[1] % 32 == 0:
            writer.add_tensor(gguf_name, gguf.quantize(values, QUANTS.Q8_0), raw_dtype=QUANTS.Q8_0)
        else:
            writer.add_tensor(gguf_name, values.squeeze() if "_embd" in gguf_name else values)
    write(writer)


def vision_name(name: str, names: Any) -> str:
    """The name that llama.cpp gives a tensor of ``InternVLModel``."""
    part = name.removeprefix("multi_modal_projector.")
    if part != name:
        layer, kind = part.split(".")
        return f"mm.model.mlp.{PROJECTOR[layer]}.{kind}"
    found: str = names.get_name(f"model.{name}", try_suffixes=(".weight", ".bias"))
    lone = name.endswith(("lambda_1", "lambda_2", "position_embeddings"))
    return f"{found}.weight" if lone else found
