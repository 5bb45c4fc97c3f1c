"""Noise schedules of latent diffusion models, as sigmas: x = z0 + sigma·noise.

Sigma space is Karras et al. (2022): it is the variance-preserving latent z_t of DDPM divided by sqrt(ᾱ_t), with
sigma = sqrt((1 − ᾱ_t)/ᾱ_t). DDIM (Song et al. 2021) is Euler's method in it.
"""

import torch
from torch import Tensor

from ..errors import InvalidInput, shown

TRAIN_STEPS = 1000


def alphas_cumprod(beta_start: float = 0.00085, beta_end: float = 0.012, steps: int = TRAIN_STEPS) -> Tensor:
    """ᾱ_t of Stable Diffusion's "scaled linear" schedule, (steps,) in 0..1, float32, falling."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def sigmas_of(alphas: Tensor) -> Tensor:
    """Sigma of every training timestep, rising: sqrt((1 − ᾱ)/ᾱ). alphas: (T,) in 0..1."""
    return ((1 - alphas) / alphas) ** 0.5


def ddim_sigmas(train_sigmas: Tensor, steps: int, set_alpha_to_one: bool = True) -> Tensor:
    """Sigmas of `steps` DDIM steps, falling: (steps + 1,).

    They end in 0, as ComfyUI's do: an image's latent has no noise, its ᾱ is 1. With set_alpha_to_one=False, which means
    what it means in diffusers' `DDIMScheduler`, they end in train_sigmas[0]: the latent's ᾱ is ᾱ_0. Multiply it by
    `latent_scale` of the last sigma before an inversion, and divide by it after sampling.

    Timesteps are 1, 1 + T/steps, ... as in DDIM's uniform spacing with the offset of Stable Diffusion
    (for 50 steps of 1000: 981, 961, ..., 1). ComfyUI's `ddim_uniform` is the same where `steps` divides T and starts
    a step earlier where it does not. Raises `InvalidInput` unless 1 <= steps < T.
    """
    total = len(train_sigmas)
    if not 1 <= steps < total:
        raise InvalidInput(f"steps must be between 1 and {total - 1}, got {steps}")
    timesteps = torch.arange(1, total, total // steps)[:steps].flip(0)
    last = train_sigmas.new_zeros(1) if set_alpha_to_one else train_sigmas[:1]
    return torch.cat([train_sigmas[timesteps.to(train_sigmas.device)], last])


def latent_scale(sigma: Tensor) -> Tensor:
    """1/sqrt(ᾱ), by which a variance-preserving latent is multiplied to be one of this sigma: 1 where sigma is 0."""
    return (sigma**2 + 1) ** 0.5


def check_sigmas(sigmas: Tensor) -> None:
    """Raise `InvalidInput` unless sigmas (S + 1,) are finite, do not rise and end at 0 or above."""
    usable = len(sigmas) > 1 and torch.isfinite(sigmas).all() and (sigmas.diff() <= 0).all() and sigmas[-1] >= 0
    if not usable:
        raise InvalidInput(f"sigmas must be finite and fall, to 0 or above; got {shown(sigmas.tolist())}")


def timestep_of(sigma: Tensor, train_sigmas: Tensor) -> Tensor:
    """The training timestep whose sigma is nearest on a logarithmic scale: the network knows none in between.

    Same shape as `sigma`, int64.
    """
    known = sigma.clamp(train_sigmas[0], train_sigmas[-1])
    return (known.log()[..., None] - train_sigmas.log()).abs().argmin(-1)
