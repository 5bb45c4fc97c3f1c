"""What the tests of fitting a LoRA share: an image, a prompt, a short fit."""

import torch

from morph_pack.morph_core.lora.fit import LoraFit, fit_lora
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.models.unet import UnetBackbone
from morph_pack.morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, sigmas_of

ALPHAS = alphas_cumprod()
SHORT = LoraFit(rank=2, steps=2, learning_rate=1e-3)


def latent(seed=1):
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def context(seed=2):
    return torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(seed))


def fit(unet, latent, context, config, prediction="epsilon", on_step=None):
    return fit_lora(
        UnetBackbone(unet, VariancePreserving(sigmas_of(ALPHAS), prediction)), latent, Text(context), config, on_step
    )
