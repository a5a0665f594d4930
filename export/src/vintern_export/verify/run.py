"""``vintern-export verify``: hashes, then every graph against NumPy."""

from __future__ import annotations

from collections.abc import Callable
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

    from vintern_export.manifest import Manifest
    from vintern_export.numbers import FloatArray

Report = Callable[[str], None]


@dataclass(frozen=True)
class Reference:
    """What the NumPy evaluation gives for the inputs."""

    features: FloatArray
    image_embeds: FloatArray
    text: DecoderResult
    outliers: DecoderResult
    whole: DecoderResult | None = None
    """The first tile's embeddings, then the text; only where asked for."""

    @property
    def decoded(self) -> tuple[DecoderResult, DecoderResult]:
        """The decoder's results, one a row of its step."""
        return self.text, self.outliers


def verify_package(folder: Path, checkpoint: Path | None, *, record: bool, report: Report) -> bool:
    """Checks a package and reports a line for each component.

    Args:
        folder: the package.
        checkpoint: take the reference's weights from this checkpoint instead of the package's own graphs. A quantised
            decoder is still judged by the weights its codes stand for; its error against the checkpoint is reported.
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
    variant_sets = sets_of_variants(manifest)
    variants = variant_sets[0]
    quantised = any("quantisation" in variant for variant in variants.values())
    graphs = {name: entry["files"][0]["name"] for name, entry in variants.items()}
    original = reference_of_checkpoint(checkpoint, inputs, whole=quantised) if checkpoint else None
    if original is None or quantised:
        weights = PackageWeights(folder, graphs)
        reference = evaluate(weights.architecture(), weights, weights.rotary(), inputs)
    else:
        reference = original
    decoders, comparisons = [], []
    for found in variant_sets:
        if len(variant_sets) > 1:
            report(f"{found['decoder']['variant']} graphs:")
        decoders.append(run_decoder(folder, found["decoder"], inputs))
        compared = compare_vision(folder, found, inputs, reference)
        compared += compare_decoder(found["decoder"]["precision"], decoders[-1], reference)
        for comparison in compared:
            report(comparison.line())
        comparisons += compared
    passed = all(comparison.passed for comparison in comparisons)
    if quantised and original is not None:
        for line in quantisation_report(folder, variants, inputs, decoders[0], original):
            report(line)
    if record and passed:
        record_parity(folder, manifest, parity_tensors(inputs, reference))
        report("parity.safetensors           recorded")
    return passed


def sets_of_variants(manifest: Manifest) -> list[dict[str, Any]]:
    """Whole sets of graphs, one for each variant: {component: manifest entry}."""
    graphs = manifest["graphs"]
    names = [entry["variant"] for entry in graphs["decoder"]]
    return [
        {
            component: next(entry for entry in entries if entry["variant"] == name)
            for component, entries in graphs.items()
        }
        for name in names
    ]


def reference_of_checkpoint(folder: Path, inputs: Inputs, *, whole: bool) -> Reference:
    """The evaluation with a checkpoint's weights; ``whole``: with :attr:`Reference.whole`."""
    with Checkpoint(folder) as checkpoint:
        weights = CheckpointWeights(checkpoint)
        return evaluate(weights.architecture(), weights, weights.rotary(), inputs, whole=whole)


def evaluate(
    architecture: Architecture, weights: WeightSource, rotary: Rotary, inputs: Inputs, *, whole: bool = False
) -> Reference:
    """Runs the NumPy model on all inputs."""
    with progress_bar("reference", architecture.layers) as progress:
        features = reference_vision(architecture, weights, inputs.pixel_values)
        image_embeds = projector(architecture, weights, features)
        sequences = [inputs.text, inputs.outliers]
        if whole:
            sequences.append(image_and_text(image_embeds, inputs))
        wanted = [[len(sequence) - 2, len(sequence) - 1] for sequence in sequences]
        results = decoder(architecture, weights, rotary, sequences, wanted, on_layer=lambda _: progress(1))
    return Reference(features, image_embeds, *results)


