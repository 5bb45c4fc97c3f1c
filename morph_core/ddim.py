"""DDIM (Song et al. 2021) in sigma space, forwards and backwards, for any `Denoise`."""

from collections.abc import Callable

from torch import Tensor

from .denoise import Denoise

OnLatent = Callable[[int, int, Tensor], None]
"""Called after every step with (steps done, steps in all, estimate of z0 (B, C, H, W)); may raise to cancel."""


def sample(denoise: Denoise, x: Tensor, sigmas: Tensor, on_step: OnLatent | None = None) -> Tensor:
    """From noise to a latent: x at sigmas[0] (B, C, H, W) to x at sigmas[-1].

    sigmas: (S + 1,), falling. Each step is eq. 12 of the paper with eta = 0, which in sigma space is
    x + (sigma' − sigma)·(x − x0)/sigma.
    """
    steps = len(sigmas) - 1
    for i in range(steps):
        x0 = denoise(x, sigmas[i])
        x = x0 + (x - x0) * (sigmas[i + 1] / sigmas[i])
        if on_step:
            on_step(i + 1, steps, x0)
    return x


def invert(denoise: Denoise, x: Tensor, sigmas: Tensor, on_step: OnLatent | None = None) -> Tensor:
    """From a latent to the noise that `sample` turns back into it: x at sigmas[-1] to x at sigmas[0].

    sigmas: (S + 1,), falling, as for `sample`. Each step reverses `sample`'s, with the noise evaluated where
    the step starts but at the timestep where it ends, as the published implementations of DDIM inversion
    do: the network sees z_t with timestep t + 1. So the result is approximate; the error falls with S.
    """
    rising = sigmas.flip(0)
    steps = len(sigmas) - 1
    for i in range(steps):
        here, there = rising[i], rising[i + 1]
        rescaled = x * ((there**2 + 1) / (here**2 + 1)) ** 0.5  # so that the network's input is z_t itself
        x0 = denoise(rescaled, there)
        noise = (rescaled - x0) / there
        x = x + (there - here) * noise
        if on_step:
            on_step(i + 1, steps, x0)
    return x
