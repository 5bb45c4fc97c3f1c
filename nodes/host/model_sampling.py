"""A MODEL's way of adding noise, which a patch may have changed, as the core's `NoiseSchedule`."""

from typing import Any

import torch
from torch import Tensor


class ModelSampling:
    """Everything is asked of ComfyUI's `model_sampling`, so that no family needs a line of its own."""

    def __init__(self, sampling: Any) -> None:
        self._sampling = sampling

    @property
    def sigmas(self) -> Tensor:
        """(T,) of the training timesteps, or as many of a continuous schedule, rising."""
        return self._sampling.sigmas  # type: ignore[no-any-return]

    def scale(self, sigma: Tensor) -> Tensor:
        """By what a latent of this level is divided before the network sees it."""
        return 1 / self._sampling.calculate_input(sigma, _one(sigma)).squeeze()

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """As the family has it; x0 and noise (B, C, H, W)."""
        return self._sampling.noise_scaling(sigma, noise, x0)  # type: ignore[no-any-return]

    def error_scale(self, sigma: Tensor) -> Tensor:
        """Every family's estimate of x0 is linear in what its network returns; this is its slope, inverted."""
        one = _one(sigma)
        return 1 / self._sampling.calculate_denoised(sigma, one, torch.zeros_like(one)).abs().squeeze()


def _one(like: Tensor) -> Tensor:
    return torch.ones(1, 1, 1, 1, device=like.device)
