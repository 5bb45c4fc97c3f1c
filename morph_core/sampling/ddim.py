"""DDIM (Song et al. 2021) in sigma space, forwards and backwards, for any `Denoise`."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..denoise import Denoise
from ..errors import InvalidInput
from .schedule import check_sigmas
from .trajectory import Trajectory

OnLatent = Callable[[int, int, Tensor], None]
"""Called after every step with (steps done, steps in all, estimate of z0 (B, C, H, W)); may raise to cancel."""

Adjust = Callable[[int, Tensor], Tensor]
"""From a step's number and the x (B, C, H, W) that it has led to, to the x that the next step starts from."""


def sample(
    denoise: Denoise, x: Tensor, sigmas: Tensor, on_step: OnLatent | None = None, adjust: Adjust | None = None
) -> Tensor:
    """From noise to a latent: x at sigmas[0] (B, C, H, W) to x at sigmas[-1].

    sigmas: (S + 1,), falling. Each step is eq. 12 of the paper with eta = 0, which in sigma space is
    x + (sigma' − sigma)·(x − x0)/sigma.
    """
    steps = len(sigmas) - 1
    for i in range(steps):
        x0 = denoise(x, sigmas[i])
        x = x0 + (x - x0) * (sigmas[i + 1] / sigmas[i])
        if adjust:
            x = adjust(i, x)
        if on_step:
            on_step(i + 1, steps, x0)
    return x


def invert(denoise: Denoise, x: Tensor, sigmas: Tensor, on_step: OnLatent | None = None, iterations: int = 0) -> Tensor:
    """From a latent to the noise that `sample` turns back into it: x at sigmas[-1] to x at sigmas[0]; see `trace`."""
    return trace(denoise, x, sigmas, on_step, iterations).noise


def trace(
    denoise: Denoise, x: Tensor, sigmas: Tensor, on_step: OnLatent | None = None, iterations: int = 0
) -> Trajectory:
    """The whole way from a latent (B, C, H, W) at sigmas[-1] to the noise that `sample` turns back into it.

    sigmas: (S + 1,), falling, as for `sample`. Each step reverses `sample`'s, with the noise evaluated where
    the step starts but at the timestep where it ends, as the published implementations of DDIM inversion
    do: the network sees z_t with timestep t + 1. So the result is approximate; the error falls with S.
    iterations: how often the noise is then evaluated again at the point it leads to (AIDI, Pan et al. 2023, eq. 8;
    ReNoise, Garibi et al. 2024); where that converges, `sample` goes the same way back. Raises `InvalidInput` for
    sigmas that are not finite or do not fall, and when a latent on the way is not finite.
    """
    if iterations < 0:
        raise InvalidInput(f"the fixed-point iterations must be 0 or more, got {iterations}")
    check_sigmas(sigmas)
    rising = sigmas.flip(0)
    steps = len(sigmas) - 1
    latents, residuals = [x], []
    for i in range(steps):
        here, there = rising[i], rising[i + 1]
        growth = (there**2 + 1) ** 0.5
        start = x * (growth / (here**2 + 1) ** 0.5)  # so that the network's input is z_t itself
        x0 = denoise(start, there)
        next_x = x + (there - here) * (start - x0) / there
        for _ in range(iterations):
            before = next_x
            x0 = denoise(before, there)
            next_x = x + (there - here) * (before - x0) / there
        if iterations:
            residuals.append(((next_x - before) / growth).square().mean().sqrt())
        x = next_x
        if not torch.isfinite(x).all():
            raise InvalidInput(
                f"the inversion is not finite after {i + 1} of {steps} steps: check the model, its prompt and the "
                "latent, or use float32 where the model is of another type"
            )
        latents.append(x)
        if on_step:
            on_step(i + 1, steps, x0)
    return Trajectory(torch.stack(latents[::-1]), sigmas, torch.stack(residuals[::-1]) if residuals else x.new_zeros(0))
