"""What every engine is asked to do; the driver writes it as a file that the adapters read."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Task:
    """The workload, the same for every engine.

    ``language`` is a folder with the language model as a plain Qwen2 checkpoint, ``vision`` one with the vision tower
    and the projector, ``converted`` the engine's own. ``tiles`` counts the thumbnail; ``plain_tokens`` is the number of
    ids that are neither special nor without a token.
    """

    language: str
    vision: str
    converted: str
    image_size: int
    tiles: int
    image_tokens: int
    text_tokens: int
    plain_tokens: int
    new_tokens: int
    num_beams: int
    repetition_penalty: float
    threads: int
    seed: int = 0

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return self.image_tokens + self.text_tokens

    def write(self, file: Path) -> None:
        """As a JSON file."""
        file.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Task:
        """From a JSON file."""
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return cls(**fields)

    def prompt(self, number: int) -> list[int]:
        """Random token ids; another ``number`` gives others, so that no engine can answer from a prefix cache."""
        chance = random.Random(f"{self.seed} {number}")
        return [chance.randrange(self.plain_tokens) for _ in range(self.prompt_tokens)]
