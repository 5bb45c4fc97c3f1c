"""Noise schedules: how a family of models adds noise of a level sigma to a clean latent.

Variance-preserving models (Stable Diffusion's) live in sigma space here, that of Karras et al. (2022), where
x = x0 + sigma·noise: the latent z_t of DDPM divided by sqrt(ᾱ_t), with sigma = sqrt((1 − ᾱ_t)/ᾱ_t).
"""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ..errors import InvalidInput, UnsupportedModel, shown

TRAIN_STEPS = 1000
Prediction = Literal["epsilon", "v_prediction"]


class NoiseSchedule(Protocol):
    """What methods ask of a family's noise. Every sigma is a scalar tensor."""

    @property
    def sigmas(self) -> Tensor:
        """(T,) of the training timesteps, rising."""

    def scale(self, sigma: Tensor) -> Tensor:
        """By what a latent of this level is divided to be what the network sees; 1 where nothing grows."""

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """A clean latent (B, C, H, W) of unit variance with noise of this level: what a `Denoise` takes."""

    def error_scale(self, sigma: Tensor) -> Tensor:
        """By how much an error of the network's own output is greater than that of its estimate of x0."""


class SamplingSchedule(NoiseSchedule, Protocol):
    """A schedule that also says at which sigmas to sample."""

    def spaced(self, steps: int, set_alpha_to_one: bool = True) -> Tensor:
        """Sigmas of `steps` steps, falling: (steps + 1,). set_alpha_to_one: see `ddim_sigmas`."""


@dataclass(frozen=True)
class VariancePreserving:
    """DDPM's (Ho et al. 2020), in sigma space. sigmas: (T,) of the training timesteps, rising, see `sigmas_of`.

    Raises `UnsupportedModel` for another prediction than epsilon or v_prediction.
    """

    sigmas: Tensor
    prediction: Prediction = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise UnsupportedModel(f"the model predicts {self.prediction!r}; epsilon and v_prediction are supported")

    def spaced(self, steps: int, set_alpha_to_one: bool = True) -> Tensor:
        """`ddim_sigmas`."""
        return ddim_sigmas(self.sigmas, steps, set_alpha_to_one)

    def scale(self, sigma: Tensor) -> Tensor:
        """1/sqrt(ᾱ): between a latent of sigma space and the variance-preserving one."""
        return (sigma**2 + 1) ** 0.5

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x0 + sigma·noise."""
        return x0 + sigma * noise

    def error_scale(self, sigma: Tensor) -> Tensor:
        """The inverse slope of `to_x0`."""
        return 1 / sigma if self.prediction == "epsilon" else self.scale(sigma) / sigma

    def to_x0(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of x0 that a network's output at x is, all (B, C, H, W).

        epsilon: x − sigma·output (Ho et al. 2020). v_prediction: x/(sigma² + 1) − output·sigma/sqrt(sigma² + 1)
        (Salimans & Ho 2022, with x = z_t/sqrt(ᾱ_t)).
        """
        if self.prediction == "epsilon":
            return x - sigma * output
        return x / (sigma**2 + 1) - output * sigma / self.scale(sigma)

    def timestep(self, sigma: Tensor) -> Tensor:
        """The training timestep whose sigma is nearest on a logarithmic scale: the network knows none in between.

        Same shape as `sigma`, int64.
        """
        known = sigma.clamp(self.sigmas[0], self.sigmas[-1])
        return (known.log()[..., None] - self.sigmas.log()).abs().argmin(-1)


@dataclass(frozen=True)
class FlowMatching:
    """Rectified flow's (Liu et al. 2023; Lipman et al. 2023): x = (1 − sigma)·x0 + sigma·noise, sigma from 1 to 0.

    sigmas: (T,) of the training timesteps, rising to 1. The network predicts the velocity noise − x0. Nothing grows, so
    the network sees latents as they are. shift: of the sigmas at which it is sampled, see `flow_sigmas`.
    """

    sigmas: Tensor
    shift: float = 1.0

    def spaced(self, steps: int, set_alpha_to_one: bool = True) -> Tensor:
        """`flow_sigmas`. Raises `InvalidInput` for set_alpha_to_one=False: there is no ᾱ."""
        if not set_alpha_to_one:
            raise InvalidInput("set_alpha_to_one=False is for Stable Diffusion's schedule; this model is a flow model")
        return flow_sigmas(steps, self.shift).to(self.sigmas)

    def scale(self, sigma: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(sigma)

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """(1 − sigma)·x0 + sigma·noise."""
        return torch.lerp(x0, noise, sigma.to(x0))

    def error_scale(self, sigma: Tensor) -> Tensor:
        """The inverse slope of `to_x0`."""
        return 1 / sigma

    def to_x0(self, x: Tensor, output: Tensor, sigma: Tensor) -> Tensor:
        """The estimate of x0 that a velocity at x is, all (B, C, H, W): x − sigma·velocity."""
        return x - sigma * output


def flow_sigmas(steps: int, shift: float = 1.0) -> Tensor:
    """Sigmas of `steps` evenly spaced steps from 1 to 0, shifted: (steps + 1,), falling.

    shift: 1 leaves them even; above, more of them are near 1 (Esser et al. 2024, eq. 23). Raises `InvalidInput` for
    less than a step and a shift that is not above 0.
    """
    if steps < 1 or not shift > 0:
        raise InvalidInput(f"steps must be 1 or more and shift above 0, got {steps} and {shift}")
    even = torch.linspace(1, 0, steps + 1)
    return shift * even / (1 + (shift - 1) * even)


def flow_train_sigmas() -> Tensor:
    """Sigmas of a flow model's training timesteps, rising to 1: (TRAIN_STEPS,)."""
    return flow_sigmas(TRAIN_STEPS)[:-1].flip(0)


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
    `NoiseSchedule.scale` of the last sigma before an inversion, and divide by it after sampling.

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


def check_sigmas(sigmas: Tensor) -> None:
    """Raise `InvalidInput` unless sigmas (S + 1,) are finite, do not rise and end at 0 or above."""
    usable = len(sigmas) > 1 and torch.isfinite(sigmas).all() and (sigmas.diff() <= 0).all() and sigmas[-1] >= 0
    if not usable:
        raise InvalidInput(f"sigmas must be finite and fall, to 0 or above; got {shown(sigmas.tolist())}")


def check_sigmas_to_zero(sigmas: Tensor) -> None:
    """As `check_sigmas`, of a run that ends in a clean latent: the last must be 0."""
    check_sigmas(sigmas)
    if sigmas[-1] != 0:
        raise InvalidInput(
            f"sigmas must fall to 0, where the image is, and end at {float(sigmas[-1]):.4f}: leave out their first "
            "steps instead of their last"
        )


def sigma_after(sigmas: Tensor, share: float) -> Tensor:
    """The sigma after the first `share` (0..1) of the steps: steps 0 .. round(share·S) − 1 start above it.

    sigmas: (S + 1,), falling.
    """
    check_share(share)
    return sigmas[round(share * (len(sigmas) - 1))]


def check_share(share: float, name: str = "the share of the steps") -> None:
    """Raise `InvalidInput` unless `share` is in 0..1. name: of the setting, for the message."""
    if not 0 <= share <= 1:
        raise InvalidInput(f"{name} must be between 0 and 1, got {share}")
