"""The command line of the driver."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from peerbench.engines import OURS, PEERS

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@dataclass(frozen=True)
class Settings:
    """What was asked for; paths are absolute."""

    engines: list[str]
    work: Path
    out: Path
    checkpoint: Path
    package: Path
    shape: str
    program: Path
    exporter: Path
    repeats: int
    warm_up_rounds: int
    new_tokens: int
    tiles: int
    text_tokens: int
    num_beams: int
    repetition_penalty: float
    threads: int
    prepare_only: bool

    @property
    def logs(self) -> Path:
        """Where what the programs say is kept."""
        return self.work / "logs"


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog="run.py", description="Measures vintern beside other engines on one checkpoint, in turn."
    )
    here = ROOT / "benches" / "peers"
    add = found.add_argument
    add("--peers", default=" ".join(PEERS), help=f"engines beside ours, from {', '.join(PEERS)} (default: all)")
    add("--work", type=Path, default=here / ".work", help="virtual environments and conversions (default: %(default)s)")
    add("--out", type=Path, help="where results.json, table.md and plot.svg go (default: results in the work folder)")
    add("--checkpoint", type=Path, help="a checkpoint of bfloat16 (default: a random one, made in the work folder)")
    add("--package", type=Path, help="our int4 package of it (default: made in the work folder)")
    add("--shape", default="vintern-3b", help="shape of the random checkpoint (default: %(default)s)")
    add("--program", type=Path, default=ROOT / "target" / "release" / "vintern", help="default: %(default)s")
    add("--exporter", type=Path, default=ROOT / ".venv" / "bin" / "vintern-export", help="default: %(default)s")
    add("--repeats", type=int, default=3, help="counted rounds (default: %(default)s)")
    add("--warm-up-rounds", type=int, default=1, help="rounds before them that are not (default: %(default)s)")
    add("--new-tokens", type=int, default=64, help="tokens of each answer (default: %(default)s)")
    add("--tiles", type=int, default=6, help="tiles beside the thumbnail (default: %(default)s)")
    add("--text-tokens", type=int, default=127, help="tokens of the prompt beside the image's (default: %(default)s)")
    add("--num-beams", type=int, default=3, help="default: %(default)s")
    add("--threads", type=int, default=os.cpu_count() or 1, help="default: the number of cores, %(default)s")
    add("--no-vintern", action="store_true", help="the peers alone")
    add("--prepare-only", action="store_true", help="install and convert, measure nothing")
    return found


def read_settings(words: list[str] | None = None) -> Settings:
    """The settings of a command line."""
    options = parser()
    found = options.parse_args(words)
    peers = found.peers.replace(",", " ").split()
    if unknown := [name for name in peers if name not in PEERS]:
        options.error(f"no such engine: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if found.new_tokens < 2 or found.repeats < 1 or found.warm_up_rounds < 0:
        options.error("at least 2 new tokens, 1 counted round and no fewer than 0 others are needed")
    work = found.work.resolve()
    return Settings(
        engines=[*([] if found.no_vintern else [OURS]), *peers],
        work=work,
        out=(found.out or work / "results").resolve(),
        checkpoint=(found.checkpoint or work / "checkpoint").resolve(),
        package=(found.package or work / "package").resolve(),
        shape=found.shape,
        program=found.program.resolve(),
        exporter=found.exporter.absolute(),
        repeats=found.repeats,
        warm_up_rounds=found.warm_up_rounds,
        new_tokens=found.new_tokens,
        tiles=found.tiles,
        text_tokens=found.text_tokens,
        num_beams=found.num_beams,
        repetition_penalty=3.5,
        threads=found.threads,
        prepare_only=found.prepare_only,
    )
