"""Small random checkpoints over everything the layouts can describe.

A ``Model`` is drawn first; its configuration and tensors are then written from the reference's own names and defaults,
not from the exporter's tables, so that a wrong reading of either shows.
"""

import json
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from support import golden
from vintern_export.numbers import BF16, F16, F32, StoredDtype, to_bfloat16_bits
from vintern_export.safetensors_io import safetensors_header

KNOWN_TOKENS = 931
TOKENIZER_FILES = ("tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")
Arrays = dict[str, npt.NDArray[np.float32]]
Json = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """One drawn model. ``tying`` is tied, untied, or both (a tied configuration with an output matrix in the file)."""

    native: bool
    dtype: StoredDtype | None
    shards: int
    patch: int
    stored_size: int
    tile_size: int
    shuffle: int
    v1: bool
    select_layer: int
    vision_heads: int
    vision_head_dim: int
    vision_layers: int
    vision_inner: int
    qkv_bias: bool
    qk_norm: bool
    rms: bool
    vision_eps: float
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    inner: int
    rows: int
    tying: str
    rms_eps: float
    theta: float
    max_length: int

    @property
    def vision_width(self) -> int:
        return self.vision_heads * self.vision_head_dim

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim

    @property
    def grid(self) -> int:
        return self.tile_size // self.patch

    @property
    def exported_layers(self) -> int:
        return range(self.vision_layers + 1)[self.select_layer]


def draw(seed: int) -> Model:
    pick = random.Random(seed)
    native = pick.random() < 0.3
    patch = pick.choice([2, 3, 5, 7, 14])
    shuffle = pick.choice([1, 2, 2, 2, 4])
    tile_size = shuffle * pick.randint(1, 8 // shuffle) * patch + pick.choice([0, 0, pick.randrange(patch)])
    stored_size = tile_size
    if not native and pick.random() < 0.6:
        stored_size = pick.randint(1, 9) * patch + pick.choice([0, pick.randrange(patch)])
    layers, kv_heads = pick.randint(1, 3), pick.choice([1, 1, 2, 3])
    vision_layers = pick.randint(1, 3)
    head_dim = pick.choice([2, 8, 10, 16, 24, 32, 48])
    # Two channels whose sum all but cancels are no test of half precision.
    groups = [group for group in (1, 2, 4, 8, 16) if group * head_dim >= 16]
    return Model(
        native=native,
        dtype=pick.choice([BF16, BF16, F16, F32, None]),
        shards=pick.choice([1, 1, 3]),
        patch=patch,
        stored_size=stored_size,
        tile_size=tile_size,
        shuffle=shuffle,
        v1=not native and pick.random() < 0.5,
        select_layer=pick.choice([-1, -1, 0, *range(-vision_layers - 1, vision_layers + 1)]),
        vision_heads=pick.randint(1, 4),
        vision_head_dim=pick.choice([4, 5, 8, 12, 16]),
        vision_layers=vision_layers,
        vision_inner=pick.choice([17, 32, 60]),
        qkv_bias=pick.random() < 0.5,
        qk_norm=pick.random() < 0.5,
        rms=pick.random() < 0.5,
        vision_eps=pick.choice([1e-6, 1e-6, 1e-5, 1e-3]),
        heads=kv_heads * pick.choice(groups[:3]),
        kv_heads=kv_heads,
        head_dim=head_dim,
        layers=layers,
        inner=pick.choice([31, 64, 100]),
        rows=KNOWN_TOKENS + pick.choice([0, 0, 1, 29]),
        tying=pick.choice(["tied", "untied", "both"]),
        rms_eps=pick.choice([1e-6, 1e-6, 1e-5, 1e-3]),
        theta=pick.choice([1e4, 1e4, 1e6, 5e5]),
        max_length=pick.choice([32768, 40, 512]),
    )


def with_defaults_left_out(pick: random.Random, values: Json, defaults: Json) -> Json:
    """Keys that say what the class assumes anyway stand in the file, are null, or are missing."""
    kept = {}
    for key, value in values.items():
        form = pick.choice(["written", "null", "missing"]) if defaults.get(key, ...) == value else "written"
        if form != "missing":
            kept[key] = None if form == "null" else value
    return kept


LANGUAGE_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 32768, "hidden_act": "silu"}
VISION_DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "patch_size": 14, "num_channels": 3}
ORIGINAL_VISION_DEFAULTS = VISION_DEFAULTS | {
    "norm_type": "rms_norm", "qkv_bias": False, "qk_normalization": True, "num_attention_heads": 25, "image_size": 224
}  # fmt: skip
NATIVE_VISION_DEFAULTS = VISION_DEFAULTS | {"norm_type": "layer_norm", "attention_bias": False, "use_qk_norm": False}
OUTER_DEFAULTS = {"downsample_ratio": 0.5, "select_layer": -1, "ps_version": "v1", "vision_feature_layer": -1}


