"""What a checkpoint's configuration says, reduced to the numbers that decide the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vintern_export.config_native import read_native
from vintern_export.config_original import read_original
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.fields import Fields, read_json_object

if TYPE_CHECKING:
    from pathlib import Path

    from vintern_export.config_types import ModelConfig


@dataclass(frozen=True)
class LoadedConfig:
    """A parsed configuration and the warnings that go with it."""

    model: ModelConfig
    warnings: tuple[str, ...]


def load_config(folder: Path) -> LoadedConfig:
    """Reads ``config.json`` of a checkpoint in either layout.

    Raises:
        UnsupportedCheckpointError: a field holds something that cannot be exported.
    """
    fields = Fields(read_json_object(folder / "config.json"), "config.json")
    refuse_quantised(fields)
    warnings: list[str] = []
    architectures = fields.values.get("architectures") or []
    if not isinstance(architectures, list):
        raise fields.refuse("architectures", "a list of class names")
    model_type = fields.text("model_type", None)
    if "InternVLChatModel" in architectures or (not architectures and model_type == "internvl_chat"):
        model = read_original(fields, warnings)
    elif "InternVLForConditionalGeneration" in architectures or (not architectures and model_type == "internvl"):
        model = read_native(fields, warnings)
    else:
        raise UnsupportedCheckpointError(
            "config.json architectures",
            f"{architectures} (model_type {model_type!r})",
            "InternVLChatModel (original layout) or InternVLForConditionalGeneration (transformers layout)",
        )
    return LoadedConfig(model, tuple(warnings))


def refuse_quantised(fields: Fields) -> None:
    """Refuses checkpoints whose weights are stored quantised, wherever the key stands."""
    for section in (fields, *(fields.section(k) for k in ("llm_config", "text_config", "vision_config"))):
        if section.values.get("quantization_config"):
            raise section.refuse(
                "quantization_config",
                "unquantised bf16, fp16 or fp32 weights",
                "Export the checkpoint it was made from.",
            )
