"""Small transformers of ComfyUI's own classes, in the shapes of the families that it ships, with random weights."""

import math
from collections.abc import Callable
from typing import Any

import comfy.model_base
import comfy.supported_models
import torch
from comfy.ldm.chroma.model import ChromaParams
from comfy.ldm.flux.model import FluxParams
from comfy.model_base import ModelType
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from morph_tests.nodes import models
from morph_tests.nodes.models import patcher

TEXT_WIDTH, POOLED_WIDTH = 96, 64
QWEN_TEXT_WIDTH = 3584  # which a detected configuration leaves to the network
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": POOLED_WIDTH,
    "context_in_dim": TEXT_WIDTH,
    "hidden_size": 128,
    "mlp_ratio": 4.0,
    "num_heads": 4,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "guidance_embed": True,
}
SD3 = {
    "in_channels": 16,
    "out_channels": 16,
    "depth": 2,
    "input_size": None,
    "adm_in_channels": POOLED_WIDTH,
    "patch_size": 2,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": TEXT_WIDTH, "out_features": 128},
    },
    "pos_embed_max_size": 48,
    "pos_embed_scaling_factor": None,
    "num_patches": 48 * 48,
    "qk_norm": "rms",
    "x_block_self_attn_layers": [],
}
QWEN = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "num_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 4,
    "joint_attention_dim": TEXT_WIDTH,
    "axes_dims_rope": [8, 12, 12],
}
LUMINA2 = {
    "image_model": "lumina2",
    "in_channels": 16,
    "dim": 128,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 4,
    "n_kv_heads": 4,
    "axes_dims": [8, 12, 12],
    "axes_lens": [300, 64, 64],
    "cap_feat_dim": TEXT_WIDTH,
    "qk_norm": True,
    "patch_size": 2,
}
CHROMA = {
    **{name: value for name, value in FLUX.items() if name not in ("vec_in_dim", "guidance_embed")},
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": 128,
    "hidden_dim": 64,
    "n_layers": 1,
}


NEWER = {"txt_ids_dims": [], "vec_in_dim": None}  # what ComfyUI's detection adds to these families' since 0.4


def known(config: dict[str, Any], parameters: type) -> dict[str, Any]:
    """A configuration with those of `NEWER` that this ComfyUI's parameters have."""
    return {**{name: value for name, value in NEWER.items() if name in parameters.__dataclass_fields__}, **config}


def flux() -> ModelPatcher:
    """As Flux.1 [dev]: two kinds of blocks, guidance embedded."""
    return patcher(comfy.supported_models.Flux, known(FLUX, FluxParams), ModelType.FLUX, comfy.model_base.Flux)


def sd3() -> ModelPatcher:
    """As Stable Diffusion 3.5: joint blocks, on a shifted schedule."""
    return patcher(comfy.supported_models.SD3, SD3, ModelType.FLOW, comfy.model_base.SD3)


def qwen() -> ModelPatcher:
    """As Qwen-Image: latents with a time axis."""
    return patcher(comfy.supported_models.QwenImage, QWEN, ModelType.FLUX, comfy.model_base.QwenImage)


def lumina2() -> ModelPatcher:
    """As Lumina 2 and Z-Image: one stream of text and image, refined apart first."""
    return patcher(comfy.supported_models.Lumina2, LUMINA2, ModelType.FLOW, comfy.model_base.Lumina2)


def z_image(pad: int) -> ModelPatcher:
    """As Z-Image, of newer ComfyUIs: Lumina 2's network, whose tokens are padded to a multiple."""
    config = {**LUMINA2, "pad_tokens_multiple": pad}
    network = patcher(comfy.supported_models.Lumina2, config, ModelType.FLOW, comfy.model_base.Lumina2)
    with torch.inference_mode():
        for seed, name in enumerate(("x_pad_token", "cap_pad_token")):
            token = getattr(network.model.diffusion_model, name)
            token.copy_(normal(*token.shape, seed=seed))
    return network


def chroma() -> ModelPatcher:
    """As Chroma: Flux's blocks, modulated by a network of their own."""
    return patcher(comfy.supported_models.Chroma, known(CHROMA, ChromaParams), ModelType.FLUX, comfy.model_base.Chroma)


FAMILIES: dict[str, Callable[[], ModelPatcher]] = {
    "Flux": flux,
    "SD 3.5": sd3,
    "Qwen-Image": qwen,
    "Lumina 2": lumina2,
    "Chroma": chroma,
    "a UNet": models.flow,
}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompt_for(model: ModelPatcher, seed: int = 1, tokens: int = 7, **options: Any) -> list[Any]:
    """A CONDITIONING as the family's CLIP gives it. options: as nodes set them, such as guidance."""
    config = model.model.model_config.unet_config
    text, pooled = text_width(config), config.get("vec_in_dim") or config.get("adm_in_channels") or POOLED_WIDTH
    mask = torch.ones(1, tokens, dtype=torch.long)
    extra = {"pooled_output": normal(1, pooled, seed=seed + 10), "attention_mask": mask, "guidance": 1.0}
    if config.get("image_model") != "lumina2":
        del extra["attention_mask"]
    return [[normal(1, tokens, text, seed=seed), {**extra, **options}]]


def text_width(config: dict[str, Any]) -> int:
    """Of the text that a network takes, by its configuration."""
    if embedder := config.get("context_embedder_config"):
        return embedder["params"]["in_features"]
    names = ("context_dim", "context_in_dim", "joint_attention_dim", "cap_feat_dim")
    return next((config[name] for name in names if name in config), QWEN_TEXT_WIDTH)


def image_tokens(model: ModelPatcher) -> int:
    """How many tokens the network makes of `image_for`."""
    config = model.model.model_config.unet_config
    height, width = size_for(model)
    count = math.prod(-(-side // config.get("patch_size", 2)) for side in (height, width))
    return padded(model, count)


def padded(model: ModelPatcher, tokens: int) -> int:
    """With those that Z-Image adds."""
    multiple = model.model.model_config.unet_config.get("pad_tokens_multiple") or 1
    return -(-tokens // multiple) * multiple


def size_for(model: ModelPatcher) -> tuple[int, int]:
    """Of latents: never as many tokens as the text's."""
    return (8, 12) if padded(model, 1) < 32 else (12, 12)


def image_for(model: ModelPatcher, seed: int = 2) -> dict[str, Any]:
    """A LATENT of unit variance where the network takes it, of the family's own channels and axes."""
    latent_format = model.get_model_object("latent_format")
    axes = [1] * (latent_format.latent_dimensions - 2) + list(size_for(model))
    return {"samples": latent_format.process_out(normal(1, latent_format.latent_channels, *axes, seed=seed))}
