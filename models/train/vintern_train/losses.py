"""What is minimised: characters of patches, tokens of answers, and where the guided head looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from vintern_train.samples import CLASSES, IGNORE

if TYPE_CHECKING:
    from torch import Tensor

    from vintern_train.batches import Batch
    from vintern_train.model import Vintern


@dataclass
class Losses:
    """A loss to minimise and figures to report."""

    total: Tensor
    figures: dict[str, float]


def patch_loss(model: Vintern, features: Tensor, patches: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of the slots of all patches, and the share of characters that are right.

    Empty slots count a quarter: most slots are empty.
    """
    logits = model.patch_logits(features).flatten(0, 2)
    classes = patches.flatten()
    weight = torch.ones(CLASSES)
    weight[0] = 0.25
    loss = functional.cross_entropy(logits, classes, weight, ignore_index=IGNORE)
    characters = classes > 0
    right = (logits.detach().argmax(-1) == classes)[characters].float().mean()
    return loss, right.item()


def tower_losses(model: Vintern, batch: Batch) -> Losses:
    """The tower as a reader of patches."""
    loss, right = patch_loss(model, model.vision_model(batch.pixel_values()), batch.patches)
    return Losses(loss, {"patch_loss": loss.item(), "patch_accuracy": right})


def answer_losses(
    model: Vintern, batch: Batch, *, train_tower: bool, patch_weight: float, guide_weight: float
) -> Losses:
    """The whole model as a reader of pictures.

    Args:
        model: the model.
        batch: conversations.
        train_tower: whether gradients flow into the tower.
        patch_weight: weight of the patch loss.
        guide_weight: weight of the guided head's loss.
    """
    with torch.set_grad_enabled(train_tower):
        features = model.vision_model(batch.pixel_values())
    hidden, q, k = model.language_model(model.merged(batch.ids, model.project(features)))
    asked = batch.labels != IGNORE
    logits = model.language_model.lm_head(hidden[asked])
    labels = batch.labels[asked]
    token_loss = functional.cross_entropy(logits, labels)
    figures = {"token_loss": token_loss.item(), "token_accuracy": (logits.argmax(-1) == labels).float().mean().item()}
    total = token_loss
    if guide_weight:
        guide, looking = guide_loss(q, k, batch.places)
        total = total + guide_weight * guide
        figures |= {"guide_loss": guide.item(), "looking": looking}
    if patch_weight and train_tower:
        patch, right = patch_loss(model, features, batch.patches)
        total = total + patch_weight * patch
        figures |= {"patch_loss": patch.item(), "patch_accuracy": right}
    return Losses(total, figures)


def guide_loss(q: Tensor, k: Tensor, places: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of the guided head's attention with the image token of the next character.

    Args:
        q: queries [rows, positions, head size].
        k: keys of the same shape.
        places: see :class:`vintern_train.samples.Sample`.

    Returns:
        The loss, and the share of positions at which the head looks most where it should.
    """
    rows, positions = (places >= 0).nonzero(as_tuple=True)
    end = int(places.max()) + 1
    scores = torch.einsum("rpd,rkd->rpk", q, k[:, :end])[rows, positions] * q.shape[-1] ** -0.5
    targets = places[rows, positions]
    return functional.cross_entropy(scores, targets), (scores.argmax(-1) == targets).float().mean().item()
