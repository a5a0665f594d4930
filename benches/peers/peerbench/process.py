"""Starting programs: what they say, how long they take, how much memory they held."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TAIL_LINES = 15


class FailedError(Exception):
    """A program could not be started, or ended with another code than 0."""


@dataclass(frozen=True)
class Outcome:
    """What a program printed on its standard output, and the most memory it had resident."""

    output: str
    peak_memory: int

    def json(self) -> dict[str, Any]:
        """The output as an object."""
        content: dict[str, Any] = json.loads(self.output)
        return content


def say(text: str) -> None:
    """A line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def run(command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Outcome:
    """Runs a program to its end; its standard error goes to the end of the file ``log``.

    Raises:
        FailedError: it failed; the message has the last lines of the log.
    """
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as errors, tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        errors.write(f"\n$ {shlex.join(words)}\n")
        errors.flush()
        try:
            child = subprocess.Popen(words, stdout=output, stderr=errors, env={**os.environ, **(environment or {})})
        except OSError as error:
            raise FailedError(f"{words[0]} cannot be started: {error.strerror}") from error
        # Not child.wait(): the usage of this one child is wanted.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if child.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        raise FailedError("\n".join([f"{words[0]} ended with code {child.returncode}; {log} ends with", *tail]))
    unit = 1 if sys.platform == "darwin" else 1024
    return Outcome(text, usage.ru_maxrss * unit)
