"""Transformers on PyTorch, bfloat16: what the model's own code does, with the classes that transformers has for it.

As in the reference's ``chat()``, the images are encoded once and the language model generates from embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import InternVLModel, LogitsProcessor, Qwen2ForCausalLM

from peerbench.adapters.harness import Generation, Stamps, image_tokens_match, run

if TYPE_CHECKING:
    from peerbench.task import Task


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
        torch.set_num_threads(task.threads)
        torch.manual_seed(task.seed)

    def versions(self) -> dict[str, str]:
        """Package names and versions."""
        return {"transformers": transformers.__version__, "torch": torch.__version__}

    def load(self) -> None:
        """Both models, in bfloat16."""
        self.language: Any = Qwen2ForCausalLM.from_pretrained(self.task.language, dtype=torch.bfloat16).eval()
        self.tower: Any = InternVLModel.from_pretrained(self.task.vision, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def vision(self) -> None:
        """All tiles in one batch, as the reference does."""
        side = self.task.image_size
        tiles = torch.randn(self.task.tiles, 3, side, side, dtype=torch.bfloat16)
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
