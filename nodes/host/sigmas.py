"""The noise levels of a KSampler run, as the nodes that prepare one need them."""

from typing import Any

import comfy.samplers
import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ...morph_core.errors import InvalidInput
from .model_sampling import ModelSampling
from .noise import noisy_latent

SIGMA_KEY = "morph_drag_sigma"
"""In a LATENT: the noise level it was inverted to."""
TOLERANCE = 1e-3  # relative


def schedule_inputs(partner: str, start_at_step: int) -> list[Any]:
    """The inputs steps, scheduler and start_at_step. partner: the node whose own must be equal."""
    return [
        io.Int.Input("steps", default=50, min=1, max=999, tooltip=f"As in {partner}. More is more exact."),
        io.Combo.Input(
            "scheduler",
            options=list(comfy.samplers.SCHEDULER_NAMES),
            default="ddim_uniform",
            tooltip=f"As in {partner}. DDIM's own spacing is ddim_uniform.",
        ),
        io.Int.Input(
            "start_at_step",
            default=start_at_step,
            min=0,
            max=998,
            tooltip=f"As in {partner}. 0 is pure noise, 15 of 50 is strength 0.7.",
        ),
    ]


def remaining_sigmas(model: Any, scheduler: str, steps: int, start_at_step: int) -> Tensor:
    """The falling sigmas that KSampler (Advanced) runs through from start_at_step, ending in 0: (S + 1,)."""
    if scheduler not in comfy.samplers.SCHEDULER_NAMES:
        known = ", ".join(comfy.samplers.SCHEDULER_NAMES)
        raise InvalidInput(f"scheduler must be one of {known}; got {scheduler!r}")
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
    if len(sigmas) - start_at_step < 2:
        raise InvalidInput(f"start_at_step must be below steps ({steps}), got {start_at_step}")
    if not torch.isfinite(sigmas).all():
        raise InvalidInput(
            f"scheduler {scheduler} has noise levels that are not finite with steps {steps}; take more steps or "
            "another scheduler"
        )
    return sigmas[start_at_step:]


def check_noise_level(
    model: Any, latent: dict[str, Any], sigma: Tensor, start_at_step: int, name: str = "latent"
) -> None:
    """Raise when a LATENT is not at the noise level of the step it is said to be at. name: of the input, for errors.

    DDIM Invert leaves the level in the LATENT. All are judged by their deviation too, to which an image's latent and
    noise of this level add up: that finds clean latents and grossly other levels.
    """
    wanted = float(sigma)
    known = latent.get(SIGMA_KEY)
    if known is not None and abs(known - wanted) > TOLERANCE * wanted:
        raise InvalidInput(
            f"{name} was inverted to sigma {known:.3f} but start_at_step {start_at_step} is at sigma {wanted:.3f}; "
            "set steps, scheduler and start_at_step as in DDIM Invert"
        )
    spread = noisy_latent(model, latent["samples"], sigma).std().item()
    scale = ModelSampling(model.get_model_object("model_sampling")).scale(sigma).item()
    least, most = 0.5 * wanted, 2 * scale  # half the noise; twice it and an image of unit variance
    if not least < spread < most:
        raise InvalidInput(
            f"{name} is not at start_at_step {start_at_step}: its deviation is {spread:.2f}, {least:.2f} to {most:.2f} "
            "was expected; connect DDIM Invert's output, with the same steps, scheduler and start_at_step"
        )


def step_percents(model: Any, sigmas: Tensor) -> list[tuple[float, float]]:
    """ComfyUI's start and end percent of each step: from half-way to the step before to half-way to the one after.

    sigmas: (S + 1,), falling. ComfyUI counts percents in the model's training timesteps, between which it interpolates
    log sigmas.
    """
    known = model.get_model_object("model_sampling").sigmas.log().cpu().numpy()
    logs = sigmas[:-1].log().cpu().numpy()
    halves = (logs[:-1] + logs[1:]) / 2
    timesteps = np.interp(halves, known, np.arange(len(known)))
    edges = [0.0, *(1 - timesteps / (len(known) - 1)).tolist(), 1.0]
    return list(zip(edges, edges[1:], strict=False))
