"""Noisy clips to train an expert on: true ones, and those of the model's own trajectories.

A sampler's later steps start from what earlier predictions left, never from a true clip with noise on it. An expert
that has only met true clips takes its own blur for the truth and keeps it. So a part of the clips stay for several
training steps: each moves on by the velocity just predicted, as in the sampler, while the target stays the true clip
(error recycling, as in Stable Video Infinity, arXiv 2510.09212, and Self Forcing, arXiv 2506.08009). It costs nothing:
the prediction is the one that is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

SHIFT = 5.0
OWN = 0.7  # of the clips, those that follow their own trajectory
LAST = 1 / 30  # where the last of 30 steps begins


def sigma_of(place: torch.Tensor) -> torch.Tensor:
    """Noise levels of places in the schedule, 1 (noise) to 0 (clean), as (B, 1, 1, 1, 1)."""
    return (SHIFT * place / (1 + (SHIFT - 1) * place)).view(-1, 1, 1, 1, 1)


def place_of(sigma: float) -> float:
    """Where in the schedule, 1 to 0, a noise level stands."""
    return sigma / (SHIFT - (SHIFT - 1) * sigma)


@dataclass
class Clips:
    """Clips to train on, side by side: true latents (B, 16, T, h, w), condition (B, 20, T, h, w), prompts, whether the
    guidance is on them, and how much each latent's error counts, (B, T)."""

    clean: torch.Tensor
    condition: torch.Tensor
    prompts: list[str]
    guided: list[bool]
    counts: torch.Tensor


class Trajectories:
    """A batch of clips at their places in the schedule, each drawn anew when it has arrived."""

    def __init__(self, draw: Callable[[int], Clips], count: int, begin: float, places: Callable[[int], torch.Tensor],
                 own: float = OWN) -> None:
        """`draw(n)` gives n new clips; an own trajectory begins at the place `begin`, other clips are seen once at
        one of `places(n)`."""
        self.draw, self.begin, self.places, self.own = draw, begin, places, own
        self.clips = draw(count)
        self.place, self.stays = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
        self.noisy = torch.empty_like(self.clips.clean)
        self._put(torch.arange(count), draw(count))

    def _put(self, rows: torch.Tensor, new: Clips) -> None:
        """Put new clips, with noise on them, in the places `rows` of the batch."""
        count = len(rows)
        for i, row in enumerate(rows.tolist()):
            self.clips.prompts[row], self.clips.guided[row] = new.prompts[i], new.guided[i]
        self.clips.clean[rows], self.clips.condition[rows] = new.clean, new.condition
        self.clips.counts[rows] = new.counts
        stays = (torch.rand(count) < self.own) & torch.tensor(new.guided)
        place = torch.where(stays, self.begin * (1 - 0.15 * torch.rand(count)), self.places(count))
        sigma = sigma_of(place)
        self.noisy[rows] = (1 - sigma) * new.clean + sigma * torch.randn_like(new.clean)
        self.place[rows], self.stays[rows] = place, stays

    @property
    def sigma(self) -> torch.Tensor:
        return sigma_of(self.place)

    def target(self) -> torch.Tensor:
        """The velocity that leads from each noisy clip straight to the true one."""
        return (self.noisy - self.clips.clean) / self.sigma

    def weight(self) -> torch.Tensor:
        """(B, 1, 1, 1, 1): 1 for a true clip; less near the end of an own trajectory, where what is left of an error
        would have to go in one step."""
        s = self.sigma
        return torch.where(self.stays.view(-1, 1, 1, 1, 1), s**2 / (s**2 + 0.25 * (1 - s) ** 2), torch.ones(()))

    @torch.no_grad()
    def advance(self, velocity: torch.Tensor) -> None:
        """Take a step of a tenth to a third of the way along `velocity`; clips that have arrived are drawn anew."""
        place = self.place - self.begin * (0.1 + 0.22 * torch.rand(len(self.place)))
        arrived = ~self.stays | (place < LAST)
        self.noisy += torch.where(arrived.view(-1, 1, 1, 1, 1), 0.0, sigma_of(place) - self.sigma) * velocity
        self.place = torch.where(arrived, self.place, place)
        rows = arrived.nonzero().flatten()
        if len(rows):
            self._put(rows, self.draw(len(rows)))
