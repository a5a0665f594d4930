"""The options of the command line that decide how weights are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vintern_export.errors import UsageError
from vintern_export.numbers import Precision
from vintern_export.quantisation import BLOCK_SIZES, BlockFormat
from vintern_export.quantised_matrix import ACCURACY_LEVELS, MatrixStorage

if TYPE_CHECKING:
    import argparse

BITS = {"int8": 8, "int4": 4}
DEFAULT_BLOCK_SIZES = {"int8": 128, "int4": 32}
"""Small blocks keep 4 bits accurate; with 8 bits they bring little and cost speed."""
QUANTISATION_OPTIONS = ("block_size", "symmetric", "accuracy_level", "lm_head")


def add_precision_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--precision`` and what belongs to it."""
    parser.add_argument(
        "--precision",
        choices=[*(p.value for p in Precision), *BITS],
        default=Precision.FP32.value,
        help="fp32 for CPUs, fp16 for GPUs; int8 and int4 quantise the decoder's matrices (default: fp32)",
    )
    group = parser.add_argument_group("quantisation, with --precision int8 or int4")
    group.add_argument(
        "--block-size",
        type=int,
        choices=BLOCK_SIZES,
        help="weights that share a scale (default: 128 with int8, 32 with int4)",
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


def resolve_precision(values: argparse.Namespace) -> tuple[Precision, MatrixStorage | None]:
    """Format of the arithmetic, and the storage of matrices, that the arguments ask for.

    Raises:
        UsageError: an option of quantisation without one.
    """
    name = values.precision
    if name not in BITS:
        given = [option for option in QUANTISATION_OPTIONS if getattr(values, option) is not None]
        if given:
            flag = "--" + given[0].replace("_", "-")
            raise UsageError(f"{flag} is for quantised weights; found --precision {name}; supported: int8, int4")
        return Precision(name), None
    on_gpu = values.provider == "cuda"
    symmetric = bool(values.symmetric) or on_gpu

    def form(precision: str, size: int | None) -> BlockFormat:
        return BlockFormat(BITS[precision], size or DEFAULT_BLOCK_SIZES[precision], symmetric)

    head = values.lm_head or "int8"
    level = 4 if values.accuracy_level is None else values.accuracy_level
    storage = MatrixStorage(name, form(name, values.block_size), form(head, values.block_size), level)
    return (Precision.FP16 if on_gpu else Precision.FP32), storage
