"""The command line: ``vintern-export [export] CHECKPOINT OUT``, ``... synth SHAPE OUT``, ``... verify OUT``."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from vintern_export import __version__
from vintern_export.config_types import Layout
from vintern_export.errors import EnvironmentFailureError, ExportError, UsageError
from vintern_export.graph import Variant
from vintern_export.hub import resolve_checkpoint
from vintern_export.numbers import DTYPES
from vintern_export.package import PROVIDERS, TARGETS, ExportOptions, export_package
from vintern_export.precision_options import WeightFormats, add_precision_arguments, resolve_precision
from vintern_export.prompt import TEMPLATES
from vintern_export.spent import spent
from vintern_export.synth.checkpoint import write_checkpoint
from vintern_export.synth.shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

COMMANDS = ("export", "synth", "verify")
EPILOG = """\
commands (the first word; export when it is none of them):
  vintern-export CHECKPOINT OUT       export a checkpoint to a model package
  vintern-export synth SHAPE OUT      make a random checkpoint of a real model's shape
  vintern-export verify OUT           check a package against a NumPy evaluation of its weights

exit codes: 0 done, 1 a check failed, 2 wrong usage or an unsupported checkpoint, 3 the environment (disk, hub)
"""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells report it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code."""
    signal.signal(signal.SIGTERM, interrupt)
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words.pop(0) if words and words[0] in COMMANDS else "export"
    try:
        if command == "synth":
            return synth(words)
        if command == "verify":
            return verify(words)
        return export(words)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return EnvironmentFailureError.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def interrupt(signal_number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the handler's signature
    """Ends the program the way Ctrl-C does, so that unfinished folders are removed."""
    raise KeyboardInterrupt


def export(words: list[str]) -> int:
    """``vintern-export CHECKPOINT OUT``."""
    parser = argparse.ArgumentParser(
        prog="vintern-export",
        description="Exports an InternVL checkpoint with a Qwen2 language model to an ONNX model package.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a folder, or a hub name such as 5CD-AI/Vintern-3B-beta"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the package folder to make")
    add_precision_arguments(parser)
    parser.add_argument(
        "--variant",
        choices=[*(variant.value for variant in Variant), "both"],
        help="operators: fused with those of com.microsoft, standard with those of ai.onnx alone, both over the same "
        "data files (default: fused; both for tensorrt and openvino)",
    )
    parser.add_argument(
        "--for", dest="provider", choices=TARGETS, help="the execution provider meant (default: all of them)"
    )
    parser.add_argument(
        "--template", metavar="NAME", help=f"chat template: {', '.join(TEMPLATES)} (default: the checkpoint's)"
    )
    parser.add_argument("--system", metavar="TEXT", help="system message (default: the checkpoint's)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is a model package")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    values = parser.parse_args(words)
    folder, name = resolve_checkpoint(values.checkpoint)
    formats = resolve_precision(values)
    options = ExportOptions(
        precision=formats.precision,
        storage=formats.decoder,
        vision_storage=formats.vision,
        cache=formats.cache,
        variants=resolve_variants(values, formats),
        provider=values.provider,
        template=values.template,
        system=values.system,
        force=values.force,
    )
    started = time.monotonic()
    export_package(folder, values.out, name, options, lambda line: print(f"warning: {line}", file=sys.stderr))
    print(f"exported {name} to {values.out}: {spent(started, values.out)}", file=sys.stderr)
    return 0


def resolve_variants(values: argparse.Namespace, formats: WeightFormats) -> tuple[Variant, ...]:
    """The variants that the arguments ask for.

    Raises:
        UsageError: standard graphs with quantised matrices.
    """
    needs_standard = values.provider not in (None, *PROVIDERS[Variant.FUSED])
    name = values.variant or ("both" if needs_standard else Variant.FUSED.value)
    variants = tuple(Variant) if name == "both" else (Variant(name),)
    if Variant.STANDARD in variants and formats.decoder is not None:
        raise UsageError(
            f"--variant {name} with --precision {values.precision}: found no standard operator for quantised matrices; "
            "supported: fp32, fp16"
        )
    return variants


def synth(words: list[str]) -> int:
    """``vintern-export synth SHAPE OUT``."""
    parser = argparse.ArgumentParser(
        prog="vintern-export synth",
        description="Makes a random checkpoint of a real model's shape, with a small working tokenizer, for benchmarks "
        "and tests. The same arguments give the same bytes.",
    )
    parser.add_argument("shape", metavar="SHAPE", choices=list(SHAPES), help=", ".join(SHAPES))
    parser.add_argument("out", metavar="OUT", type=Path, help="the checkpoint folder to make")
    dtypes = {dtype.manifest_name: dtype for dtype in DTYPES.values()}
    parser.add_argument(
        "--dtype", choices=list(dtypes), default="bf16", help="number format of the weights (default: bf16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default: 0)")
    layouts = {"original": Layout.ORIGINAL, "transformers": Layout.TRANSFORMERS}
    parser.add_argument(
        "--layout", choices=list(layouts), default="original", help="names of keys and tensors (default: original)"
    )
    values = parser.parse_args(words)
    if values.seed < 0:
        raise UsageError(f"--seed: found {values.seed}; supported: 0 and above")
    layout, dtype = layouts[values.layout], dtypes[values.dtype]
    started = time.monotonic()
    write_checkpoint(SHAPES[values.shape], values.out, layout, dtype, values.seed)
    print(f"wrote a random {values.shape} checkpoint to {values.out}: {spent(started, values.out)}", file=sys.stderr)
    return 0


def verify(words: list[str]) -> int:
    """``vintern-export verify OUT``."""
    parser = argparse.ArgumentParser(
        prog="vintern-export verify",
        description="Checks the file hashes of a package and evaluates every graph against NumPy on the same weights. "
        "Exit code 1 when something differs by more than the tolerance of its precision.",
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="the package folder")
    parser.add_argument(
        "--checkpoint", metavar="CKPT", help="take the weights from this checkpoint, which checks the conversion too"
    )
    parser.add_argument(
        "--record", action="store_true", help="store inputs and reference results in the package (parity.safetensors)"
    )
    values = parser.parse_args(words)
    from vintern_export.verify.run import verify_package  # noqa: PLC0415 - ONNX Runtime is slow to import

    checkpoint = resolve_checkpoint(values.checkpoint)[0] if values.checkpoint else None
    return 0 if verify_package(values.out, checkpoint, record=values.record, report=print) else 1
