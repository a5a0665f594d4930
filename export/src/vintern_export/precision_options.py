"""The options of the command line that decide how weights are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vintern_export.errors import UsageError
from vintern_export.numbers import Precision
from vintern_export.quantisation import BLOCK_SIZES, BlockFormat
from vintern_export.quantised_matrix import ACCURACY_LEVELS, MatrixStorage

if TYPE_CHECKING:
    import argparse

BITS = {"int8": 8, "int4": 4}
DEFAULT_BLOCK_SIZES = {"int8": 128, "int4": 32}
"""Small blocks keep 4 bits accurate; with 8 bits they bring little and cost speed."""
QUANTISATION_OPTIONS = ("block_size", "symmetric", "accuracy_level", "lm_head", "vision", "cache")


class WeightFormats(NamedTuple):
    """Formats of a package.

    Attributes:
        precision: of the arithmetic, and of the weights that are not quantised.
        decoder: how the decoder's matrices are quantised, or None.
        vision: the same for the vision encoder and the projector.
        cache: of keys and values; None for ``precision``.
    """

    precision: Precision
    decoder: MatrixStorage | None = None
    vision: MatrixStorage | None = None
    cache: Precision | None = None


def add_precision_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--precision`` and what belongs to it."""
    parser.add_argument(
        "--precision",
        choices=[*(p.value for p in Precision), *BITS],
        default=Precision.FP32.value,
        help="fp32 for CPUs, fp16 for GPUs; int8 and int4 quantise matrices (default: fp32)",
    )
    group = parser.add_argument_group("quantisation, with --precision int8 or int4")
    group.add_argument(
        "--block-size",
        type=int,
        choices=BLOCK_SIZES,
        help="weights that share a scale, in matrices of the precision (default: 128 with int8, 32 with int4)",
    )
    group.add_argument(
        "--symmetric",
        action="store_true",
        default=None,
        help="no zero points: smaller, less accurate (default for cuda)",
    )
    group.add_argument(
        "--accuracy-level",
        type=int,
        choices=list(ACCURACY_LEVELS),
        help="0 computes with activations as they are, 4 rounds them to 8 bits by block: faster on CPUs (default: 4)",
    )
    group.add_argument("--lm-head", choices=list(BITS), help="precision of the output projection (default: int8)")
    group.add_argument(
        "--vision",
        choices=["int8", "float"],
        help="vision encoder and projector with weights of 8 bits in blocks of 128, or as they are "
        "(default: int8; float for cuda)",
    )
    group.add_argument(
        "--cache",
        choices=[p.value for p in Precision],
        help="precision of the cache of keys and values: fp16 takes half the memory (default: fp16)",
    )


def resolve_precision(values: argparse.Namespace) -> WeightFormats:
    """The formats that the arguments ask for.

    Raises:
        UsageError: an option of quantisation without one, or one that the provider cannot use.
    """
    name = values.precision
    if name not in BITS:
        given = [option for option in QUANTISATION_OPTIONS if getattr(values, option) is not None]
        if given:
            flag = "--" + given[0].replace("_", "-")
            raise UsageError(f"{flag} is for quantised weights; found --precision {name}; supported: int8, int4")
        return WeightFormats(Precision(name))
    on_gpu = values.provider == "cuda"
    symmetric = bool(values.symmetric) or on_gpu

    def form(precision: str, size: int | None) -> BlockFormat:
        return BlockFormat(BITS[precision], size or DEFAULT_BLOCK_SIZES[precision], symmetric)

    head = values.lm_head or "int8"
    level = 4 if values.accuracy_level is None else values.accuracy_level
    body = form(name, values.block_size)
    decoder = MatrixStorage(name, body, body if head == name else form(head, None), level)
    if values.vision == "int8" and on_gpu:
        raise UsageError("--vision int8 with --for cuda: found no kernel that gains by it; supported: float")
    exact_vision = values.vision == "float" or on_gpu
    vision = None if exact_vision else MatrixStorage("int8", form("int8", None), None, level)
    if values.cache == Precision.FP32.value and on_gpu:
        raise UsageError("--cache fp32 with --for cuda: found no kernel of its attention for it; supported: fp16")
    precision = Precision.FP16 if on_gpu else Precision.FP32
    return WeightFormats(precision, decoder, vision, Precision(values.cache or Precision.FP16.value))
