"""The way from an image to its noise, kept: what exact inversions hold a sampling run to."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput

SAME = 1e-4  # relative: two sigmas this near are one


@dataclass(frozen=True)
class Trajectory:
    """latents: (S + 1, B, C, H, W) in sigma space, from the noise to the image. sigmas: (S + 1,), falling.

    residuals: (S,), how far the last fixed-point iteration of each step still moved the latent, as the root mean square
    of the variance-preserving latent (whose own is about 1); empty where there was no iteration.
    """

    latents: Tensor
    sigmas: Tensor
    residuals: Tensor

    @property
    def noise(self) -> Tensor:
        """(B, C, H, W) at sigmas[0], what sampling starts from."""
        return self.latents[0]

    def to(self, device: torch.device | str) -> "Trajectory":
        """A copy on this device; made outside inference mode, of tensors that gradients may go through."""
        return Trajectory(*(part.clone().to(device) for part in (self.latents, self.sigmas, self.residuals)))

    def step_at(self, sigma: Tensor) -> int:
        """The step that starts at this sigma. Raises `InvalidInput` when none does."""
        distances = (self.sigmas[:-1].to(sigma) - sigma).abs()
        step = int(distances.argmin())
        if distances[step] > SAME * sigma:
            raise InvalidInput(
                f"the trajectory has no step at sigma {float(sigma):.4f}, its own are {len(self.sigmas) - 1} from "
                f"{float(self.sigmas[0]):.4f}; sample with the scheduler, steps and start_at_step of the inversion"
            )
        return step

    def step_between(self, sigma: Tensor, next_sigma: Tensor) -> int:
        """The step from one sigma to the other. Raises `InvalidInput` when the trajectory takes no such step."""
        step = self.step_at(sigma)
        own = self.sigmas[step + 1].to(sigma)
        if (own - next_sigma).abs() > SAME * sigma:
            raise InvalidInput(
                f"the trajectory's step from sigma {float(sigma):.4f} leads to {float(own):.4f}, the sampler's to "
                f"{float(next_sigma):.4f}; sample with the scheduler, steps and start_at_step of the inversion"
            )
        return step


def put_back(x: Tensor, pins: dict[int, Trajectory], step: int) -> Tensor:
    """Direct Inversion (Ju et al. 2024, algorithm 1): after a step, these rows are on their trajectories again.

    x: (B, C, H, W) as step `step` has left it. pins: row -> its trajectory of one image. The other rows are untouched.
    """
    x = x.clone()
    for row, trajectory in pins.items():
        x[row] = trajectory.latents[step + 1, 0].to(x)
    return x


def x0_leading_to(target: Tensor, x: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """The estimate of z0 with which a DDIM step from x at sigma ends in `target` at next_sigma; shapes as they are."""
    share = next_sigma / sigma
    return (target - share * x) / (1 - share)
