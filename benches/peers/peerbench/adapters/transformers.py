"""Transformers on PyTorch: what the model's own code does, with the classes that transformers has for it.

As in the reference's ``chat()``, the images are encoded once and the language model generates from embeddings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import InternVLModel, LogitsProcessor, Qwen2ForCausalLM

from peerbench.adapters.harness import Generation, Stamps, image_tokens_match, run

if TYPE_CHECKING:
    from peerbench.task import Task


CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}


def fastest() -> torch.dtype:
    """bfloat16, as the model card asks for it, or float32 on a processor that has no instructions for it.

    On one with AVX2 alone PyTorch multiplied matrices of bfloat16 six times slower than those of float32.
    """
    flags = set(CPU_INFO.read_text(encoding="utf-8").split()) if CPU_INFO.exists() else BFLOAT16_INSTRUCTIONS
    return torch.bfloat16 if flags & BFLOAT16_INSTRUCTIONS else torch.float32


class Clock(LogitsProcessor):
    """Notes when logits are there; they stay as they are."""

    def __init__(self, stamps: Stamps) -> None:
        self.stamps = stamps

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Called at each step, before the search."""
        del input_ids
        self.stamps.add()
        return scores


class Transformers:
    """The two parts of the checkpoint in one process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.dtype = fastest()
        self.precision = str(self.dtype).removeprefix("torch.")
        torch.set_num_threads(task.threads)
        torch.manual_seed(task.seed)

    def versions(self) -> dict[str, str]:
        """Package names and versions."""
        return {"transformers": transformers.__version__, "torch": torch.__version__}

    def load(self) -> None:
        """Both models."""
        self.language: Any = Qwen2ForCausalLM.from_pretrained(self.task.language, dtype=self.dtype).eval()
        self.tower: Any = InternVLModel.from_pretrained(self.task.vision, dtype=self.dtype).eval()

    @torch.inference_mode()
    def vision(self) -> None:
        """All tiles in one batch, as the reference does."""
        side = self.task.image_size
        tiles = torch.randn(self.task.tiles, 3, side, side, dtype=self.dtype)
        image_tokens_match(self.task, self.tower.get_image_features(tiles).pooler_output.shape)

    def greedy(self, prompt: list[int], new_tokens: int) -> Generation:
        """Greedy search."""
        return self.generate(prompt, new_tokens)

    def beams(self, prompt: list[int], new_tokens: int) -> tuple[Generation, float]:
        """Beam search with the penalty."""
        penalty = self.task.repetition_penalty
        found = self.generate(prompt, new_tokens, num_beams=self.task.num_beams, repetition_penalty=penalty)
        return found, penalty

    @torch.inference_mode()
    def generate(self, prompt: list[int], new_tokens: int, **options: float) -> Generation:
        """Generates from embeddings, as ``chat()`` does."""
        embeddings = self.language.get_input_embeddings()(torch.tensor([prompt]))
        stamps = Stamps()
        self.language.generate(
            inputs_embeds=embeddings,
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            logits_processor=[Clock(stamps)],
            **options,
        )
        return stamps.generation()


def prepare(task: Task) -> None:
    """Nothing to convert."""
    del task


if __name__ == "__main__":
    run(Transformers, prepare)
