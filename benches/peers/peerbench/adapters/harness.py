"""What all adapters do alike: load, warm up, measure, print one JSON object."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from peerbench.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP_TOKENS = 4


class NotOfferedError(Exception):
    """The engine cannot do this; the message says why."""


@dataclass(frozen=True)
class Generation:
    """Seconds of one call of the language model.

    ``prefill`` ends where the first new token is known, ``step`` is the median of the others.
    """

    prefill: float
    step: float
    total: float


class Adapter(Protocol):
    """An engine. ``precision`` is that of the language model's weights, in the engine's own words."""

    precision: str

    def __init__(self, task: Task) -> None: ...

    def versions(self) -> dict[str, str]:
        """Package names and versions."""

    def load(self) -> None:
        """Loads all it has of the model."""

    def vision(self) -> None:
        """Encodes and projects ``tiles`` tiles.

        Raises:
            NotOfferedError: where the engine has no vision here.
        """

    def greedy(self, prompt: list[int], new_tokens: int) -> Generation:
        """Exactly ``new_tokens`` tokens after the prompt."""

    def beams(self, prompt: list[int], new_tokens: int) -> tuple[Generation, float]:
        """The same with beam search; also the repetition penalty that was in force.

        Raises:
            NotOfferedError: where the engine has no beam search.
        """


class Stamps:
    """The moments at which new tokens appear."""

    def __init__(self) -> None:
        self.started = perf_counter()
        self.moments: list[float] = []

    def add(self) -> None:
        """A token is there."""
        self.moments.append(perf_counter())

    def generation(self) -> Generation:
        """Once all tokens are there."""
        steps = [after - before for before, after in zip(self.moments, self.moments[1:], strict=False)]
        return Generation(self.moments[0] - self.started, median(steps), perf_counter() - self.started)


def image_tokens_match(task: Task, shape: tuple[int, ...]) -> None:
    """Checks features of shape ``[tiles, T, H]``."""
    if shape[0] * shape[1] != task.image_tokens:
        raise ValueError(f"{task.image_tokens} image tokens were expected, not {tuple(shape)}")


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = perf_counter()
    work()
    return perf_counter() - started


def measure(adapter: Adapter, task: Task) -> dict[str, Any]:
    """The figures of one round: times in seconds."""
    found: dict[str, Any] = {"precision": adapter.precision, "versions": adapter.versions()}
    found |= {"load": seconds(adapter.load), "not_offered": {}}
    try:
        adapter.vision()
        found["vision"] = seconds(adapter.vision)
    except NotOfferedError as reason:
        found["not_offered"]["vision"] = str(reason)
    adapter.greedy(task.prompt(0), WARM_UP_TOKENS)
    greedy = adapter.greedy(task.prompt(1), task.new_tokens)
    found |= {"prompt_tokens": task.prompt_tokens, "prefill": greedy.prefill, "step": greedy.step}
    found["greedy_call"] = greedy.total + found.get("vision", 0.0)
    try:
        beams, penalty = adapter.beams(task.prompt(2), task.new_tokens)
        found |= {"beam_prefill": beams.prefill, "beam_step": beams.step, "beam_penalty": penalty}
        found["beam_call"] = beams.total + found.get("vision", 0.0)
    except NotOfferedError as reason:
        found["not_offered"]["beams"] = str(reason)
    return found


def run(adapter: type[Adapter], prepare: Callable[[Task], None]) -> None:
    """The command line of an adapter: ``prepare TASK`` or ``measure TASK``."""
    verb, file = sys.argv[1:]
    task = Task.read(Path(file))
    # Libraries print what they like: it goes to the standard error, and the result alone to the standard output.
    result = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if verb == "prepare":
        prepare(task)
    else:
        json.dump(measure(adapter(task), task), result)
    result.close()
