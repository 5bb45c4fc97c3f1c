"""Networks as tests use them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from morph_pack.morph_core.denoise import Denoise
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.models.unet import unet_denoiser
from morph_pack.morph_core.sampling.schedule import Prediction, VariancePreserving


def denoiser_of(
    unet: Any,
    context: Tensor,
    sigmas: Tensor,
    prediction: Prediction = "epsilon",
    added: Mapping[str, Any] | None = None,
) -> Denoise:
    """A UNet told these embeddings, with the training sigmas of its schedule."""
    return unet_denoiser(unet, Text(context, added=added or {}), VariancePreserving(sigmas, prediction))
