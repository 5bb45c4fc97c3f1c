"""Classifier-free guidance (Ho & Salimans 2022)."""

import torch
from torch import Tensor

from ..denoise import Denoise


def guided(unconditional: Tensor, conditional: Tensor, guidance: float) -> Tensor:
    """Two predictions of one shape as one: unconditional + guidance·(conditional − unconditional).

    guidance: 1 is the conditional prediction; what ComfyUI calls cfg and diffusers guidance_scale.
    """
    return torch.lerp(unconditional, conditional, guidance)


def guided_denoiser(unconditional: Denoise, conditional: Denoise, guidance: float) -> Denoise:
    """The guided model, as a `Denoise`; of guidance 1 the conditional one, without a second evaluation."""
    if guidance == 1:
        return conditional

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return guided(unconditional(x, sigma), conditional(x, sigma), guidance)

    return denoise
