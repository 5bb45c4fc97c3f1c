"""Gaussian latents of both kinds of schedules: what a model of them would answer, exactly."""

import torch

from morph_pack.morph_core.sampling.schedule import (
    FlowMatching,
    VariancePreserving,
    alphas_cumprod,
    flow_sigmas,
    sigmas_of,
)

SPREAD = 0.4
SCHEDULES = {
    "flow matching": FlowMatching(torch.linspace(0.001, 1, 1000, dtype=torch.float64)),
    "variance preserving": VariancePreserving(sigmas_of(alphas_cumprod().double())),
}


def latents(seed=0):
    return torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussian_denoiser(schedule, mean):
    """The posterior mean of latents of N(mean, SPREAD²). mean: what the prompt says, a number or a latent."""

    def denoise(x, sigma):
        keep = 1 - sigma if isinstance(schedule, FlowMatching) else 1
        return mean + keep * SPREAD**2 / (keep**2 * SPREAD**2 + sigma**2) * (x - keep * mean)

    return denoise


def run_down(schedule, steps):
    """(steps + 1,), from the schedule's highest sigma to 0, more of them near 0 in sigma space (Karras et al. 2022)."""
    if isinstance(schedule, FlowMatching):
        return flow_sigmas(steps).double()
    return torch.linspace(float(schedule.sigmas[-1]) ** (1 / 7), 0, steps + 1, dtype=torch.float64) ** 7
