"""What cannot be exported is refused by the name of the field or tensor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import golden
from support.checkpoints import Tensors, copy_checkpoint, read_tensors, write_tensors
from vintern_export.checkpoint import Checkpoint
from vintern_export.config import load_config
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.numbers import F32


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (None, {"architectures": ["LlavaForConditionalGeneration"]}, "config.json architectures: found .*Llava"),
        (None, {"downsample_ratio": 0.4}, r"config.json downsample_ratio: found 0.4; supported: 1/k"),
        (None, {"select_layer": -9}, "select_layer: found -9; supported: one integer from -3 to 2"),
        (None, {"select_layer": [1, 2]}, "select_layer"),
        (None, {"force_image_size": 14}, "grouped by 2"),
        (None, {"quantization_config": {"bits": 4}}, "quantization_config: found .*unquantised"),
        (None, {"llm_config": 7}, "llm_config: found 7; supported: a JSON object"),
        ("llm_config", {"architectures": ["InternLM2ForCausalLM"]}, r"llm_config\.architectures.*Qwen2ForCausalLM"),
        ("llm_config", {"hidden_act": "gelu"}, r"llm_config\.hidden_act: found \"gelu\"; supported: silu"),
        ("llm_config", {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1}, "use_sliding_window: found true"),
        ("llm_config", {"num_key_value_heads": 3}, "num_key_value_heads: found 3; supported: a divisor"),
        ("llm_config", {"head_dim": 15}, r"llm_config\.head_dim: found 15; supported: even head sizes .*; this one is 15"),
        ("llm_config", {"hidden_size": 60}, r"llm_config\.hidden_size: found 60; supported: even head sizes .*; this one is 15"),
        ("llm_config", {"rope_theta": -1}, "rope_theta: found -1; supported: a positive number"),
        ("llm_config", {"hidden_size": "64"}, "hidden_size: found \"64\"; supported: an integer"),
        ("llm_config", {"tie_word_embeddings": False, "vocab_size": 940}, "shape .931, 64.; supported: shape .940, 64."),
        ("vision_config", {"hidden_act": "quick_gelu"}, r"vision_config\.hidden_act: found \"quick_gelu\"; supported: gelu"),
        ("vision_config", {"norm_type": "batch_norm"}, "norm_type: found \"batch_norm\"; supported: layer_norm or rms_norm"),
        ("vision_config", {"num_channels": 4}, "num_channels: found 4; supported: 3"),
        ("vision_config", {"architectures": ["CLIPVisionModel"]}, r"vision_config\.architectures"),
        ("vision_config", {"qkv_bias": "yes"}, "qkv_bias: found \"yes\"; supported: true or false"),
        ("vision_config", {"num_attention_heads": 3}, "num_attention_heads: found 3; supported: a divisor"),
        ("vision_config", {"num_hidden_layers": 1}, r"unexpected vision_model\.encoder\.layers\.1"),
        ("vision_config", {"qk_normalization": True}, r"no vision_model\.encoder\.layers\.0\.attn\.q_norm\.weight"),
    ],
)  # fmt: skip
def test_configurations(tmp_path: Path, section: str | None, values: dict[str, Any], message: str) -> None:
    def change(config: dict[str, Any]) -> None:
        (config if section is None else config[section]).update(values)

    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint", change)
    with pytest.raises(UnsupportedCheckpointError, match=message):
        Checkpoint(folder)


def test_the_original_layout_ignores_other_rope_scaling_and_says_so(tmp_path: Path) -> None:
    def scaled(kind: str) -> tuple[str, ...]:
        folder = copy_checkpoint(
            golden.checkpoint("ckpt_a"),
            tmp_path / kind,
            lambda config: config["llm_config"].update(rope_scaling={"type": kind, "factor": 2.0}),
        )
        return load_config(folder).warnings

    assert scaled("dynamic") == ()
    (warning,) = scaled("linear")
    assert warning.startswith(
        "config.json llm_config.rope_scaling asks for 'linear' scaling; the reference class ignores"
    )


def test_missing_keys_take_the_defaults_of_the_classes(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        for key in ("downsample_ratio", "select_layer", "ps_version", "template", "force_image_size"):
            del config[key]
        config["vision_config"] = {"hidden_size": 3200}
        config["llm_config"] = {"num_key_value_heads": None, "hidden_size": 4096}

    model = load_config(copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint", change)).model
    vision, language = model.vision, model.language
    assert (model.transposed_tokens, model.shuffle_factor, model.template) == (True, 2, None)
    assert (vision.num_attention_heads, vision.num_hidden_layers, vision.num_exported_layers) == (25, 48, 48)
    assert (vision.image_size, vision.patch_size, vision.position_grid, vision.intermediate_size) == (
        224,
        14,
        16,
        12800,
    )
    assert (vision.qkv_bias, vision.qk_normalization, vision.norm_type.value) == (False, True, "rms_norm")
    assert (language.num_attention_heads, language.num_key_value_heads, language.head_dim) == (32, 32, 128)
    assert (language.vocab_size, language.intermediate_size, language.rope_theta) == (151936, 22016, 10000.0)
    assert (language.rms_norm_eps, language.max_position_embeddings) == (1e-6, 32768)


def changed_tensors(tmp_path: Path, change: Any) -> Path:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    tensors: Tensors = read_tensors(folder)
    change(tensors)
    write_tensors(folder, tensors)
    return folder


def test_a_missing_tensor(tmp_path: Path) -> None:
    folder = changed_tensors(tmp_path, lambda tensors: tensors.pop("mlp1.3.bias"))
    with pytest.raises(UnsupportedCheckpointError, match=r"found no mlp1\.3\.bias"):
        Checkpoint(folder)


def test_an_unexpected_tensor(tmp_path: Path) -> None:
    extra = (F32, np.zeros(3, np.float32))
    folder = changed_tensors(tmp_path, lambda tensors: tensors.update({"mlp1.3.lora_A.weight": extra}))
    with pytest.raises(UnsupportedCheckpointError, match=r"unexpected mlp1\.3\.lora_A\.weight") as caught:
        Checkpoint(folder)
    assert caught.value.hint == "Merge the LoRA adapters into the weights first."


def test_tensors_that_inference_never_reads_are_left_out(tmp_path: Path) -> None:
    name = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq"
    folder = changed_tensors(tmp_path, lambda tensors: tensors.update({name: (F32, np.zeros(8, np.float32))}))
    Checkpoint(folder).close()


def test_a_quantised_tensor(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    path = folder / "model.safetensors"
    data = path.read_bytes()
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    path.write_bytes(
        data.replace(header, header.replace(b'"mlp1.3.bias":{"dtype":"F32"', b'"mlp1.3.bias":{"dtype":"I32"'))
    )
    with pytest.raises(UnsupportedCheckpointError, match=r"tensor mlp1\.3\.bias .*: found dtype I32; supported: BF16"):
        Checkpoint(folder)


def test_a_truncated_file(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnsupportedCheckpointError, match=r"model\.safetensors: found .* bytes where tensor .* ends at"):
        Checkpoint(folder)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(UnsupportedCheckpointError, match="without a valid header"):
        Checkpoint(folder)


def test_missing_files(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_b"), tmp_path / "checkpoint")
    shard = folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    with pytest.raises(UnsupportedCheckpointError, match=r"model-00002-of-00002\.safetensors, which is not in"):
        Checkpoint(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(UnsupportedCheckpointError, match=r"weight files: found none .*pytorch_model\.bin"):
        Checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UnsupportedCheckpointError, match=r"config\.json: found text that is not JSON"):
        Checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UnsupportedCheckpointError, match=r"config\.json: found no such file"):
        Checkpoint(folder)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    folder = copy_checkpoint(golden.checkpoint("ckpt_a"), tmp_path / "checkpoint")
    (folder / "model-2.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedCheckpointError, match="found it twice"):
        Checkpoint(folder)
