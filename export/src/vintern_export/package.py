"""Exports a checkpoint folder to a model package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vintern_export.checkpoint import Checkpoint
from vintern_export.graph_decoder import build_decoder
from vintern_export.graph_file import data_size, write_graph
from vintern_export.graph_projector import build_projector
from vintern_export.graph_vision import build_vision_encoder
from vintern_export.layout import EMBED_TOKENS
from vintern_export.manifest import MANIFEST_NAME, TILING, build_manifest, manifest_bytes, variant_entry
from vintern_export.numbers import Precision
from vintern_export.output import FileRecord, HashedFile, Progress, write_file
from vintern_export.presets import read_presets
from vintern_export.progress import progress_bar
from vintern_export.prompt import prompt_warnings, resolve_prompt
from vintern_export.safetensors_io import safetensors_header
from vintern_export.source_hash import hashing_in_background
from vintern_export.staging import check_space, staged_folder
from vintern_export.tokenizer import export_tokenizer
from vintern_export.weights import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vintern_export.checkpoint import TensorSource
    from vintern_export.graph import Graph
    from vintern_export.quantised_matrix import MatrixStorage

PROVIDERS = ["cpu", "cuda"]
"""Providers the fused graphs run on, in either precision."""


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        precision: format of the arithmetic, and of the weights that are not quantised.
        storage: how the decoder's matrices are quantised; None leaves them in ``precision``.
        vision_storage: the same for the vision encoder and the projector.
        variant: operator set of the decoder; ``fused`` is the only one.
        providers: execution providers the package is meant for.
        template: chat template instead of the checkpoint's.
        system: system message instead of the checkpoint's.
        force: replace an existing package.
    """

    precision: Precision = Precision.FP32
    storage: MatrixStorage | None = None
    vision_storage: MatrixStorage | None = None
    variant: str = "fused"
    providers: tuple[str, ...] = tuple(PROVIDERS)
    template: str | None = None
    system: str | None = None
    force: bool = False


def export_package(folder: Path, out: Path, name: str, options: ExportOptions, warn: Callable[[str], None]) -> None:
    """Exports the checkpoint in ``folder`` to the package ``out``.

    Args:
        folder: checkpoint folder.
        out: package folder; it appears only when everything is written.
        name: name of the source in the manifest.
        options: what to export.
        warn: receives one line for each thing the user should know.

    Raises:
        ExportError: see the subclasses; nothing is left behind.
    """
    replaces = MANIFEST_NAME if options.force else None
    with Checkpoint(folder) as checkpoint, staged_folder(out, replaces=replaces) as staging:
        prompt = resolve_prompt(folder, checkpoint.config, options.template, options.system)
        presets = read_presets(folder, TILING)
        for line in (*checkpoint.warnings, *prompt_warnings(checkpoint.config, prompt), *option_warnings(options)):
            warn(line)
        rows = checkpoint.config.language.vocab_size
        tokenizer = export_tokenizer(folder, rows, checkpoint.config.image_token_id)
        graphs = {
            "vision_encoder": build_vision_encoder(checkpoint, options.precision, options.vision_storage),
            "projector": build_projector(checkpoint, options.precision, options.vision_storage),
            "decoder": build_decoder(checkpoint, options.precision, options.storage),
        }
        table = checkpoint[EMBED_TOKENS]
        total = sum(data_size(graph) for graph in graphs.values()) + table.size_bytes
        check_space(staging, total)
        with hashing_in_background(checkpoint.source_files) as digest, progress_bar("export", total) as progress:
            tokenizer_file = write_file(staging / "tokenizer.json", tokenizer.json_text.encode())
            table_file = write_embeddings(table, staging, progress)
            variants = {key: [write_variant(graph, staging, options, progress)] for key, graph in graphs.items()}
            source = {"name": name, "layout": checkpoint.config.layout.value, "sha256": digest.result()}
        manifest = build_manifest(
            checkpoint, source, prompt, presets, (tokenizer, tokenizer_file), (table.dtype, table_file), variants
        )
        write_file(staging / MANIFEST_NAME, manifest_bytes(manifest))


def option_warnings(options: ExportOptions) -> list[str]:
    """What the user should know about a choice of options."""
    if options.precision is Precision.FP16 and options.providers == ("cpu",):
        return ["the CPU provider computes float16 graphs through float32: smaller files, but not faster than fp32"]
    return []


def write_variant(graph: Graph, folder: Path, options: ExportOptions, progress: Progress) -> dict[str, Any]:
    """Writes a graph and returns its manifest entry."""
    files = write_graph(graph, folder, progress)
    return variant_entry(graph, options.variant, list(options.providers), files)


def write_embeddings(table: TensorSource, folder: Path, progress: Progress) -> FileRecord:
    """Copies the token embedding table [V, H] as it is stored to ``embed_tokens.safetensors``."""
    with HashedFile(folder / "embed_tokens.safetensors", progress) as file:
        file.write(safetensors_header([("embed_tokens.weight", table.dtype, table.shape)]))
        for _, rows in table.row_blocks(BLOCK_BYTES):
            file.write(rows)
        return file.record()
