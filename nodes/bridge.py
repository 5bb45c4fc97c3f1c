"""MODEL to what the core works on. The only file that looks inside ComfyUI's model objects."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from ..morph_core.denoise import Prediction
from ..morph_core.errors import InvalidInput, UnsupportedModel
from ..morph_core.unet_bridge import build_shared_unet
from .weights import computing_weights

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from diffusers import UNet2DConditionModel


PREDICTIONS: dict[type, Prediction] = {
    comfy.model_sampling.EPS: "epsilon",
    comfy.model_sampling.V_PREDICTION: "v_prediction",
}


ALL_MEMORY = 1e20  # bytes; what gradients need is not known beforehand, so every other model makes room


@dataclass(frozen=True)
class BridgedModel:
    """A MODEL as the core takes it: a frozen UNet on its weights, its noise schedule and its prediction."""

    unet: "UNet2DConditionModel"
    train_alphas: Tensor
    prediction: Prediction
    device: torch.device

    def save_memory(self) -> None:
        """Keep less of what gradients need, and compute it twice. Older diffusers want training mode for that, which
        changes nothing else in networks without dropout.
        """
        self.unet.train().enable_gradient_checkpointing()


def unet_config(model: "ModelPatcher") -> dict[str, Any]:
    """ComfyUI's UNet configuration. Raises `UnsupportedModel` when the MODEL is not a text-to-image UNet."""
    network = model.model.diffusion_model
    if not isinstance(network, UNetModel):
        raise UnsupportedModel(
            f"model is a {type(network).__name__}, not a UNet; load a Stable Diffusion 1.x, 2.x or XL checkpoint"
        )
    _prediction(model)
    config: dict[str, Any] = model.model.model_config.unet_config
    if config["in_channels"] != config["out_channels"]:
        raise UnsupportedModel("model is an inpainting or instruction model; load a text-to-image checkpoint")
    return config


def up_block_of(output_block: int, config: dict[str, Any]) -> int:
    """Which up block (diffusers' numbering) one of ComfyUI's output blocks belongs to."""
    return int(output_block // (config["num_res_blocks"][0] + 1))


def _prediction(model: "ModelPatcher") -> Prediction:
    """ComfyUI builds a model's sampling class from two bases: its schedule and what the network predicts."""
    bases = type(model.get_model_object("model_sampling")).__bases__
    known = [PREDICTIONS[base] for base in bases if base in PREDICTIONS]
    if not known:
        found = " and ".join(base.__name__ for base in bases)
        raise UnsupportedModel(
            f"model is sampled as {found}; epsilon (EPS) and v prediction are supported: load a Stable Diffusion 1.x, "
            "2.x or XL checkpoint"
        )
    return known[0]


@contextmanager
def bridged(model: "ModelPatcher") -> Iterator[BridgedModel]:
    """The MODEL, loaded with its patches, as a UNet that gradients go through; outside inference mode."""
    config = unet_config(model)
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
        schedule = type(sampling).__bases__[0].__name__
        advice = (
            "connect it without that sampling patch"
            if "model_sampling" in model.object_patches
            else "load a checkpoint with a discrete schedule, such as Stable Diffusion 1.x, 2.x or SDXL base"
        )
        raise UnsupportedModel(f"model is sampled as {schedule}; {advice}")
    _warn_of_patches(model)
    loaded = _with_weights_in_memory(model)
    comfy.model_management.load_models_gpu([loaded], memory_required=ALL_MEMORY, force_full_load=True)
    network, device = loaded.model.diffusion_model, loaded.load_device
    dtype = loaded.model.manual_cast_dtype or loaded.model.get_dtype()
    with torch.inference_mode(False), torch.enable_grad():
        state = computing_weights(network, device, dtype)
        unet = build_shared_unet(state, config, comfy.utils.unet_to_diffusers(config))
        sigmas = sampling.sigmas.detach().cpu().clone()
        yield BridgedModel(unet, 1 / (1 + sigmas**2), _prediction(model), device)


def _with_weights_in_memory(model: "ModelPatcher") -> "ModelPatcher":
    """Since 0.16 ComfyUI may read a weight only when its layer runs; a clone without that has them all."""
    is_dynamic = getattr(model, "is_dynamic", None)
    if not is_dynamic or not is_dynamic():
        return model
    try:
        return model.clone(disable_dynamic=True)  # type: ignore[call-arg]
    except RuntimeError as error:
        raise UnsupportedModel(
            f"model cannot be loaded whole ({error}); load it with Load Checkpoint, or start ComfyUI with "
            "--disable-dynamic-vram"
        ) from error


def _warn_of_patches(model: "ModelPatcher") -> None:
    """Say what of the MODEL is not in its weights, and so not in the bridge."""
    options = model.model_options.get("transformer_options", {})
    wrappers = [*model.wrappers.values(), *options.get("wrappers", {}).values()]
    unseen = {
        "attention or block patches": any(options.get(kind) for kind in ("patches", "patches_replace")),
        "wrappers (such as LoRA Blend)": any(wrappers) or "model_function_wrapper" in model.model_options,
        "injections (such as LoRAs in bypass mode)": any(model.injections.values()),
        "replaced layers": any(key.startswith("diffusion_model.") for key in model.object_patches),
    }
    if any(unseen.values()):
        names = ", ".join(name for name, there in unseen.items() if there)
        logging.warning(
            f"Morph & Drag: the MODEL has {names}. This node works with the model's weights, LoRAs included; the rest "
            "has no effect in it, only in KSampler"
        )


def check_latent(model: "ModelPatcher", samples: Tensor, name: str) -> None:
    """Raise when a latent (B, C, H, W) was made for another model. name: of the input."""
    channels = unet_config(model)["in_channels"]
    if samples.shape[1] != channels:
        raise InvalidInput(
            f"{name} has {samples.shape[1]} channels, model takes {channels}; "
            "encode the image with this model's own VAE"
        )


def scaled_latent(model: "ModelPatcher", samples: Tensor) -> Tensor:
    """A LATENT's samples as the UNet takes them, as an ordinary tensor on the model's device."""
    return model.model.process_latent_in(samples.detach().clone()).to(model.load_device, torch.float32)
