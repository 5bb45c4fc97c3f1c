"""Uni-Edit (Jiao et al., ICLR 2026): an image edited from a part of its inversion, most where two predictions differ.

The inversion is Uni-Inv, which is `ddim.trace` with a warm start. On the way back the source's prediction leads to the
image, and the difference of the target's to it leads away, in each place as much as it says something there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoise import Denoise
from ..errors import InvalidInput
from .ddim import OnLatent, step, trace
from .schedule import NoiseSchedule, check_share, check_sigmas_to_zero


@dataclass(frozen=True)
class UniEdit:
    """How far an edit goes. Defaults are the published ones, which are for 15 steps at guidance 1."""

    strength: float = 0.6
    """Share of the steps that are inverted: alpha."""
    omega: float = 5.0
    """How strongly the difference of the predictions leads away from the image; 0 or more."""

    def __post_init__(self) -> None:
        check_share(self.strength, "strength")
        if not self.omega >= 0:
            raise InvalidInput(f"omega must be 0 or more, got {self.omega}")


def uni_edit(
    source: Denoise,
    target: Denoise,
    image: Tensor,
    sigmas: Tensor,
    schedule: NoiseSchedule,
    config: UniEdit | None = None,
    on_step: OnLatent | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The edited latents of clean ones, `image` (B, C, H, W): what source describes becomes what target does.

    source, target: the model with the two prompts; one evaluation a step up and two a step down. sigmas: (S + 1,),
    falling to 0. on_step: called for both ways as one run. mask: broadcast to the latent, 0..1; where it is 0 the
    latent is put on its inversion's trajectory again and so ends as the image; None: nowhere. Raises `InvalidInput` for
    sigmas that do not fall to 0, and when a latent on the way is not finite.
    """
    config = config or UniEdit()
    check_sigmas_to_zero(sigmas)
    steps = round(config.strength * (len(sigmas) - 1))
    if not steps:
        return image
    sigmas = sigmas[-steps - 1 :]

    def counted(done: int, _: int, x0: Tensor) -> None:
        if on_step:
            on_step(done, 2 * steps, x0)

    way = trace(source, image, sigmas, schedule, counted, warm_start=True)
    x = way.noise
    for i in range(steps):
        sigma, next_sigma = sigmas[i], sigmas[i + 1]
        x0 = source(x, sigma)
        x0 = led_by_difference(x0, target(x, sigma), config.omega)
        x = step(x, x0, sigma, next_sigma)
        if mask is not None:
            x = torch.lerp(way.latents[i + 1], x, mask)
        if not torch.isfinite(x).all():
            raise InvalidInput(
                f"the edit is not finite after {i + 1} of {steps} steps: lower omega or the guidance, or use float32 "
                "where the model is of another type"
            )
        counted(steps + i + 1, 2 * steps, x0)
    return x


def led_by_difference(source: Tensor, target: Tensor, omega: float) -> Tensor:
    """The x0 that a step takes, of the two prompts' (B, C, ...): source + (m + (m + 1)·omega)·(target − source).

    It is v = m·v_t + (1 − m)·v_s + (m + 1)·omega·(v_t − v_s), the paper's fused velocity and its correction, in which
    x and sigma cancel. m: `where_they_differ`.
    """
    m = where_they_differ(source, target)
    return source + (m + (m + 1) * omega) * (target - source)


def where_they_differ(source: Tensor, target: Tensor) -> Tensor:
    """(B, 1, ...) in 0..1: the mean of |target − source| over channels, from each row's least to its greatest.

    Of magnitudes, as in the code for Flux; that for diffusers takes the mean of the signed differences. Where all
    places differ alike, or not at all, there is nothing to tell apart: 0.
    """
    size = (target - source).abs().mean(1, keepdim=True)
    least, greatest = (edge.reshape(-1, *[1] * (size.ndim - 1)) for edge in size.flatten(1).aminmax(dim=1))
    span = greatest - least
    return torch.where(span > 0, (size - least) / span.clamp(min=torch.finfo(size.dtype).tiny), 0.0)
