"""The driver: install, convert, measure in turn, write down."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peerbench import ours
from peerbench.engines import OURS, PEERS, environments_for
from peerbench.environments import Environments, adapter_environment
from peerbench.plot import plot
from peerbench.preparation import convert, make_checkpoint, make_parts, task_of
from peerbench.process import FailedError, run, say
from peerbench.settings import Settings, read_settings
from peerbench.summary import summary
from peerbench.table import table

if TYPE_CHECKING:
    from peerbench.task import Task

CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")


class Run:
    """One run of the driver. An engine that fails is left out from then on, and the reason is kept."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.environments = Environments(settings.work / "venvs", settings.logs)
        self.failures: dict[str, str] = {}
        self.rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in settings.engines}

    def prepare(self) -> Task:
        """Everything that is not measured.

        Raises:
            FailedError: there is no checkpoint or no package of it.
        """
        (self.settings.work / "tasks").mkdir(parents=True, exist_ok=True)
        make_checkpoint(self.settings)
        make_parts(self.settings)
        task = task_of(self.settings)
        for engine in environments_for(self.settings.engines):
            try:
                self.environments.install(engine)
            except FailedError as error:
                self.fail(engine.name, error)
        for name in self.settings.engines:
            if name in PEERS and name not in self.failures:
                try:
                    folder = convert(self.settings, self.environments, task, name)
                except FailedError as error:
                    self.fail(name, error)
                else:
                    replace(task, converted=str(folder)).write(self.settings.work / "tasks" / f"{name}.json")
        return task

    def fail(self, name: str, error: FailedError) -> None:
        """Leaves an engine out."""
        say(f"{name}: {error}")
        self.failures[name] = str(error)

    def measure(self, task: Task) -> dict[str, Any]:
        """All rounds, each of all engines in turn; the first ones warm up and are not counted.

        What was found is written after each round, so that a run that is ended early keeps it.
        """
        results: dict[str, Any] = {}
        for number in range(1 - self.settings.warm_up_rounds, self.settings.repeats + 1):
            counted = number > 0
            label = f"round {number} of {self.settings.repeats}" if counted else "warm-up"
            for name in self.settings.engines:
                if name in self.failures:
                    continue
                say(f"{label}: {name}")
                try:
                    found = self.one(name)
                except FailedError as error:
                    self.fail(name, error)
                    continue
                if counted:
                    self.rounds[name].append(found)
            if counted:
                results = self.results(task)
                self.write(results)
        return results

    def write(self, results: dict[str, Any]) -> None:
        """The results as JSON, as a table and as a plot."""
        out = self.settings.out
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, ensure_ascii=False, indent=2)
        (out / "results.json").write_text(text + "\n", encoding="utf-8")
        (out / "table.md").write_text(table(results), encoding="utf-8")
        (out / "plot.svg").write_text(plot(results), encoding="utf-8")

    def one(self, name: str) -> dict[str, Any]:
        """One engine in a process of its own."""
        log = self.settings.logs / f"{name}.log"
        if name == OURS:
            outcome = run(ours.command(self.settings), log)
            found = ours.figures(outcome.json(), self.settings.repetition_penalty)
        else:
            task = self.settings.work / "tasks" / f"{name}.json"
            command = self.environments.adapter(name, "measure", task)
            outcome = run(command, log, adapter_environment(self.settings.threads))
            found = outcome.json()
        # Ours begins to count anew for each workload, and tells the peak of each.
        return found | {"peak_memory": max(outcome.peak_memory, found.get("peak_memory", 0))}

    def results(self, task: Task) -> dict[str, Any]:
        """All that was found."""
        engines = {
            name: summary(rounds) for name, rounds in self.rounds.items() if rounds and name not in self.failures
        }
        sizes = asdict(task) | {"prompt_tokens": task.prompt_tokens}
        for path in ("language", "vision", "converted"):
            del sizes[path]
        return {
            "machine": machine(),
            "task": sizes,
            "repeats": max(map(len, self.rounds.values()), default=0),
            "engines": engines,
            "rounds": self.rounds,
            "failures": self.failures,
        }


def machine() -> str:
    """The processor and the memory, in words."""
    name = platform.processor() or platform.machine()
    if CPU_INFO.exists():
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    found = f"{name}, {os.cpu_count()} cores"
    if MEMORY_INFO.exists():
        kilobytes = int(MEMORY_INFO.read_text(encoding="utf-8").split()[1])
        found += f", {kilobytes / (1 << 20):.0f} GiB of memory"
    return found


def check_lengths(results: dict[str, Any]) -> None:
    """Says so if our prompt is not as long as the peers'."""
    found = results["engines"].get(OURS, {}).get("prompt_tokens")
    wanted = results["task"]["prompt_tokens"]
    if found not in {None, wanted}:
        text_tokens = found - results["task"]["image_tokens"]
        say(f"vintern's prompt has {found} tokens, the peers' {wanted}: --text-tokens {text_tokens} makes them equal")


def main(words: list[str] | None = None) -> int:
    """Returns the exit code: 0 if all engines were measured, 1 if one failed."""
    settings = read_settings(words)
    program = Run(settings)
    try:
        task = program.prepare()
    except FailedError as error:
        say(str(error))
        return 1
    if not settings.prepare_only:
        results = program.measure(task)
        check_lengths(results)
        print(table(results))
        say(f"results.json, table.md and plot.svg are in {settings.out}")
    return 1 if program.failures else 0
