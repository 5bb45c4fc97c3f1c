"""Networks of the published shapes, and small ones like them, of ComfyUI's own classes, with random weights."""

import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
PIXELS = 8  # a side of a latent's cell


@dataclass(frozen=True)
class Kind:
    """A family's network and what goes into it.

    config, base: names of its classes in `comfy.supported_models` and `comfy.model_base`. prediction: a name in
    `ModelType`. side: of the image in pixels. tokens, text_width, pooled_width: of a prompt; pooled_width 0: none.
    """

    title: str
    config: str
    base: str
    prediction: str
    network: dict[str, Any]
    side: int
    tokens: int
    text_width: int
    pooled_width: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    is_unet: bool = False

    def small(self) -> "Kind":
        """Few and narrow layers, on a small image."""
        return replace(self, **SMALL[self.config])


UNET = {
    **{"image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False},
    **{"use_temporal_attention": False, "adm_in_channels": None, "transformer_depth_middle": 1},
}
SD15 = {
    **{**UNET, "model_channels": 320, "channel_mult": [1, 2, 4, 4], "num_res_blocks": [2] * 4, "context_dim": 768},
    **{"transformer_depth": [1] * 6 + [0] * 2, "transformer_depth_output": [1] * 9 + [0] * 3},
    "use_linear_in_transformer": False,
}
SDXL = {
    **{**UNET, "model_channels": 320, "channel_mult": [1, 2, 4], "num_res_blocks": [2] * 3, "context_dim": 2048},
    **{"transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_output": [0] * 3 + [2] * 3 + [10] * 3},
    **{"transformer_depth_middle": 10, "use_linear_in_transformer": True},
    **{"adm_in_channels": 1280 + 6 * 256, "num_classes": "sequential"},
}
FLUX = {
    **{"image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "theta": 10000},
    **{"hidden_size": 3072, "num_heads": 24, "mlp_ratio": 4.0, "depth": 19, "depth_single_blocks": 38},
    **{"axes_dim": [16, 56, 56], "context_in_dim": 4096, "vec_in_dim": 768, "qkv_bias": True, "guidance_embed": True},
}
Z_IMAGE = {  # but for details of its modulation, as Lumina 2, whose class it is
    **{"image_model": "lumina2", "in_channels": 16, "patch_size": 2, "dim": 3840, "n_layers": 30, "n_heads": 30},
    **{"n_kv_heads": 30, "n_refiner_layers": 2, "ffn_dim_multiplier": 8 / 12, "cap_feat_dim": 2560, "qk_norm": True},
    **{"axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512]},
}

KINDS = {
    "sdxl": Kind("SDXL", "SDXL", "SDXL", "EPS", SDXL, 1024, 77, 2048, 1280, is_unet=True),
    "sd15": Kind("SD 1.5", "SD15", "BaseModel", "EPS", SD15, 512, 77, 768, is_unet=True),
    "flux": Kind("Flux.1", "Flux", "Flux", "FLUX", FLUX, 1024, 256, 4096, 768, {"guidance": 3.5}),
    "z_image": Kind("Z-Image", "Lumina2", "Lumina2", "FLOW", Z_IMAGE, 1024, 256, 2560),
}
SMALL_UNET = {"channel_mult": [1, 2, 2], "num_res_blocks": [2] * 3, "context_dim": 64}
SMALL = {
    "SD15": {
        **{"side": 128, "text_width": 64},
        "network": {
            **{**SD15, **SMALL_UNET, "model_channels": 32},
            **{"transformer_depth": [1] * 6, "transformer_depth_output": [1] * 9},
        },
    },
    "SDXL": {
        **{"side": 128, "text_width": 64, "pooled_width": 64},
        "network": {
            **{**SDXL, **SMALL_UNET, "model_channels": 64, "adm_in_channels": 64 + 6 * 256},
            **{"transformer_depth": [0, 0, 1, 1, 1, 1], "transformer_depth_output": [0] * 3 + [1] * 6},
            "transformer_depth_middle": 1,
        },
    },
    "Flux": {
        **{"side": 128, "text_width": 96, "pooled_width": 64},
        "network": {
            **{**FLUX, "hidden_size": 128, "num_heads": 4, "depth": 2, "depth_single_blocks": 2},
            **{"axes_dim": [8, 12, 12], "context_in_dim": 96, "vec_in_dim": 64},
        },
    },
    "Lumina2": {
        **{"side": 128, "text_width": 96},
        "network": {
            **{**Z_IMAGE, "dim": 128, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 4, "n_kv_heads": 4},
            **{"axes_dims": [8, 12, 12], "axes_lens": [300, 64, 64], "cap_feat_dim": 96},
        },
    },
}


def new_model(kind: Kind, precision: str) -> Any:
    """A MODEL on the device that computes. The same seed gives each precision the same weights, rounded."""
    from comfy.model_base import ModelType
    from comfy.model_management import get_torch_device
    from comfy.model_patcher import ModelPatcher

    device, dtype = get_torch_device(), PRECISIONS[precision]
    config = _named("comfy.supported_models", kind.config)({**_configuration(kind), "dtype": dtype})
    config.set_inference_dtype(dtype, None)
    with torch.inference_mode():
        base = _named("comfy.model_base", kind.base)(config, ModelType[kind.prediction], device=device).eval()
        draw(base.diffusion_model.named_parameters(), torch.Generator(device).manual_seed(0))
    return ModelPatcher(base.to(device), load_device=device, offload_device=device)


def _configuration(kind: Kind) -> dict[str, Any]:
    """The network's, with what ComfyUI since 0.4 asks of a Flux beside it."""
    fields = _named("comfy.ldm.flux.model", "FluxParams").__dataclass_fields__
    return {**({"txt_ids_dims": []} if kind.config == "Flux" and "txt_ids_dims" in fields else {}), **kind.network}


def draw(weights: Iterable[tuple[str, Tensor]], generator: torch.Generator) -> None:
    """Matrices that keep the size of what goes through, norms of 1, biases of 0."""
    for name, weight in weights:
        if weight.ndim < 2:
            weight.fill_(0 if name.endswith("bias") else 1)
        else:
            std = math.prod(weight.shape[1:]) ** -0.5
            weight.copy_(torch.empty(weight.shape, device=weight.device).normal_(0, std, generator=generator))


def bytes_of(network: nn.Module) -> int:
    """Of its weights."""
    return sum(weight.numel() * weight.element_size() for weight in network.parameters())


def prompt_of(kind: Kind) -> list[Any]:
    """A CONDITIONING of random values."""
    options = dict(kind.options)
    if kind.pooled_width:
        options["pooled_output"] = normal(1, kind.pooled_width, seed=1)
    if kind.config == "Lumina2":
        options["attention_mask"] = torch.ones(1, kind.tokens, dtype=torch.long)
    return [[normal(1, kind.tokens, kind.text_width, seed=2), options]]


def latent_of(kind: Kind, model: Any, rows: int = 1, deviation: float = 1.0) -> dict[str, Tensor]:
    """A LATENT of random values, of this deviation where the network takes it."""
    latent_format, side = model.get_model_object("latent_format"), kind.side // PIXELS
    values = normal(rows, latent_format.latent_channels, side, side, seed=3)
    return {"samples": latent_format.process_out(values * deviation)}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _named(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
