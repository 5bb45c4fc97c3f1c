"""The latents from an image to its noise: what exact inversions hold a sampling run to."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InvalidInput
from .schedule import NoiseSchedule

REL_TOL = 1e-4  # two sigmas this near are one


def strided(steps: int, stride: int) -> list[int]:
    """Of the points 0 .. steps every stride-th, and the last."""
    return [*range(0, steps, stride), steps]


@dataclass(frozen=True)
class Trajectory:
    """latents: (S + 1, B, C, H, W), from the noise to the image. sigmas: (S + 1,), falling.

    residuals: (S,), how far the last fixed-point iteration of each step still moved the latent, as the root mean square
    of what the network sees (whose own is about 1); empty where there was no iteration.
    """

    latents: Tensor
    sigmas: Tensor
    residuals: Tensor
    schedule: NoiseSchedule

    @property
    def noise(self) -> Tensor:
        """(B, C, H, W) at sigmas[0], what sampling starts from."""
        return self.latents[0]

    def row(self, row: int) -> "Trajectory":
        """That of one of the latents alone, (S + 1, 1, C, H, W); what its iterations left is not told apart."""
        return replace(self, latents=self.latents[:, row : row + 1])

    def every(self, stride: int) -> "Trajectory":
        """The same in fewer steps: every stride-th point, and the last."""
        points = strided(len(self.latents) - 1, stride)
        return replace(self, latents=self.latents[points], sigmas=self.sigmas[points])

    def to(self, device: torch.device | str) -> "Trajectory":
        """A copy on this device; made outside inference mode, of tensors that gradients may go through."""
        tensors = {name: getattr(self, name).clone().to(device) for name in ("latents", "sigmas", "residuals")}
        return replace(self, **tensors)

    def step_at(self, sigma: Tensor) -> int:
        """The step that starts at this sigma. Raises `InvalidInput` when none does."""
        distances = (self.sigmas[:-1].to(sigma) - sigma).abs()
        step = int(distances.argmin())
        if distances[step] > REL_TOL * sigma:
            raise InvalidInput(
                f"the trajectory has no step at sigma {float(sigma):.4f}, its own are {len(self.sigmas) - 1} from "
                f"{float(self.sigmas[0]):.4f}; sample with the scheduler, steps and start_at_step of the inversion"
            )
        return step

    def step_between(self, sigma: Tensor, next_sigma: Tensor) -> int:
        """The step from one sigma to the other. Raises `InvalidInput` when the trajectory takes no such step."""
        step = self.step_at(sigma)
        own = self.sigmas[step + 1].to(sigma)
        if (own - next_sigma).abs() > REL_TOL * sigma:
            raise InvalidInput(
                f"the trajectory's step from sigma {float(sigma):.4f} leads to {float(own):.4f}, the sampler's to "
                f"{float(next_sigma):.4f}; sample with the scheduler, steps and start_at_step of the inversion"
            )
        return step

    def drift(self, x: Tensor, sigma: Tensor, cells: Tensor | None = None) -> Tensor:
        """How far a latent (C, H, W) is from the trajectory's point nearest to this sigma: a root mean square, ().

        In units of the standard deviation of what the network sees. cells: (H, W), True where it counts; None: all.
        """
        point = int((self.sigmas.to(sigma) - sigma).abs().argmin())
        error = x - self.latents[point, 0].to(x)
        if cells is not None:
            error = error[..., cells.to(x.device)]
        return (error.square().sum() / max(1, error.numel())).sqrt() / self.schedule.scale(sigma).to(x)
