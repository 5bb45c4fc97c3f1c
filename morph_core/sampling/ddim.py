"""DDIM (Song et al. 2021), forwards and backwards, for any `Denoise`.

With sigma as the noise level it is Euler's method, for variance-preserving models and for flow matching alike.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..denoise import Denoise
from ..errors import InvalidInput
from .schedule import NoiseSchedule, check_sigmas
from .trajectory import Trajectory

OnLatent = Callable[[int, int, Tensor], None]
"""Called after every step with (steps done, steps in all, estimate of x0 (B, C, H, W)); may raise to cancel."""

Correction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From (x0, x, sigma, next_sigma) to the x0 (B, C, H, W) that the step from x at sigma to next_sigma is to take."""

STEADY = 0.5  # a velocity that differs from the one before by this share of its length is not trusted at all
UNKNOWN = 0.5  # how far a first velocity is trusted, of which nothing is known


def step(x: Tensor, x0: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """One step from x at sigma to next_sigma, with x0 as the clean latent; all (B, C, H, W).

    Eq. 12 of the paper with eta = 0: x + (sigma' − sigma)·(x − x0)/sigma.
    """
    return x0 + (x - x0) * (next_sigma / sigma)


def x0_leading_to(target: Tensor, x: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """The x0 with which `step` ends in `target`; shapes as they are."""
    share = next_sigma / sigma
    return (target - share * x) / (1 - share)


def sample(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    on_step: OnLatent | None = None,
    corrections: Sequence[Correction] = (),
) -> Tensor:
    """From noise to a latent: x at sigmas[0] (B, C, H, W) to x at sigmas[-1].

    sigmas: (S + 1,), falling. corrections: change each step's estimate of x0, one after the other.
    """
    steps = len(sigmas) - 1
    for i in range(steps):
        sigma, next_sigma = sigmas[i], sigmas[i + 1]
        x0 = denoise(x, sigma)
        for correct in corrections:
            x0 = correct(x0, x, sigma, next_sigma)
        x = step(x, x0, sigma, next_sigma)
        if on_step:
            on_step(i + 1, steps, x0)
    return x


def invert(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    schedule: NoiseSchedule,
    on_step: OnLatent | None = None,
    iterations: int = 0,
    warm_start: bool = False,
) -> Tensor:
    """From a latent to the noise that `sample` turns back into it: x at sigmas[-1] to x at sigmas[0]; see `trace`."""
    return trace(denoise, x, sigmas, schedule, on_step, iterations, warm_start).noise


def trace(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    schedule: NoiseSchedule,
    on_step: OnLatent | None = None,
    iterations: int = 0,
    warm_start: bool = False,
) -> Trajectory:
    """The trajectory from a latent (B, C, H, W) at sigmas[-1] to the noise that `sample` turns back into it.

    sigmas: (S + 1,), falling, as for `sample`. Each step reverses `sample`'s, with the noise evaluated where
    the step starts but at the timestep where it ends, as the published implementations of DDIM inversion
    do: the network sees z_t with timestep t + 1. So the result is approximate; the error falls with S.
    iterations: how often the noise is then evaluated again at the point it leads to (AIDI, Pan et al. 2023, eq. 8;
    ReNoise, Garibi et al. 2024); where that converges, `sample` goes the same way back. warm_start: evaluate it first
    at the point that the step before leads on to, see `_WarmStart`: as many evaluations, and an error of second order
    instead of first. Raises `InvalidInput` for sigmas that are not finite or do not fall, and when a latent on the way
    is not finite.
    """
    if iterations < 0:
        raise InvalidInput(f"the fixed-point iterations must be 0 or more, got {iterations}")
    check_sigmas(sigmas)
    rising = sigmas.flip(0)
    steps = len(sigmas) - 1
    latents, residuals = [x], []
    warm = _WarmStart() if warm_start else None
    for i in range(steps):
        here, there = rising[i], rising[i + 1]
        scale = schedule.scale(there)
        start = x * (scale / schedule.scale(here))  # so that the network sees the latent as it is at `here`
        point = warm.point(start, x, there - here) if warm else start
        x0 = denoise(point, there)
        next_x = x + (there - here) * (point - x0) / there
        for _ in range(iterations):
            point = next_x
            x0 = denoise(point, there)
            next_x = x + (there - here) * (point - x0) / there
        if iterations:
            residuals.append(((next_x - point) / scale).square().mean().sqrt())
        if warm:
            warm.saw((point - x0) / there)
        x = next_x
        if not torch.isfinite(x).all():
            raise InvalidInput(
                f"the inversion is not finite after {i + 1} of {steps} steps: check the model, its prompt and the "
                "latent, or use float32 where the model is of another type"
            )
        latents.append(x)
        if on_step:
            on_step(i + 1, steps, x0)
    moved = torch.stack(residuals[::-1]) if residuals else x.new_zeros(0)
    return Trajectory(torch.stack(latents[::-1]), sigmas, moved, schedule)


class _WarmStart:
    """Where a step of `trace` evaluates first: Uni-Inv (Jiao et al., ICLR 2026), with a safeguard.

    There the step begins with the velocity of the step before, so that it ends as implicit Euler does, which is what
    `sample` undoes. Where that velocity was still changing, as near the image, where models tell little noise badly, it
    leads astray: a row is led on by it only as far as it was like the one before, and half-way where it is the first.
    """

    def __init__(self) -> None:
        self._velocities: tuple[Tensor, ...] = ()

    def point(self, start: Tensor, x: Tensor, change: Tensor) -> Tensor:
        """start: what would be taken without it. change: of sigma, in this step from x; latents (B, C, H, W)."""
        if not self._velocities:
            return start
        led_on = x + change * self._velocities[-1]
        return torch.lerp(start, led_on, self._trust().reshape(-1, *[1] * (x.ndim - 1)))

    def saw(self, velocity: Tensor) -> None:
        """The velocity that a step was taken with, (B, C, H, W)."""
        self._velocities = (*self._velocities[-1:], velocity)

    def _trust(self) -> Tensor:
        """(B,) in 0..1."""
        *before, last = self._velocities
        if not before:
            return torch.full_like(_lengths(last), UNKNOWN)
        turned = _lengths(last - before[0])
        return (1 - turned / (STEADY * _lengths(last))).clamp(0, 1).nan_to_num(0)


def _lengths(latents: Tensor) -> Tensor:
    """(B,)"""
    return latents.flatten(1).norm(dim=1)
