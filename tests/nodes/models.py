"""Small models of other kinds than the toy, of ComfyUI's own classes, with random weights."""

from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.supported_models
import torch
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.model_base import BaseModel, ModelType
from comfy.model_patcher import ModelPatcher

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2, 2],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [1] * 6,
    "transformer_depth_output": [1] * 9,
    "transformer_depth_middle": 1,
    "context_dim": 64,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}
DIT = {
    "in_channels": 4,
    "patch_size": 2,
    "depth": 1,
    "input_size": 16,
    "adm_in_channels": 32,
    "pos_embed_max_size": 16,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 64, "out_features": 64}},
}


POOLED_WIDTH = 64


class _SD2(comfy.supported_models.SD20):
    unet_extra_config = {"num_heads": -1, "num_head_channels": 16}


class _SDXL(comfy.supported_models.SDXL):
    unet_extra_config = {"num_heads": -1, "num_head_channels": 16}


def patcher(
    config_class: type,
    unet_config: dict[str, Any],
    kind: ModelType,
    base_class: type = BaseModel,
    **network: Any,
) -> ModelPatcher:
    config = config_class({**unet_config, "dtype": torch.float32})
    config.set_inference_dtype(torch.float32, None)
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(0)
        base = base_class(config, kind, **network).eval()
        for parameter in base.diffusion_model.parameters():  # ComfyUI leaves them uninitialised, or zero
            torch.nn.init.normal_(parameter, std=0.1)
        for name, buffer in base.diffusion_model.named_buffers():
            if name == "pos_embed":  # of Stable Diffusion 3, uninitialised too
                torch.nn.init.normal_(buffer, std=0.1)
    device = comfy.model_management.get_torch_device()
    return ModelPatcher(base, load_device=device, offload_device=comfy.model_management.unet_offload_device())


def sd1() -> ModelPatcher:
    """As Stable Diffusion 1: 8 heads in all blocks, convolutions around the transformers."""
    return patcher(comfy.supported_models.SD15, UNET, ModelType.EPS)


def sd2() -> ModelPatcher:
    """As Stable Diffusion 2: a width of heads, linear layers around the transformers, v prediction."""
    return patcher(_SD2, {**UNET, "use_linear_in_transformer": True}, ModelType.V_PREDICTION)


def inpainting() -> ModelPatcher:
    """Stable Diffusion for inpainting: the latent, a mask and a masked latent come in."""
    model = patcher(comfy.supported_models.SD15, {**UNET, "in_channels": 9}, ModelType.EPS)
    model.model.set_inpaint()
    return model


def sdxl(kind: ModelType = ModelType.EPS) -> ModelPatcher:
    """As SDXL: a UNet that takes pooled text and six sizes as well, with deeper transformers further in."""
    config = {
        **UNET,
        "adm_in_channels": POOLED_WIDTH + 6 * 256,
        "num_classes": "sequential",
        "use_linear_in_transformer": True,
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "transformer_depth_middle": 2,
    }
    return patcher(_SDXL, config, kind, comfy.model_base.SDXL)


def cosxl() -> ModelPatcher:
    """SDXL on a continuous schedule, with v prediction."""
    return sdxl(ModelType.V_PREDICTION_EDM)


def playground() -> ModelPatcher:
    """SDXL that predicts as Karras et al. (2022) do."""
    return sdxl(ModelType.EDM)


def pruned() -> ModelPatcher:
    """As SSD-1B: layers of an SDXL taken out here and there."""
    config = {**UNET, "transformer_depth_output": [1, 1, 1, 0, 1, 1, 1, 1, 1], "use_linear_in_transformer": True}
    return patcher(_SD2, config, ModelType.EPS)


def dit() -> ModelPatcher:
    """As Stable Diffusion 3: a transformer."""
    return patcher(comfy.supported_models.SD3, DIT, ModelType.FLOW, unet_model=OpenAISignatureMMDITWrapper)


def flow() -> ModelPatcher:
    """A UNet that is sampled by flow matching."""
    return patcher(comfy.supported_models.SD15, UNET, ModelType.FLOW)


def stored_as(model: ModelPatcher, dtype: torch.dtype) -> ModelPatcher:
    """The same weights in another type, computed with in float32: what ComfyUI calls manual cast."""
    source = model.model
    config = type(source.model_config)({**source.model_config.unet_config, "dtype": dtype})
    config.set_inference_dtype(dtype, torch.float32)
    with torch.inference_mode():
        base = type(source)(config, source.model_type).eval()
        base.diffusion_model.load_state_dict(source.diffusion_model.state_dict())
    return ModelPatcher(base, load_device=model.load_device, offload_device=model.offload_device)


def sampled_as(model: ModelPatcher, *bases: type) -> ModelPatcher:
    """The MODEL with another `model_sampling`, as the nodes ModelSamplingDiscrete and ModelSamplingContinuousEDM do."""
    patched = model.clone()
    patched.add_object_patch("model_sampling", type("ModelSamplingAdvanced", bases, {})(model.model.model_config))
    return patched
