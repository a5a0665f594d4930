"""Muon with AdamW for what is no matrix.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a weight matrix by the
nearest orthogonal one, found by a Newton-Schulz iteration. The update is scaled to the size AdamW's would have
(0.2 * sqrt(larger side); Liu et al. 2025, arXiv:2502.16982), so that one learning rate serves both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """The matrix with its singular values moved near 1. Computed in bfloat16, which the method tolerates."""
    a, b, c = COEFFICIENTS
    wide = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if wide else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if wide else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon over weight matrices.

    Args:
        parameters: matrices only.
        lr: learning rate, of AdamW's size.
        weight_decay: decoupled.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state: dict[str, Any] = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum: Tensor = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                update = orthogonalised(parameter.grad.lerp(momentum, MOMENTUM))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * 0.2 * max(parameter.shape) ** 0.5)


def optimizers(model: nn.Module, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, heads, norms and biases."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = ".layers." in name or name.startswith("mlp1")
        (matrices if inside and parameter.ndim == 2 else others).append(parameter)
    adam = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(matrices, lr, weight_decay), adam]
