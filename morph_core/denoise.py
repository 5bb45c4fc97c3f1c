"""The seam between methods and models: a model is a callable `denoise(x, sigma) -> x0`."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from .errors import UnsupportedModel
from .sampling.schedule import timestep_of

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

Denoise = Callable[[Tensor, Tensor], Tensor]
"""x (B, C, H, W) in sigma space and a scalar sigma > 0 to the model's estimate of z0, (B, C, H, W)."""

OnStep = Callable[[int, int], None]
"""Called after every step of a loop with (steps done, steps in all); an exception from it cancels the loop."""

Prediction = Literal["epsilon", "v_prediction"]


def unet_denoiser(
    unet: "UNet2DConditionModel",
    context: Tensor,
    train_sigmas: Tensor,
    prediction: Prediction = "epsilon",
    added: Mapping[str, Any] | None = None,
) -> Denoise:
    """A diffusers UNet as a `Denoise`.

    context: text embeddings (B or 1, T, D). train_sigmas: (T,), see `schedule.sigmas_of`. added: what else the UNet is
    called with, for SDXL its `added_cond_kwargs`. The scalings are those of Karras et al. (2022), table 1, column "VP",
    for the network's own discrete timesteps.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        timestep = timestep_of(sigma, train_sigmas)
        rows = context.expand(len(x), -1, -1)
        scaled = x / (sigma**2 + 1) ** 0.5
        output = unet(scaled.to(unet.dtype), timestep, rows.to(unet.dtype), **(added or {})).sample
        return to_x0(x, output.to(x.dtype), sigma, prediction)

    return denoise


def to_x0(x: Tensor, output: Tensor, sigma: Tensor, prediction: Prediction) -> Tensor:
    """A network's output at x (sigma space) as an estimate of z0.

    epsilon: x − sigma·output (Ho et al. 2020). v_prediction: x/(sigma² + 1) − output·sigma/sqrt(sigma² + 1)
    (Salimans & Ho 2022, with x = z_t/alpha_t). Raises `UnsupportedModel` for other predictions.
    """
    if prediction == "epsilon":
        return x - sigma * output
    if prediction == "v_prediction":
        return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
    raise UnsupportedModel(f"the model predicts {prediction!r}; epsilon and v_prediction are supported")
