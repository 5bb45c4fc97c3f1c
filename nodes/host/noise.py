"""An inverted latent as a NOISE: what a sampling run starts from, whatever the family's way of adding noise.

A KSampler adds its noise to a latent. For flow matching at sigma 1 that leaves nothing of the latent, so an inverted
one cannot come in as a LATENT there; as the NOISE of SamplerCustomAdvanced it can, for every family.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...morph_core.errors import InvalidInput


@dataclass(frozen=True)
class InvertedNoise:
    """A NOISE with which the run's first latent is `x`, (B, C, ...) scaled as the network takes it, at this sigma.

    sampling, latent_format: ComfyUI's, of the MODEL that it was inverted with.
    """

    x: Tensor
    sigma: Tensor
    sampling: Any
    latent_format: Any
    seed: ClassVar[int] = 0  # which samplers that add noise of their own ask for

    @staticmethod
    def of(model: Any, x: Tensor, sigma: Tensor) -> "InvertedNoise":
        """The NOISE of a MODEL."""
        parts = (model.get_model_object(name) for name in ("model_sampling", "latent_format"))
        return InvertedNoise(x, sigma, *parts)

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """ComfyUI's: what its `noise_scaling` turns into x, on whatever latent it is added to."""
        latent = input_latent["samples"]
        if latent.shape[1:] != self.x.shape[1:] or len(latent) not in (1, len(self.x)):
            raise InvalidInput(
                f"NOISE is of an inverted latent of shape {tuple(self.x.shape)}, latent_image is of shape "
                f"{tuple(latent.shape)}; connect an empty latent of that size, with as many rows"
            )
        clean = latent.to(self.x) if not latent.count_nonzero() else self.latent_format.process_in(latent.to(self.x))
        begins_in_noise = self._is_highest()
        one, zero = torch.ones_like(self.x), torch.zeros_like(self.x)
        sigma = self.sigma.to(self.x)
        share = self.sampling.noise_scaling(sigma, one, zero, begins_in_noise)
        return (self.x - self.sampling.noise_scaling(sigma, zero, clean, begins_in_noise)) / share

    def _is_highest(self) -> bool:
        """As a sampler decides whether it starts from noise alone."""
        highest = float(self.sampling.sigma_max)
        return math.isclose(highest, float(self.sigma), rel_tol=1e-5) or float(self.sigma) > highest


def as_latent(model: Any, x: Tensor, sigma: Tensor) -> Tensor | None:
    """The samples of a LATENT with which KSampler (Advanced), adding no noise, starts at x; None: there is none.

    x: scaled as the network takes it, at this sigma.
    """
    sampling = model.get_model_object("model_sampling")
    zero = torch.zeros_like(x)
    share = sampling.noise_scaling(sigma.to(x), zero, torch.ones_like(x)).flatten()[0]
    return None if share == 0 else model.model.process_latent_out(x / share)


def noisy_latent(model: Any, samples: Tensor, sigma: Tensor) -> Tensor:
    """The inverse of `as_latent`: a LATENT's samples as the run that they start takes them, scaled."""
    scaled = model.model.process_latent_in(samples)
    sampling = model.get_model_object("model_sampling")
    return sampling.noise_scaling(sigma.to(scaled), torch.zeros_like(scaled), scaled)  # type: ignore[no-any-return]
