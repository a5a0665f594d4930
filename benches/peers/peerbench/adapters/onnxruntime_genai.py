"""ONNX Runtime GenAI, int4: the language model alone, which is what its model builder makes of a Qwen2 checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime_genai

from peerbench.adapters.harness import Generation, NotOfferedError, Stamps, run

if TYPE_CHECKING:
    from peerbench.task import Task


class OnnxRuntimeGenAi:
    """The language model on the CPU."""

    precision = "int4"

    def __init__(self, task: Task) -> None:
        self.task = task

    def versions(self) -> dict[str, str]:
        """Package names and versions."""
        return {name: version(name) for name in ("onnxruntime-genai", "onnxruntime")}

    def load(self) -> None:
        """The language model."""
        config = onnxruntime_genai.Config(self.task.converted)
        threads = {"intra_op_num_threads": self.task.threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
        self.model: Any = onnxruntime_genai.Model(config)

    def vision(self) -> None:
        """There is none."""
        raise NotOfferedError("the model builder makes the language model alone")

    def greedy(self, prompt: list[int], new_tokens: int) -> Generation:
        """Greedy search."""
        return self.generate(prompt, new_tokens)

    def beams(self, prompt: list[int], new_tokens: int) -> tuple[Generation, float]:
        """Beam search with the penalty."""
        penalty = self.task.repetition_penalty
        options = {"num_beams": self.task.num_beams, "repetition_penalty": penalty, "early_stopping": False}
        return self.generate(prompt, new_tokens, **options), penalty

    def generate(self, prompt: list[int], new_tokens: int, **options: float) -> Generation:
        """Token by token, as the package's examples do."""
        length = len(prompt) + new_tokens
        params = onnxruntime_genai.GeneratorParams(self.model)
        params.set_search_options(do_sample=False, min_length=length, max_length=length, **options)
        stamps = Stamps()
        generator = onnxruntime_genai.Generator(self.model, params)
        generator.append_tokens(np.array([prompt], dtype=np.int32))
        for _ in range(new_tokens):
            generator.generate_next_token()
            stamps.add()
        return stamps.generation()


def prepare(task: Task) -> None:
    """The package's own model builder at its own settings for int4 on CPUs, made to hold less."""
    command = [sys.executable, "-m", "peerbench.genai_builder", "-i", task.language, "-o", task.converted]
    command += ["-p", "int4", "-e", "cpu", "-c", f"{task.converted}.cache"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    run(OnnxRuntimeGenAi, prepare)
