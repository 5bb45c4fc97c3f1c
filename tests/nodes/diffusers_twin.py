"""An oracle: a MODEL's weights in diffusers' UNet, on which the core's methods are computed for comparison."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch
from torch import Tensor

from morph_pack.morph_core.denoise import Denoise
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.models.unet import unet_denoiser
from morph_pack.morph_core.sampling.schedule import Prediction, VariancePreserving
from morph_pack.nodes.host.prompt import read_prompt
from morph_pack.nodes.host.weights import computing_weights
from morph_tests.nodes.unet_bridge import build_shared_unet

PREDICTIONS: dict[type, Prediction] = {
    comfy.model_sampling.EPS: "epsilon",
    comfy.model_sampling.V_PREDICTION: "v_prediction",
}


@dataclass(frozen=True)
class DiffusersTwin:
    unet: Any
    schedule: VariancePreserving
    device: torch.device

    def denoiser(self, text: Text) -> Denoise:
        """SDXL's vector of pooled text and sizes is given whole, as `class_labels`."""
        added = {"class_labels": text.added["y"]} if "y" in text.added else {}
        return unet_denoiser(self.unet, Text(text.context, added=added), self.schedule)


@contextmanager
def diffusers_twin(model: Any) -> Iterator[DiffusersTwin]:
    """The MODEL, loaded with its patches, as a frozen diffusers UNet on the same memory; outside inference mode."""
    config, sampling = model.model.model_config.unet_config, model.get_model_object("model_sampling")
    (prediction,) = (PREDICTIONS[base] for base in type(sampling).__bases__ if base in PREDICTIONS)
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    with torch.inference_mode(False), torch.enable_grad():
        state = computing_weights(model.model.diffusion_model, model.load_device, dtype)
        unet = build_shared_unet(state, config, comfy.utils.unet_to_diffusers(config))
        schedule = VariancePreserving(sampling.sigmas.detach().cpu().clone(), prediction)
        yield DiffusersTwin(unet, schedule, model.load_device)


def through_twin(model: Any, x: Tensor, sigma: Tensor, positive: Any) -> Tensor:
    with torch.inference_mode():
        prompt = read_prompt(model, positive, "positive", x[:1])
        with diffusers_twin(model) as twin, torch.no_grad():
            return twin.denoiser(prompt.to(twin.device))(x, sigma)
