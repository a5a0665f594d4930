"""Keys that real configurations carry with null, odd or irrelevant values."""

from pathlib import Path
from typing import Any

import pytest

from conftest import export
from support import golden
from support.checkpoints import copy_checkpoint, read_config, read_tensors, write_config, write_tensors
from vintern_export.checkpoint import Checkpoint
from vintern_export.config import load_config
from vintern_export.config_types import ModelConfig
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.layout import LM_HEAD
from vintern_export.package import ExportOptions, export_package
from vintern_export.tokenizer import export_tokenizer

MISSING = "a key to remove"


def changed(tmp_path: Path, section: str | None, values: dict[str, Any], name: str = "ckpt_a") -> Path:
    folder = copy_checkpoint(golden.checkpoint(name), tmp_path / "checkpoint")
    config = read_config(folder)
    target = config if section is None else config[section]
    target.update({key: value for key, value in values.items() if value is not MISSING})
    for key, value in values.items():
        if value is MISSING:
            target.pop(key, None)
    write_config(folder, config)
    return folder


def model(tmp_path: Path, section: str | None, values: dict[str, Any]) -> ModelConfig:
    loaded = load_config(changed(tmp_path, section, values))
    assert loaded.warnings == ()
    return loaded.model


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (None, {"force_image_size": None}),
        (None, {"architectures": MISSING}),
        (None, {"architectures": None}),
        (None, {"model_type": MISSING}),
        (None, {"torch_dtype": None}),
        (None, {"torch_dtype": MISSING, "dtype": "bfloat16"}),
        (None, {"quantization_config": None}),
        (None, {"auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}, "transformers_version": None}),
        (None, {"max_dynamic_patch": None, "min_dynamic_patch": None, "dynamic_image_size": False, "use_thumbnail": 0}),
        (None, {"select_layer": None, "downsample_ratio": None}),
        (None, {"use_backbone_lora": 0, "use_llm_lora": 0, "pad2square": False, "eos_token_id": [1, 2]}),
        ("llm_config", {"rope_scaling": None}),
        ("llm_config", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("llm_config", {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("llm_config", {"rope_theta": 1000000}),
        ("llm_config", {"sliding_window": None}),
        ("llm_config", {"use_sliding_window": MISSING, "sliding_window": 128}),
        ("llm_config", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}),
        ("llm_config", {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 2}),
        ("llm_config", {"use_sliding_window": True, "sliding_window": 32768, "max_window_layers": 0}),
        ("llm_config", {"architectures": None}),
        ("llm_config", {"architectures": MISSING, "model_type": MISSING}),
        ("llm_config", {"head_dim": None, "layer_types": None, "quantization_config": None}),
        ("llm_config", {"_attn_implementation": "flash_attention_2", "pruned_heads": {}, "id2label": {"0": "LABEL_0"}}),
        ("llm_config", {"torch_dtype": "bfloat16", "attn_implementation": "eager", "use_bfloat16": True}),
        ("vision_config", {"drop_path_rate": 0.1, "dropout": 0.2, "attention_dropout": 0.3}),
        ("vision_config", {"drop_path_rate": None, "use_flash_attn": None, "initializer_range": None}),
        ("vision_config", {"architectures": None, "num_channels": None, "hidden_act": None}),
        ("vision_config", {"image_size": [448, 448], "patch_size": [14, 14]}),
    ],
)
def test_the_model_stays_the_same(tmp_path: Path, section: str | None, values: dict[str, Any]) -> None:
    assert model(tmp_path, section, values) == load_config(golden.checkpoint("ckpt_a")).model


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("llm_config", {"quantization_config": {"bits": 4}}, r"llm_config\.quantization_config: found .*unquantised"),
        ("vision_config", {"quantization_config": {"bits": 4}}, r"vision_config\.quantization_config: found"),
        ("llm_config", {"use_sliding_window": True, "sliding_window": MISSING, "max_window_layers": 0}, "use_sliding"),
        ("llm_config", {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 1}, "of at least 2"),
        ("llm_config", {"architectures": "Qwen2ForCausalLM"}, r"architectures: found .*; supported: a list of class"),
        ("llm_config", {"tie_word_embeddings": "yes"}, "tie_word_embeddings: found \"yes\"; supported: true or false"),
        (None, {"architectures": MISSING, "model_type": MISSING}, r"architectures: found \[\] \(model_type None\)"),
        (None, {"force_image_size": "448"}, "force_image_size: found \"448\"; supported: one positive integer"),
        (None, {"system_message": 5}, "system_message: found 5; supported: a string"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, section: str | None, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load_config(changed(tmp_path, section, values))


@pytest.mark.parametrize(
    ("outer", "inner", "warns"),
    [
        (False, False, True),
        (MISSING, False, True),
        (False, MISSING, True),
        (True, False, False),
        (False, True, False),
        (MISSING, MISSING, False),
        (None, None, False),
    ],
)
def test_without_an_output_matrix_the_embeddings_are_used(tmp_path: Path, outer: Any, inner: Any, warns: bool) -> None:
    """The weights decide; a configuration that says otherwise is worth a warning."""
    folder = changed(tmp_path, "llm_config", {"tie_word_embeddings": inner}, "ckpt_b")
    config = read_config(folder)
    config["tie_word_embeddings"] = outer
    if outer is MISSING:
        del config["tie_word_embeddings"]
    write_config(folder, config)
    with Checkpoint(folder) as checkpoint:
        assert LM_HEAD not in checkpoint
        assert [line for line in checkpoint.warnings if "tie_word_embeddings" in line] == list(checkpoint.warnings)
        assert bool(checkpoint.warnings) is warns


@pytest.mark.parametrize("tied", [True, False, None])
def test_an_output_matrix_in_the_file_is_used(tmp_path: Path, tied: bool | None) -> None:
    folder = changed(tmp_path, "llm_config", {"tie_word_embeddings": tied})
    config = read_config(folder)
    write_config(folder, config | {"tie_word_embeddings": tied})
    tensors = read_tensors(folder)
    tensors[LM_HEAD][1][:] = 0
    write_tensors(folder, tensors)
    package = export(folder, tmp_path / "package")
    assert (package.last_logits(package.embed([5, 6])) == 0).all()


def test_a_null_system_message_is_printed_with_a_warning(tmp_path: Path) -> None:
    folder = changed(tmp_path, None, {"system_message": None})
    lines: list[str] = []
    export_package(folder, tmp_path / "package", "name", ExportOptions(), lines.append)
    assert [line.split(",")[0] for line in lines] == ["config.json system_message is null"]
    lines.clear()
    export_package(folder, tmp_path / "mine", "name", ExportOptions(system="mine"), lines.append)
    assert lines == []


def test_an_image_token_of_the_transformers_layout_may_be_null(tmp_path: Path) -> None:
    """Then the class's default holds, which is the id of the real vocabulary."""
    folder = changed(tmp_path, None, {"model_type": "internvl", "architectures": None, "image_token_id": None})
    config = read_config(folder)
    write_config(folder, config | {"text_config": config["llm_config"]})
    identifier = load_config(folder).model.image_token_id
    assert identifier == 151667
    with pytest.raises(UnsupportedCheckpointError, match="image_token_id: found 151667; supported: 924"):
        export_tokenizer(folder, 931, identifier)
