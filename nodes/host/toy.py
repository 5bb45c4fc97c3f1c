"""The toy model as ComfyUI's own MODEL, CLIP and VAE."""

import functools
from typing import Any

import comfy.clip_model
import comfy.diffusers_convert
import comfy.latent_formats
import comfy.ldm.flux.model
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from safetensors.torch import load_file

from ...morph_core.models.transformer import PATCH
from ...morph_core.toy import model as toy
from ...morph_core.toy import transformer
from ...morph_core.toy.words import END, MAX_TOKENS, START, WORDS, word_tokens

PIXELS_PER_LATENT = 4
UNKNOWN_BEFORE_0_4: dict[str, list[int]] = {"txt_ids_dims": []}  # of a Flux transformer's configuration


class _ToyLatents(comfy.latent_formats.LatentFormat):
    scale_factor = toy.SCALE_FACTOR

    def __init__(self) -> None:
        self.latent_rgb_factors, self.latent_rgb_factors_bias = toy.preview_factors()


class ToyUnet(comfy.supported_models.SD15):
    """The toy UNet in ComfyUI's terms; `toy.new_unet` says the same in diffusers'."""

    unet_config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": toy.UNET_WIDTHS[0],
        "channel_mult": [width // toy.UNET_WIDTHS[0] for width in toy.UNET_WIDTHS],
        "num_res_blocks": [1, 1, 1],
        "transformer_depth": [1, 1, 0],
        "transformer_depth_output": [1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "context_dim": toy.TEXT_WIDTH,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
    }
    unet_extra_config = {"num_heads": -1, "num_head_channels": toy.HEAD_WIDTH}
    latent_format = _ToyLatents


class ToyTransformer(comfy.supported_models.FluxSchnell):
    """The toy transformer in ComfyUI's terms; `transformer.new_transformer` says the same in diffusers'."""

    unet_config = {
        **{
            name: value
            for name, value in UNKNOWN_BEFORE_0_4.items()
            if name in comfy.ldm.flux.model.FluxParams.__dataclass_fields__
        },
        "image_model": "flux",
        "in_channels": transformer.LATENT_CHANNELS,
        "out_channels": transformer.LATENT_CHANNELS,
        "patch_size": PATCH,
        "vec_in_dim": toy.TEXT_WIDTH,
        "context_in_dim": toy.TEXT_WIDTH,
        "hidden_size": transformer.HEADS * transformer.HEAD_WIDTH,
        "num_heads": transformer.HEADS,
        "mlp_ratio": 4.0,
        "depth": transformer.DOUBLE_BLOCKS,
        "depth_single_blocks": transformer.SINGLE_BLOCKS,
        "axes_dim": list(transformer.ROTARY_WIDTHS),
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": False,
    }
    latent_format = _ToyLatents


class _Words:
    """What ComfyUI's SDTokenizer asks of a tokenizer."""

    @classmethod
    def from_pretrained(cls, path: str, **_: Any) -> "_Words":
        return cls()

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [START, *word_tokens(text), END]}

    def get_vocab(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(WORDS)}


class _Tokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict[str, Any] | None = None) -> None:
        table = functools.partial(
            comfy.sd1_clip.SDTokenizer,
            tokenizer_path="",
            tokenizer_class=_Words,
            max_length=MAX_TOKENS,
            embedding_size=toy.TEXT_WIDTH,
        )
        super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=table)


class _TextModel(comfy.clip_model.CLIPTextModel):
    """ComfyUI's CLIP text model with the toy's vocabulary; the class has CLIP's size written in."""

    def __init__(self, config: dict[str, Any], dtype: Any, device: Any, operations: Any) -> None:
        super().__init__(config, dtype, device, operations)
        table = operations.Embedding(config["vocab_size"], config["hidden_size"], dtype=dtype, device=device)
        self.set_input_embeddings(table)


class _TextEncoder(comfy.sd1_clip.SDClipModel):
    def __init__(self, device: str = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            max_length=MAX_TOKENS,
            textmodel_json_config={**toy.TextEncoder.config, "eos_token_id": END},
            model_class=_TextModel,
            special_tokens={"start": START, "end": END, "pad": END},
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class _Clip(comfy.sd1_clip.SD1ClipModel):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(clip_model=_TextEncoder, **kwargs)


def _weights(name: str) -> dict[str, torch.Tensor]:
    return {key: value.float() for key, value in load_file(toy.WEIGHTS / f"{name}.safetensors").items()}


def _unet() -> tuple[ToyUnet, dict[str, torch.Tensor]]:
    config = ToyUnet(ToyUnet.unet_config)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    return config, {names[key]: value for key, value in _weights("unet").items()}


def _transformer() -> tuple[ToyTransformer, dict[str, torch.Tensor]]:
    state = comfy.model_detection.convert_diffusers_mmdit(_weights("transformer"), "")
    return ToyTransformer(ToyTransformer.unet_config), state


def load_model(network: toy.Network, disable_dynamic: bool = True) -> comfy.model_patcher.ModelPatcher:
    """disable_dynamic: newer ComfyUIs pass it when they load the model anew; it is always loaded whole."""
    config, state = _unet() if network == "UNet" else _transformer()
    config.set_inference_dtype(torch.float32, None)
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    model = config.get_model(state, "", offload_device)
    model.load_model_weights(state, "")
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)
    patcher.cached_patcher_init = (load_model, (network,))  # for newer ComfyUIs' nodes for several GPUs
    return patcher


def load_clip() -> comfy.sd.CLIP:
    target = comfy.supported_models_base.ClipTarget(_Tokenizer, _Clip)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    clip.load_sd(_weights("text_encoder"))
    return clip


def load_vae() -> comfy.sd.VAE:
    widths = toy.AUTOENCODER_WIDTHS
    ddconfig = {
        "double_z": True,
        "z_channels": 4,
        "resolution": toy.IMAGE_SIZE,
        "in_channels": 3,
        "out_ch": 3,
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    vae = comfy.sd.VAE(
        sd=_original_vae_keys(_weights("autoencoder")),
        config={"params": {"ddconfig": ddconfig, "embed_dim": 4}},
        dtype=torch.float32,
    )
    vae.downscale_ratio = vae.upscale_ratio = PIXELS_PER_LATENT
    return vae


def _original_vae_keys(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """diffusers' autoencoder keys as the original's. ComfyUI's converter counts four levels from the top."""
    missing = 4 - len(toy.AUTOENCODER_WIDTHS)
    shifted = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[1] == "up_blocks":
            parts[2] = str(int(parts[2]) + missing)
        shifted[".".join(parts)] = value
    return comfy.diffusers_convert.convert_vae_state_dict(shifted)  # type: ignore[no-any-return]
