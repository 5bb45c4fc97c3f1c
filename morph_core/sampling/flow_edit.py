"""FlowEdit (Kulikov et al., ICCV 2025): an image edited by the difference of two predictions, without inversion.

The image and its edit are given the same noise, and the edit moves as the two predictions differ. What it is when both
say the same is the image, bit for bit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoise import Denoise
from ..errors import InvalidInput
from .ddim import OnLatent, sample, step
from .schedule import NoiseSchedule, check_share, check_sigmas_to_zero


@dataclass(frozen=True)
class FlowEdit:
    """How far an edit goes. Defaults are the published ones for Stable Diffusion 3, of 50 steps."""

    strength: float = 0.66
    """Share of the steps, the last ones, that edit: n_max / T. For Flux 24 of 28, 0.86."""
    free: float = 0.0
    """Share of the steps, the last ones, in which the target is sampled without regard to the image: n_min / T."""
    noises: int = 1
    """How many noises a step's difference is the mean of: n_avg."""
    seed: int = 0
    """Of the noises; row r of a batch gets those that it would get alone with seed + r."""

    def __post_init__(self) -> None:
        check_share(self.strength, "strength")
        check_share(self.free, "free")
        if self.noises < 1:
            raise InvalidInput(f"noises must be 1 or more, got {self.noises}")


def flow_edit(
    source: Denoise,
    target: Denoise,
    image: Tensor,
    sigmas: Tensor,
    schedule: NoiseSchedule,
    config: FlowEdit | None = None,
    on_step: OnLatent | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The edited latents of clean ones, `image` (B, C, H, W): what source describes becomes what target does.

    source, target: the model with the two prompts, each with its own guidance; two evaluations a step and noise, one in
    the free steps. sigmas: (S + 1,), falling to 0. mask: broadcast to the latent, 0..1, what of an edit is kept where;
    None: all of it. Algorithm 1 of the paper for any schedule: with V = (x − x0)/sigma the step of the difference
    d = z_edit − image is `ddim.step` with x0_target − x0_source as its x0. Raises `InvalidInput` for sigmas that do not
    fall to 0, and when the edit is not finite.
    """
    config = config or FlowEdit()
    check_sigmas_to_zero(sigmas)
    steps = len(sigmas) - 1
    first_free = steps - min(round(config.free * steps), round(config.strength * steps))
    noise_of = _Noises(image, config.seed)
    kept = 1.0 if mask is None else mask
    difference = torch.zeros_like(image)
    for i in range(steps - round(config.strength * steps), first_free):
        sigma, next_sigma = sigmas[i], sigmas[i + 1]
        towards = torch.zeros_like(image)
        for _ in range(config.noises):
            noisy = schedule.noised(image, noise_of(), sigma)
            towards = towards + (target(noisy + difference, sigma) - source(noisy, sigma)) / config.noises
        towards = kept * towards
        difference = step(difference, towards, sigma, next_sigma)
        _check_finite(difference, i + 1, steps)
        if on_step:
            on_step(i + 1, steps, image + towards)
    if first_free == steps:
        return image + difference
    rest = sigmas[first_free:]
    noisy = schedule.noised(image, noise_of(), rest[0]) + difference

    def counted(done: int, _: int, x0: Tensor) -> None:
        _check_finite(x0, first_free + done, steps)
        if on_step:
            on_step(first_free + done, steps, x0)

    return sample(target, noisy, rest, counted, [] if mask is None else [_HeldOutside(image, mask)])


@dataclass(frozen=True)
class _HeldOutside:
    """A `ddim.Correction` that leads to the image where the mask is 0."""

    image: Tensor
    mask: Tensor

    def __call__(self, x0: Tensor, x: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
        return torch.lerp(self.image, x0, self.mask)


class _Noises:
    """Noise for a batch, drawn on the CPU row by row, so that neither the device nor the other rows matter."""

    def __init__(self, like: Tensor, seed: int) -> None:
        self._like = like
        self._generators = [torch.Generator().manual_seed((seed + row) % 2**64) for row in range(len(like))]

    def __call__(self) -> Tensor:
        shape = self._like.shape[1:]
        return torch.stack([torch.randn(shape, generator=one) for one in self._generators]).to(self._like)


def _check_finite(latent: Tensor, done: int, steps: int) -> None:
    if not torch.isfinite(latent).all():
        raise InvalidInput(
            f"the edit is not finite after {done} of {steps} steps: check the model, its prompts and the latent, lower "
            "the guidance, or use float32 where the model is of another type"
        )