def configuration(model: Model, seed: int) -> Json:
    pick = random.Random(seed)
    tied = model.tying != "untied"
    language: Json = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "intermediate_size": model.inner,
        "max_position_embeddings": model.max_length,
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": model.rms_eps,
        "rope_theta": model.theta,
        "tie_word_embeddings": tied,
        "vocab_size": model.rows,
    }
    language = with_defaults_left_out(pick, language, LANGUAGE_DEFAULTS | {"num_key_value_heads": ...})
    vision: Json = {
        "hidden_act": "gelu",
        "hidden_size": model.vision_width,
        "intermediate_size": model.vision_inner,
        "layer_norm_eps": model.vision_eps,
        "norm_type": "rms_norm" if model.rms else "layer_norm",
        "num_attention_heads": model.vision_heads,
        "num_channels": 3,
        "num_hidden_layers": model.vision_layers,
        "patch_size": model.patch,
    }
    outer: Json = {"downsample_ratio": 1 / model.shuffle, "tie_word_embeddings": tied}
    if model.native:
        vision |= {"image_size": [model.tile_size] * 2, "attention_bias": model.qkv_bias, "use_qk_norm": model.qk_norm}
        outer |= {
            "architectures": ["InternVLForConditionalGeneration"],
            "image_token_id": 924,
            "image_seq_length": (model.grid // model.shuffle) ** 2,
            "vision_feature_layer": model.select_layer,
        }
        sections = {
            "text_config": language,
            "vision_config": with_defaults_left_out(pick, vision, NATIVE_VISION_DEFAULTS),
        }
    else:
        vision |= {"image_size": model.stored_size, "qkv_bias": model.qkv_bias, "qk_normalization": model.qk_norm}
        outer |= {
            "architectures": ["InternVLChatModel"],
            "force_image_size": model.tile_size,
            "ps_version": "v1" if model.v1 else "v2",
            "select_layer": model.select_layer,
            "template": pick.choice(["Hermes-2", "internvl2_5"]),
        }
        if model.tile_size == model.stored_size:
            outer["force_image_size"] = pick.choice([None, model.tile_size])
        sections = {
            "llm_config": language,
            "vision_config": with_defaults_left_out(pick, vision, ORIGINAL_VISION_DEFAULTS),
        }
    return with_defaults_left_out(pick, outer, OUTER_DEFAULTS) | sections


class Weights:
    """Random tensors by the original layout's names."""

    def __init__(self, model: Model, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._model = model
        self.arrays: Arrays = {}

    def vector(self, name: str, size: int, centre: float = 0.0) -> None:
        self.arrays[name] = np.float32(centre) + self._random.standard_normal(size, dtype=np.float32) * np.float32(0.1)

    def matrix(self, name: str, *shape: int) -> None:
        scale = np.float32(np.prod(shape[1:]) ** -0.5)
        self.arrays[name] = self._random.standard_normal(shape, dtype=np.float32) * scale

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        self.matrix(f"{name}.weight", outputs, inputs)
        if bias:
            self.vector(f"{name}.bias", outputs)

    def all(self) -> Arrays:
        model = self._model
        width, hidden = model.vision_width, model.hidden
        start = "vision_model.embeddings."
        self.matrix(f"{start}class_embedding", 1, 1, width)
        self.matrix(f"{start}position_embedding", 1, (model.stored_size // model.patch) ** 2 + 1, width)
        self.matrix(f"{start}patch_embedding.weight", width, 3, model.patch, model.patch)
        self.vector(f"{start}patch_embedding.bias", width)
        for index in range(model.vision_layers):
            self.vision_layer(f"vision_model.encoder.layers.{index}.")
        grouped = width * model.shuffle**2
        self.vector("mlp1.0.weight", grouped, 1.0)
        self.vector("mlp1.0.bias", grouped)
        self.linear("mlp1.1", hidden, grouped)
        self.linear("mlp1.3", hidden, hidden)
        self.matrix("language_model.model.embed_tokens.weight", model.rows, hidden)
        for index in range(model.layers):
            self.language_layer(f"language_model.model.layers.{index}.")
        self.vector("language_model.model.norm.weight", hidden, 1.0)
        if model.tying != "tied":
            self.matrix("language_model.lm_head.weight", model.rows, hidden)
        return self.arrays

    def vision_layer(self, prefix: str) -> None:
        model, width = self._model, self._model.vision_width
        for norm in ("norm1", "norm2"):
            self.vector(f"{prefix}{norm}.weight", width, 1.0)
            if not model.rms:
                self.vector(f"{prefix}{norm}.bias", width)
        self.linear(f"{prefix}attn.qkv", 3 * width, width, bias=model.qkv_bias)
        if model.qk_norm:
            self.vector(f"{prefix}attn.q_norm.weight", width, 1.0)
            self.vector(f"{prefix}attn.k_norm.weight", width, 1.0)
        self.linear(f"{prefix}attn.proj", width, width)
        self.linear(f"{prefix}mlp.fc1", model.vision_inner, width)
        self.linear(f"{prefix}mlp.fc2", width, model.vision_inner)
        for scale in ("ls1", "ls2"):
            self.vector(prefix + scale, width, 0.5)

    def language_layer(self, prefix: str) -> None:
        model, hidden = self._model, self._model.hidden
        kv_width = model.kv_heads * model.head_dim
        for norm in ("input_layernorm", "post_attention_layernorm"):
            self.vector(f"{prefix}{norm}.weight", hidden, 1.0)
        for part, outputs in (("q", hidden), ("k", kv_width), ("v", kv_width)):
            self.linear(f"{prefix}self_attn.{part}_proj", outputs, hidden)
        self.linear(f"{prefix}self_attn.o_proj", hidden, hidden, bias=False)
        for part in ("gate", "up"):
            self.linear(f"{prefix}mlp.{part}_proj", model.inner, hidden, bias=False)
        self.linear(f"{prefix}mlp.down_proj", hidden, model.inner, bias=False)


NATIVE_NAMES = (
    (r"^vision_model\.", "model.vision_tower."),
    (r"encoder\.layers\.", "encoder.layer."),
    (r"class_embedding$", "cls_token"),
    (r"position_embedding$", "position_embeddings"),
    (r"patch_embedding\.", "patch_embeddings.projection."),
    (r"\.ls([12])$", r".lambda_\1"),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.attn\.", ".attention."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"^mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "model.multi_modal_projector.linear_2."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
)


def native_arrays(arrays: Arrays) -> Arrays:
    """The same tensors by the names of the transformers layout."""
    renamed: Arrays = {}
    for original, values in arrays.items():
        name = original
        for pattern, replacement in NATIVE_NAMES:
            name = re.sub(pattern, replacement, name)
        if ".attention.qkv." in name:
            for part, block in zip("qkv", np.split(values, 3), strict=True):
                renamed[name.replace(".qkv.", f".{part}_proj.")] = block
        else:
            renamed[name] = values
    return renamed


def write_random_checkpoint(model: Model, folder: Path, seed: int) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(configuration(model, seed)))
    source = golden.checkpoint("ckpt_b")
    for name in TOKENIZER_FILES:
        shutil.copy(source / name, folder / name)
    arrays = Weights(model, seed).all()
    if model.native:
        arrays = native_arrays(arrays)
    pick = random.Random(seed)
    stored = [(name, model.dtype or pick.choice([BF16, F16, F32]), values) for name, values in arrays.items()]
    pick.shuffle(stored)
    shards = [stored[number :: model.shards] for number in range(model.shards)]
    names = [f"model-{number:05}-of-{model.shards:05}.safetensors" for number in range(1, model.shards + 1)]
    if model.shards == 1:
        names = ["model.safetensors"]
    else:
        weight_map = {tensor[0]: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for name, shard in zip(names, shards, strict=True):
        header = safetensors_header([(key, dtype, values.shape) for key, dtype, values in shard])
        (folder / name).write_bytes(header + b"".join(stored_bytes(values, dtype) for _, dtype, values in shard))
    return folder


def stored_bytes(values: npt.NDArray[np.float32], dtype: StoredDtype) -> bytes:
    return (to_bfloat16_bits(values) if dtype is BF16 else values.astype(dtype.raw)).tobytes()
