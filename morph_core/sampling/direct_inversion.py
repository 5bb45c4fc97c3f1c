"""Direct Inversion (Ju et al., ICLR 2024): rows of a batch that end as the images that were inverted."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .ddim import x0_leading_to
from .trajectory import Trajectory


@dataclass(frozen=True)
class DirectInversion:
    """A `ddim.Correction` after which each of these rows is on its trajectory again (algorithm 1).

    pinned_rows: row -> its trajectory of one image. free: (h, w), True for the cells that may leave it; None: none.
    """

    pinned_rows: Mapping[int, Trajectory]
    free: Tensor | None = None

    def __call__(self, x0: Tensor, x: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
        """Raises `InvalidInput` when a trajectory takes no such step."""
        corrected = x0.clone()
        for row, trajectory in self.pinned_rows.items():
            target = trajectory.latents[trajectory.step_between(sigma, next_sigma) + 1, 0].to(x)
            pinned = x0_leading_to(target, x[row], sigma, next_sigma)
            corrected[row] = pinned if self.free is None else torch.where(self.free.to(x.device), x0[row], pinned)
        return corrected
