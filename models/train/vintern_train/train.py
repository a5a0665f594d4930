"""The training run: the stages of :data:`STAGES` in order, stopped and continued at will.

``python -m vintern_train.train RUN`` trains in the folder RUN until all stages are done. Stop it at any time; the same
command goes on from the last state on disk.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vintern_train.batches import BatchStream, TileStream, loader
from vintern_train.checkpoint import TRAINING_ONLY, read_checkpoint
from vintern_train.losses import answer_losses, tower_losses
from vintern_train.model import Sizes, Vintern
from vintern_train.muon import optimizers
from vintern_train.validation import validate

if TYPE_CHECKING:
    from vintern_train.batches import Batch
    from vintern_train.losses import Losses

SEED = 20261124
SAVE_EVERY = 200
LOG_EVERY = 20
VALIDATE_EVERY = 400
WEIGHT_DECAY = 0.02


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        name: in the log.
        steps: number of updates.
        batch: tiles (of the tower's stage) or samples of an update.
        lr: learning rate after warm-up.
        final_lr: learning rate at the end; the last ``decay`` of the steps go there in a straight line.
        receipts: share of receipts.
        max_lines: most lines of a page of general text.
        max_length: most tokens of a conversation, the image's included.
        tower: whether the tower learns.
        answers: whether the projector and the decoder do.
    """

    name: str
    steps: int
    batch: int
    lr: float
    final_lr: float
    decay: float = 0.3
    warmup: int = 50
    receipts: float = 0.4
    max_lines: int = 8
    max_length: int = 640
    tower: bool = True
    answers: bool = True
    guide_weight: float = 0.3
    patch_weight: float = 0.3

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.final_lr + (self.lr - self.final_lr) * min(1.0, left)


STAGES = (
    Stage("tower", steps=2760, batch=64, lr=2e-3, final_lr=3e-4, decay=0.13, answers=False, receipts=0.5),
    Stage(
        "decoder",
        steps=1400,
        batch=16,
        lr=2e-3,
        final_lr=2e-3,
        receipts=0.0,
        max_lines=2,
        max_length=224,
        tower=False,
        guide_weight=1.0,
    ),
    Stage("whole", steps=3300, batch=16, lr=1.5e-3, final_lr=2e-5, decay=0.6, receipts=0.45),
    Stage("longer", steps=2600, batch=16, lr=1e-3, final_lr=2e-5, decay=0.8, receipts=0.45),
    Stage("longest", steps=2300, batch=16, lr=8e-4, final_lr=1e-5, decay=0.85, receipts=0.45),
)


class Run:
    """State of a training run and the folder it lives in."""

    def __init__(self, folder: Path, workers: int, dtype: torch.dtype, start: list[Path] | None = None) -> None:
        self.folder, self.workers, self.dtype = folder, workers, dtype
        torch.manual_seed(SEED)
        self.model = Vintern(Sizes())
        self.stage, self.step, self.seconds = 0, 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.saved = folder / "state.pt"
        self.optimizers = optimizers(self.model, STAGES[0].lr, WEIGHT_DECAY)
        if self.saved.is_file():
            self.load()
        elif start is not None:
            self.load_weights(*start)

    def load(self) -> None:
        """Takes up the state on disk."""
        state = torch.load(self.saved, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.stage, self.step, self.seconds = state["stage"], state["step"], state["seconds"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def load_weights(self, checkpoint: Path, head: Path) -> None:
        """Goes on from a checkpoint folder and the head beside it: optimiser states start anew."""
        self.model.load_state_dict(read_checkpoint(checkpoint).state_dict())
        with safe_open(head, "pt") as opened:
            place = opened.metadata()
            tensors = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118
        self.model.load_state_dict(tensors, strict=False)
        self.stage, self.step, self.seconds = int(place["stage"]), int(place["step"]), float(place["seconds"])

    def export_head(self, file: Path) -> None:
        """Writes what a checkpoint folder leaves out, in 16 bits: the patch head, and the place in the run."""
        place = {"stage": str(self.stage), "step": str(self.step), "seconds": str(self.seconds)}
        tensors = self.model.state_dict().items()
        save_file({n: t.half() for n, t in tensors if n.startswith(TRAINING_ONLY)}, file, metadata=place)

    def save(self) -> None:
        """Writes the state, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "stage": self.stage,
            "step": self.step,
            "seconds": self.seconds,
        }
        temporary = self.saved.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.saved)

    def train(self) -> None:
        """Trains to the end."""
        self.model.compile_layers()
        while self.stage < len(STAGES):
            self.train_stage(STAGES[self.stage])
            self.stage, self.step = self.stage + 1, 0
            self.save()

    def train_stage(self, stage: Stage) -> None:
        """Trains to the end of a stage."""
        stream_type = BatchStream if stage.answers else TileStream
        seed = SEED + 1000 * self.stage + self.step
        batches = loader(
            stream_type(seed, stage.batch, stage.receipts, stage.max_lines, stage.max_length), self.workers
        )
        self.model.vision_model.requires_grad_(stage.tower)
        self.model.patch_head.requires_grad_(stage.tower)
        started, figures = time.monotonic(), []
        while self.step < stage.steps:
            figures.append(self.update(stage, next(batches)))
            self.step += 1
            if self.step % LOG_EVERY == 0:
                now = time.monotonic()
                self.seconds += now - started
                started = now
                self.log(stage, figures)
                figures = []
            if self.step % SAVE_EVERY == 0:
                self.save()
            if stage.answers and self.step % VALIDATE_EVERY == 0:
                self.write({"stage": stage.name, "step": self.step, **self.validate()})

    def update(self, stage: Stage, batch: Batch) -> dict[str, float]:
        """One update."""
        rate = stage.rate(self.step)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            losses = self.losses(stage, batch)
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            if math.isfinite(float(norm)):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return losses.figures | {"gradient_norm": float(norm)}

    def losses(self, stage: Stage, batch: Batch) -> Losses:
        """The losses of a batch in a stage."""
        if not stage.answers:
            return tower_losses(self.model, batch)
        return answer_losses(
            self.model,
            batch,
            train_tower=stage.tower,
            patch_weight=stage.patch_weight,
            guide_weight=stage.guide_weight,
        )

    def validate(self) -> dict[str, float]:
        """Scores of the weights as they are, in float32 and not compiled: answers are of every length."""
        model = Vintern(self.model.sizes)
        model.load_state_dict(self.model.state_dict())
        return validate(model)

    def log(self, stage: Stage, figures: list[dict[str, float]]) -> None:
        """Appends the means of the last steps to log.jsonl."""
        means = {key: round(sum(f[key] for f in figures) / len(figures), 5) for key in figures[0]}
        self.write({"stage": stage.name, "step": self.step, "seconds": round(self.seconds), **means})

    def write(self, line: dict[str, object]) -> None:
        """Appends a line to log.jsonl."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of the run: state.pt and log.jsonl")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pictures (default: 1)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of activations; bfloat16 is faster on a CPU that has its instructions (default: float32)",
    )
    parser.add_argument(
        "--from",
        dest="start",
        nargs=2,
        type=Path,
        metavar=("CHECKPOINT", "HEAD"),
        help="go on from these where RUN is new",
    )
    parser.add_argument("--export-head", type=Path, metavar="FILE", help="write the HEAD of RUN for --from, and stop")
    arguments = parser.parse_args()
    run = Run(arguments.run, arguments.workers, getattr(torch, arguments.dtype), arguments.start)
    if arguments.export_head:
        run.export_head(arguments.export_head)
    else:
        run.train()


if __name__ == "__main__":
    main()
