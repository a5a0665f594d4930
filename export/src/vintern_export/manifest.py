"""The manifest: everything a runtime needs to know about a package."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vintern_export import __version__
from vintern_export.head_padding import padded_head_dim

if TYPE_CHECKING:
    from vintern_export.checkpoint import Checkpoint
    from vintern_export.graph import Graph, Port
    from vintern_export.numbers import StoredDtype
    from vintern_export.output import FileRecord
    from vintern_export.presets import Presets
    from vintern_export.prompt import Prompt
    from vintern_export.tokenizer import ExportedTokenizer

FORMAT = "vintern-package"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
TILING = {
    "min_tiles": 1,
    "max_tiles": 6,
    "use_thumbnail": True,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""What the model card's code does; the tiling keys of ``config.json`` are not read by the reference."""
Manifest = dict[str, Any]


def build_manifest(
    checkpoint: Checkpoint,
    source: dict[str, str],
    prompt: Prompt,
    presets: Presets,
    tokenizer: tuple[ExportedTokenizer, FileRecord],
    embeddings: tuple[StoredDtype, FileRecord],
    variants: dict[str, list[dict[str, Any]]],
) -> Manifest:
    """Assembles the manifest of a finished package."""
    ids = tokenizer[0].ids
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "exporter": {"name": "vintern-export", "version": __version__},
        "source": source,
        "architecture": architecture(checkpoint),
        "tiling": TILING,
        "prompt": {"template": prompt.template, "system_message": prompt.system_message},
        **presets.manifest_entries(),
        "tokens": {
            "eos": ids.eos,
            "pad": ids.pad,
            "image_start": ids.image_start,
            "image_end": ids.image_end,
            "image_context": ids.image_context,
            "skipped_in_text": list(ids.skipped_in_text),
        },
        "tokenizer": {"file": tokenizer[1].as_json()},
        "embed_tokens": {
            "file": embeddings[1].as_json(),
            "tensor": "embed_tokens.weight",
            "dtype": embeddings[0].manifest_name,
        },
        "graphs": variants,
    }


def architecture(checkpoint: Checkpoint) -> dict[str, int]:
    """The numbers of the exported model."""
    config = checkpoint.config
    vision, language = config.vision, config.language
    return {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "tokens_per_tile": config.tokens_per_tile,
        "vision_hidden_size": vision.hidden_size,
        "vision_num_hidden_layers": vision.num_exported_layers,
        "hidden_size": language.hidden_size,
        "num_hidden_layers": language.num_hidden_layers,
        "num_attention_heads": language.num_attention_heads,
        "num_key_value_heads": language.num_key_value_heads,
        "head_dim": padded_head_dim(language.head_dim),
        "vocab_size": language.vocab_size,
        "embedding_rows": language.vocab_size,
        "max_length": language.max_position_embeddings,
    }


def variant_entry(graph: Graph, providers: list[str], files: list[FileRecord]) -> dict[str, Any]:
    """One variant of one graph."""
    storage = {} if graph.storage is None else {"quantisation": graph.storage.as_json()}
    return {
        "variant": graph.variant.value,
        "precision": graph.precision_name,
        **storage,
        "providers": providers,
        "opset": graph.opsets,
        "files": [file.as_json() for file in files],
        "inputs": [port_entry(port) for port in graph.inputs],
        "outputs": [port_entry(port) for port in graph.outputs],
    }


def port_entry(port: Port) -> dict[str, Any]:
    """An input or output."""
    return {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)}


def manifest_bytes(manifest: Manifest) -> bytes:
    """The file's text: indented, readable, UTF-8."""
    return (json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode()
