"""Exports a checkpoint folder to a model package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vintern_export.checkpoint import Checkpoint
from vintern_export.graph import Variant
from vintern_export.graph_decoder import build_decoder
from vintern_export.graph_file import data_size, write_graph, write_variant
from vintern_export.graph_projector import build_projector
from vintern_export.graph_vision import build_vision_encoder
from vintern_export.layout import EMBED_TOKENS
from vintern_export.manifest import MANIFEST_NAME, TILING, build_manifest, manifest_bytes, variant_entry
from vintern_export.numbers import Precision
from vintern_export.output import FileRecord, HashedFile, Progress, write_file
from vintern_export.presets import read_presets
from vintern_export.progress import progress_bar
from vintern_export.prompt import prompt_warnings, resolve_prompt
from vintern_export.quantised_matrix import KERNEL_FORMS, KERNEL_LEVEL
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

PROVIDERS = {
    Variant.FUSED: ["cpu", "cuda"],
    Variant.STANDARD: ["cpu", "cuda", "tensorrt", "openvino"],
}
"""Providers the graphs of a variant are meant for, in either precision."""
TARGETS = PROVIDERS[Variant.STANDARD]
"""What a package can be exported for."""


@dataclass(frozen=True)
class ExportOptions:
    """What to export.

    Attributes:
        precision: format of the arithmetic, and of the weights that are not quantised.
        storage: how the decoder's matrices are quantised; None leaves them in ``precision``.
        vision_storage: the same for the vision encoder and the projector.
        cache: precision of keys and values; None for ``precision``.
        variants: operator sets; with both, the standard graphs use the fused ones' data files.
        provider: the execution provider the package is meant for; None for all.
        template: chat template instead of the checkpoint's.
        system: system message instead of the checkpoint's.
        force: replace an existing package.
    """

    precision: Precision = Precision.FP32
    storage: MatrixStorage | None = None
    vision_storage: MatrixStorage | None = None
    cache: Precision | None = None
    variants: tuple[Variant, ...] = (Variant.FUSED,)
    provider: str | None = None
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
        builds = builders(checkpoint, options)
        graphs = {key: build(options.variants[0]) for key, build in builds.items()}
        table = checkpoint[EMBED_TOKENS]
        total = sum(data_size(graph) for graph in graphs.values()) + table.size_bytes
        check_space(staging, total)
        with hashing_in_background(checkpoint.source_files) as digest, progress_bar("export", total) as progress:
            tokenizer_file = write_file(staging / "tokenizer.json", tokenizer.json_text.encode())
            table_file = write_embeddings(table, staging, progress)
            variants = {
                key: write_variants(graphs[key], build, staging, options, progress) for key, build in builds.items()
            }
            source = {"name": name, "layout": checkpoint.config.layout.value, "sha256": digest.result()}
        manifest = build_manifest(
            checkpoint, source, prompt, presets, (tokenizer, tokenizer_file), (table.dtype, table_file), variants
        )
        write_file(staging / MANIFEST_NAME, manifest_bytes(manifest))


def option_warnings(options: ExportOptions) -> list[str]:
    """What the user should know about a choice of options."""
    if options.precision is Precision.FP16 and options.provider == "cpu":
        return ["float16 is meant for GPUs: on CPUs int8 and int4 packages are smaller and faster"]
    storage = options.storage
    if storage is None or storage.has_kernels() or options.provider not in {None, "cpu"}:
        return []
    forms = " and ".join(dict.fromkeys(f"{f.bits} bits in blocks of {f.block_size}" for f in storage.forms()))
    found = f"found {forms} at level {storage.accuracy_level}"
    taken = " and ".join(
        f"{bits} bits in blocks of {', '.join(map(str, sizes))}" for bits, sizes in KERNEL_FORMS.items()
    )
    kernels = f"the runtime's kernels for CPUs take {taken} at level {KERNEL_LEVEL}"
    return [f"{kernels}; {found}: ONNX Runtime's, which are slower, will run them"]


def builders(checkpoint: Checkpoint, options: ExportOptions) -> dict[str, Callable[[Variant], Graph]]:
    """What builds each graph of the package. The projector needs no other operators than the standard ones."""
    precision = options.precision
    return {
        "vision_encoder": lambda variant: build_vision_encoder(checkpoint, precision, options.vision_storage, variant),
        "projector": lambda variant: build_projector(checkpoint, precision, options.vision_storage, variant),
        "decoder": lambda variant: build_decoder(checkpoint, precision, options.storage, variant, options.cache),
    }


def write_variants(
    graph: Graph, build: Callable[[Variant], Graph], folder: Path, options: ExportOptions, progress: Progress
) -> list[dict[str, Any]]:
    """Writes a graph in all variants and returns their manifest entries."""
    files = write_graph(graph, folder, progress)
    entries = [variant_entry(graph, providers_of(graph.variant, options), files)]
    for variant in options.variants[1:]:
        other = build(variant)
        other.name = f"{graph.name}.{variant.value}"
        entries.append(
            variant_entry(other, providers_of(variant, options), write_variant(other, folder, files[1], progress))
        )
    return entries


def providers_of(variant: Variant, options: ExportOptions) -> list[str]:
    """Execution providers a variant of the package is meant for."""
    providers = PROVIDERS[variant]
    return [options.provider] if options.provider in providers else providers


def write_embeddings(table: TensorSource, folder: Path, progress: Progress) -> FileRecord:
    """Copies the token embedding table [V, H] as it is stored to ``embed_tokens.safetensors``."""
    with HashedFile(folder / "embed_tokens.safetensors", progress) as file:
        file.write(safetensors_header([("embed_tokens.weight", table.dtype, table.shape)]))
        for _, rows in table.row_blocks(BLOCK_BYTES):
            file.write(rows)
        return file.record()
