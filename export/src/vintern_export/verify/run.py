"""``vintern-export verify``: hashes, then every graph against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vintern_export.checkpoint import Checkpoint
from vintern_export.progress import progress_bar
from vintern_export.verify.checkpoint_weights import CheckpointWeights
from vintern_export.verify.compare import Comparison, compare
from vintern_export.verify.files import check_files, listed_files, load_manifest
from vintern_export.verify.inputs import Inputs, make_inputs
from vintern_export.verify.package_weights import PackageWeights
from vintern_export.verify.parity import record_parity
from vintern_export.verify.reference import Architecture, DecoderResult, Rotary, WeightSource, decoder, projector
from vintern_export.verify.reference import vision_encoder as reference_vision
from vintern_export.verify.sessions import DecoderSession, Session

if TYPE_CHECKING:
    from pathlib import Path

    from vintern_export.numbers import FloatArray

Report = Callable[[str], None]


@dataclass(frozen=True)
class Reference:
    """What the NumPy evaluation gives for the inputs."""

    features: FloatArray
    image_embeds: FloatArray
    text: DecoderResult
    outliers: DecoderResult


def verify_package(folder: Path, checkpoint: Path | None, *, record: bool, report: Report) -> bool:
    """Checks a package and reports a line for each component.

    Args:
        folder: the package.
        checkpoint: take the reference's weights from this checkpoint instead of the package's own graphs.
        record: store inputs and reference results in the package as ``parity.safetensors``.
        report: receives the lines.

    Returns:
        Whether every comparison is within its tolerance.

    Raises:
        PackageError: a file does not match the manifest, or a graph does not load.
        UsageError: ``folder`` is not a package.
    """
    manifest = load_manifest(folder)
    total = sum(int(entry["size"]) for entry in listed_files(manifest))
    with progress_bar("hashes", total) as progress:
        check_files(folder, manifest, progress)
    report("file hashes                  pass")
    inputs = make_inputs(folder, manifest)
    variants = {name: entries[0] for name, entries in manifest["graphs"].items()}
    with ExitStack() as stack:
        source: CheckpointWeights | PackageWeights
        if checkpoint is None:
            source = PackageWeights(folder, {name: entry["files"][0]["name"] for name, entry in variants.items()})
        else:
            source = CheckpointWeights(stack.enter_context(Checkpoint(checkpoint)))
        reference = evaluate(source.architecture(), source, source.rotary(), inputs)
    comparisons = compare_vision(folder, variants, inputs, reference)
    comparisons += compare_decoder(folder, variants["decoder"], inputs, reference)
    for comparison in comparisons:
        report(comparison.line())
    passed = all(comparison.passed for comparison in comparisons)
    if record and passed:
        record_parity(folder, manifest, parity_tensors(inputs, reference))
        report("parity.safetensors           recorded")
    return passed


def evaluate(architecture: Architecture, weights: WeightSource, rotary: Rotary, inputs: Inputs) -> Reference:
    """Runs the NumPy model on all inputs."""
    with progress_bar("reference", architecture.layers) as progress:
        features = reference_vision(architecture, weights, inputs.pixel_values)
        image_embeds = projector(architecture, weights, features)
        sequences = [inputs.text, inputs.outliers]
        wanted = [[len(sequence) - 2, len(sequence) - 1] for sequence in sequences]
        text, outliers = decoder(architecture, weights, rotary, sequences, wanted, on_layer=lambda _: progress(1))
    return Reference(features, image_embeds, text, outliers)


def compare_vision(folder: Path, variants: dict[str, Any], inputs: Inputs, reference: Reference) -> list[Comparison]:
    """The vision encoder, and the projector on the reference's features."""
    outcome = []
    for name, feed, expected in (
        ("vision_encoder", {"pixel_values": inputs.pixel_values}, reference.features),
        ("projector", {"features": reference.features}, reference.image_embeds),
    ):
        (result,) = Session(folder, variants[name]).run(feed).values()
        outcome.append(compare(name.replace("_", " "), variants[name]["precision"], [(result, expected)]))
    return outcome


def compare_decoder(folder: Path, variant: dict[str, Any], inputs: Inputs, reference: Reference) -> list[Comparison]:
    """Both sequences but their last position as prefills of one row each, then one step of both rows together."""
    sequences, results = [inputs.text, inputs.outliers], [reference.text, reference.outliers]
    lengths = [len(sequence) - 1 for sequence in sequences]
    session = DecoderSession(folder, variant, max(lengths) + 8)
    cache, prefill_pairs, step_pairs = session.empty_cache(len(sequences)), [], []
    for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        logits, present = session.run(sequence[None, :length], [0], session.empty_cache(1))
        prefill_pairs.append((logits[0], results[row].logits[0]))
        prefill_pairs += cache_pairs(present, 0, results[row], slice(0, length))
        for name, value in present.items():
            cache[name][row] = value[0]
    step = np.stack([sequence[-1:] for sequence in sequences])
    logits, present = session.run(step, lengths, cache)
    for row, length in enumerate(lengths):
        step_pairs.append((logits[row], results[row].logits[1]))
        step_pairs += cache_pairs(present, row, results[row], slice(0, length + 1))
    precision = variant["precision"]
    return [
        compare("decoder prefill", precision, prefill_pairs),
        compare("decoder step with a past", precision, step_pairs),
    ]


def cache_pairs(
    present: dict[str, Any], row: int, result: DecoderResult, positions: slice
) -> list[tuple[FloatArray, FloatArray]]:
    """(cache, reference) of one row's keys and values in every layer."""
    pairs = []
    for index, (keys, values) in enumerate(zip(result.keys, result.values, strict=True)):
        for part, expected in (("key", keys), ("value", values)):
            cached = present[f"past_key_values.{index}.{part}"][row][:, positions]
            pairs.append((cached, widened_heads(expected[:, positions], cached.shape[-1])))
    return pairs


def widened_heads(values: FloatArray, size: int) -> FloatArray:
    """Keys or values [heads, positions, D] as a cache of head size ``size`` holds them: zeros after each half."""
    halves = values.reshape(*values.shape[:-1], 2, -1)
    padding = ((0, 0), (0, 0), (0, 0), (0, (size - values.shape[-1]) // 2))
    return np.pad(halves, padding).reshape(*values.shape[:-1], size)


def parity_tensors(inputs: Inputs, reference: Reference) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of ``parity.safetensors``. ``logits`` follow the last token of ``input_ids``."""
    return {
        "pixel_values": inputs.pixel_values,
        "features": reference.features,
        "image_embeds": reference.image_embeds,
        "input_ids": np.array(inputs.input_ids, np.int64),
        "logits": reference.text.logits[1],
    }
