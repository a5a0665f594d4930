"""Runs the vintern program."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vintern_train.tiling import MAX_TILES

ROOT = Path(__file__).resolve().parents[3]
"""The repository."""
PROGRAM = ROOT / "target/release/vintern"
MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class Program:
    """The program with a package.

    Attributes:
        path: of the program.
        package: the model package.
        options: further options of ``vintern chat``.
    """

    path: Path
    package: Path
    options: tuple[str, ...] = ()

    def answer(self, image: Path, question: str, beams: int) -> dict[str, Any]:
        """The JSON answer to a question about a picture, without penalties.

        Raises:
            SystemExit: the program failed; its message is shown.
        """
        settings = ["--num-beams", str(beams), "--repetition-penalty", "1", "--max-new-tokens", str(MAX_NEW_TOKENS)]
        settings += ["--max-tiles", str(MAX_TILES), "--json", *self.options]
        command = [str(self.path), "chat", "--model", str(self.package), "--image", str(image), *settings]
        done = subprocess.run([*command, "--", question], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"vintern chat ended with exit code {done.returncode} on {image}\n{done.stderr}")
        content: dict[str, Any] = json.loads(done.stdout)
        return content
