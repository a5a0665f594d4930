"""A virtual environment for each peer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from peerbench.process import run, say

if TYPE_CHECKING:
    from peerbench.engines import Engine

HERE = Path(__file__).resolve().parent.parent
READY = ".ready"


class Environments:
    """The virtual environments below a folder."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder = folder
        self.logs = logs

    def python(self, name: str) -> Path:
        """The interpreter of an engine."""
        return self.folder / name / "bin" / "python"

    def packages(self, name: str) -> Path:
        """Where an engine's packages are."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / name / "lib" / version / "site-packages"

    def install(self, engine: Engine) -> None:
        """Makes the environment, unless it is there with the same requirements."""
        requirements = HERE / "requirements" / f"{engine.name}.txt"
        wanted = requirements.read_text(encoding="utf-8")
        ready = self.folder / engine.name / READY
        if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
            return
        say(f"{engine.name}: installing")
        log = self.logs / f"{engine.name}.log"
        run([sys.executable, "-m", "venv", self.folder / engine.name], log)
        if engine.borrows:
            lent = f"{self.packages(engine.borrows).resolve()}\n"
            (self.packages(engine.name) / "borrowed.pth").write_text(lent, encoding="utf-8")
        pip: list[str | Path] = [self.python(engine.name), "-m", "pip", "install", "--disable-pip-version-check"]
        # What is compiled is compiled for this processor, by all its cores.
        build = {"CMAKE_ARGS": "-DGGML_NATIVE=ON", "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
        run([*pip, "--requirement", requirements], log, build)
        ready.write_text(wanted, encoding="utf-8")

    def adapter(self, name: str, verb: str, task: Path) -> list[str | Path]:
        """The command of an engine's adapter."""
        return [self.python(name), "-m", f"peerbench.adapters.{name}", verb, task]


def adapter_environment(threads: int) -> dict[str, str]:
    """Variables for adapters: this package is found, threads are as many as asked for, no network is asked."""
    return {
        "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
