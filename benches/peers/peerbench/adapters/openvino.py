"""OpenVINO: the language model in OpenVINO GenAI with int4 weights, the vision part in OpenVINO with int8 weights.

The vision pipeline of OpenVINO GenAI is made from a checkpoint that brings its own Python code, which a random one does
not. The parts are therefore measured one after the other, and a call is their sum.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import openvino_genai

from peerbench.adapters.harness import Generation, Stamps, image_tokens_match, run, seconds

if TYPE_CHECKING:
    from peerbench.task import Task

VISION = "vision.xml"
LANGUAGE = "language"


class Clock(openvino_genai.StreamerBase):
    """Notes when tokens are there."""

    def __init__(self, stamps: Stamps) -> None:
        super().__init__()
        self.stamps = stamps

    def write(self, tokens: int | list[int]) -> openvino_genai.StreamingStatus:
        """Called with each new token."""
        del tokens
        self.stamps.add()
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        """Called at the end."""


class OpenVino:
    """Both parts on the CPU plugin, which chooses what to compute in."""

    precision = "int4"

    def __init__(self, task: Task) -> None:
        self.task = task
        self.folder = Path(task.converted)

    def versions(self) -> dict[str, str]:
        """Package names and versions."""
        return {name: version(name) for name in ("openvino-genai", "openvino", "optimum-intel", "nncf")}

    def load(self) -> None:
        """Both parts."""
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": self.task.threads}
        self.tower: Any = openvino.Core().compile_model(self.folder / VISION, "CPU", options)
        self.language: Any = openvino_genai.LLMPipeline(str(self.folder / LANGUAGE), "CPU", **options)

    def vision(self) -> None:
        """All tiles in one batch."""
        side = self.task.image_size
        tiles = np.random.default_rng(self.task.seed).standard_normal((self.task.tiles, 3, side, side), np.float32)
        image_tokens_match(self.task, self.tower(tiles)[0].shape)

    def greedy(self, prompt: list[int], new_tokens: int) -> Generation:
        """Greedy search."""
        stamps = Stamps()
        self.generate(prompt, new_tokens, streamer=Clock(stamps))
        return stamps.generation()

    def beams(self, prompt: list[int], new_tokens: int) -> tuple[Generation, float]:
        """Beam search without a penalty, which the pipeline refuses beside beams.

        It cannot be followed step by step: a call of one token before it tells what the prefill takes.
        """
        beams = self.task.num_beams
        prefill = seconds(lambda: self.generate(self.task.prompt(3), 1, num_beams=beams))
        total = seconds(lambda: self.generate(prompt, new_tokens, num_beams=beams))
        return Generation(prefill, (total - prefill) / (new_tokens - 1), total), 1.0

    def generate(self, prompt: list[int], new_tokens: int, streamer: Any = None, num_beams: int = 1) -> None:
        """Exactly ``new_tokens`` tokens."""
        settings = openvino_genai.GenerationConfig()
        settings.max_new_tokens = settings.min_new_tokens = new_tokens
        settings.ignore_eos = True
        settings.num_beams = num_beams
        ids = np.array([prompt], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        result = self.language.generate(inputs, settings, streamer)
        found = len(result.tokens[0])
        if found != new_tokens:
            raise ValueError(f"{new_tokens} new tokens were asked for, {found} came")


def prepare(task: Task) -> None:
    """Converts both parts, each with the tool that users have for it."""
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", task.language]
    # Groups are of 128 weights as always; small models, whose rows are shorter, are taken for trying this out.
    command += ["--task", "text-generation-with-past", "--weight-format", "int4", "--group-size-fallback", "adjust"]
    subprocess.run([*command, str(Path(task.converted) / LANGUAGE)], check=True)
    prepare_vision(task)


def prepare_vision(task: Task) -> None:
    """Traces the PyTorch model of the vision part; its matrices get weights of 8 bits."""
    import nncf
    import torch
    from transformers import InternVLModel

    class Tower(torch.nn.Module):
        """Pixels of tiles to embeddings of image tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.model: Any = InternVLModel.from_pretrained(task.vision, dtype=torch.float32).eval()

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            """``[tiles, 3, S, S]`` to ``[tiles, T, H]``."""
            features: torch.Tensor = self.model.get_image_features(pixel_values).pooler_output
            return features

    tiles = torch.zeros(2, 3, task.image_size, task.image_size)
    with torch.no_grad():
        model = openvino.convert_model(Tower(), example_input=tiles, input=[-1, *tiles.shape[1:]])
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(model, Path(task.converted) / VISION)


if __name__ == "__main__":
    run(OpenVino, prepare)