def image_and_text(image_embeds: FloatArray, inputs: Inputs) -> FloatArray:
    """The first tile's embeddings, then the text's: [n, H]."""
    return np.concatenate([image_embeds[0], inputs.text])


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


@dataclass(frozen=True)
class DecoderRun:
    """What the decoder graph gives for the text and the outliers.

    All but their last position are prefills of one row each; then comes one step of both rows together.

    Attributes:
        lengths: positions of the prefills.
        prefills: (logits [V], present of one row) of each.
        step: (logits [rows, V], present of all rows).
    """

    lengths: list[int]
    prefills: list[tuple[FloatArray, dict[str, Any]]]
    step: tuple[FloatArray, dict[str, Any]]


def run_decoder(folder: Path, variant: dict[str, Any], inputs: Inputs) -> DecoderRun:
    """Runs the decoder graph."""
    sequences = [inputs.text, inputs.outliers]
    lengths = [len(sequence) - 1 for sequence in sequences]
    session = DecoderSession(folder, variant, max(lengths) + 8)
    cache, prefills = session.empty_cache(len(sequences)), []
    for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        logits, present = session.run(sequence[None, :length], [0], session.empty_cache(1))
        prefills.append((logits[0], present))
        for name, value in present.items():
            cache[name][row] = value[0]
    last = np.stack([sequence[-1:] for sequence in sequences])
    return DecoderRun(lengths, prefills, session.run(last, lengths, cache))


def compare_decoder(precision: str, run: DecoderRun, reference: Reference) -> list[Comparison]:
    """Logits and caches of prefill and step."""
    pairs = logits_pairs(run, reference)
    prefill_pairs, step_pairs = pairs[: len(run.lengths)], pairs[len(run.lengths) :]
    for row, (length, result) in enumerate(zip(run.lengths, reference.decoded, strict=True)):
        prefill_pairs += cache_pairs(run.prefills[row][1], 0, result, slice(0, length))
        step_pairs += cache_pairs(run.step[1], row, result, slice(0, length + 1))
    return [
        compare("decoder prefill", precision, prefill_pairs),
        compare("decoder step with a past", precision, step_pairs),
    ]


def logits_pairs(run: DecoderRun, reference: Reference) -> list[tuple[FloatArray, FloatArray]]:
    """(logits, reference) of the prefills, then of the step's rows."""
    prefills = [(run.prefills[row][0], result.logits[0]) for row, result in enumerate(reference.decoded)]
    return prefills + [(run.step[0][row], result.logits[1]) for row, result in enumerate(reference.decoded)]


def quantisation_report(
    folder: Path, variants: dict[str, Any], inputs: Inputs, run: DecoderRun, checkpoint: Reference
) -> list[str]:
    """What a quantised package differs by from the checkpoint it was made of; nothing of it is judged."""
    features = Session(folder, variants["vision_encoder"]).run({"pixel_values": inputs.pixel_values})["features"]
    embeds = Session(folder, variants["projector"]).run({"features": features})["image_embeds"]
    vision, language = variants["vision_encoder"]["precision"], variants["decoder"]["precision"]
    pairs = logits_pairs(run, checkpoint)
    comparisons = [
        compare("vision encoder", vision, [(features, checkpoint.features)]),
        compare("image embeddings", vision, [(embeds, checkpoint.image_embeds)]),
        *compare_decoder(language, run, checkpoint),
        compare("logits alone", language, pairs),
    ]
    if checkpoint.whole is not None:
        sequence = image_and_text(embeds, inputs)
        session = DecoderSession(folder, variants["decoder"], len(sequence))
        logits, _ = session.run(sequence[None], [0], session.empty_cache(1))
        pairs.append((logits[0], checkpoint.whole.logits[1]))
        comparisons.append(compare("logits of image and text", language, pairs[-1:]))
    same = sum(int(found.argmax() == wanted.argmax()) for found, wanted in pairs)
    return [
        "against the checkpoint:",
        *(comparison.error_line() for comparison in comparisons),
        f"{'most likely token':<28} the same at {same} of {len(pairs)} positions",
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
