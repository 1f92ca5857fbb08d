"""Muon: momentum whose update is orthogonalised, for weight matrices; AdamW keeps the rest.

Newton-Schulz coefficients: Keller Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024).
A tiny Wan VAE stalls at 13 dB under Adam alone.
"""

from __future__ import annotations

import torch


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values land in 0.7..1.2."""
    x = (matrix / (matrix.norm() + 1e-7)).bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        s = x @ x.T
        x = 3.4445 * x + (-4.7750 * s + 2.0315 * (s @ s)) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised over (out, everything else)."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.mul_(group["momentum"]).add_(p.grad)
                update = orthogonalise((p.grad + group["momentum"] * m).flatten(1))
                widen = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                p.add_(update.view_as(p), alpha=-group["lr"] * widen)


def set_lr(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Scale every group's learning rate to `factor` times what it began with."""
    for group in (g for o in optimizers for g in o.param_groups):
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


def warm_then_linear_decay(step: int, steps: int, flat: float = 0.4, warmup: int = 50, floor: float = 0.02) -> float:
    """Learning rate factor: a short warm-up, `flat` of the run at 1, then linearly down to `floor`."""
    return min(1.0, (step + 1) / warmup) * max(floor, min(1.0, (1 - step / steps) / (1 - flat)))
