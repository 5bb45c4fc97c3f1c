"""Load Toy Model and Toy Drawing: everything a demo needs, with nothing downloaded."""

import functools
from typing import Any

import comfy.clip_model
import comfy.diffusers_convert
import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from comfy_api.latest import io, ui
from safetensors.torch import load_file

from ..morph_core.toy import model as toy
from ..morph_core.toy.drawing import BACKGROUNDS, FUR_COLOURS, KINDS, MOODS, one_drawing
from ..morph_core.toy.words import END, MAX_TOKENS, START, WORDS, word_tokens
from .host.adapters import CATEGORY
from .host.inputs import checked
from .host.versions import schema

PIXELS_PER_LATENT = 4
LARGEST_DRAWING = 2048  # pixels a side


class _ToyLatents(comfy.latent_formats.LatentFormat):
    scale_factor = toy.SCALE_FACTOR

    def __init__(self) -> None:
        self.latent_rgb_factors, self.latent_rgb_factors_bias = toy.preview_factors()


class _ToyConfig(comfy.supported_models.SD15):
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


class LoadToyModel(io.ComfyNode):
    """The bundled model as genuine MODEL, CLIP and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        known = ", ".join(WORDS[2:])
        return schema(
            node_id="MorphDragLoadToyModel",
            display_name="Load Toy Model",
            category=f"{CATEGORY}/toy",
            search_aliases=["demo", "toy"],
            description=(
                f"A tiny Stable Diffusion that draws animal faces, {toy.IMAGE_SIZE} pixels a side. It comes with the "
                f"pack: nothing to download. Prompts like 'a happy red cat on mint'; the words it knows: {known}."
            ),
            inputs=[],
            outputs=[
                io.Model.Output("model", display_name="MODEL", tooltip="For KSampler and every node here."),
                io.Clip.Output("clip", display_name="CLIP", tooltip="For CLIP Text Encode."),
                io.Vae.Output("vae", display_name="VAE", tooltip="For VAE Encode and VAE Decode."),
            ],
        )

    @classmethod
    @checked
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(_load_model(), _load_clip(), _load_vae())


def _weights(name: str) -> dict[str, torch.Tensor]:
    return {key: value.float() for key, value in load_file(toy.WEIGHTS / f"{name}.safetensors").items()}


def _load_model(disable_dynamic: bool = True) -> comfy.model_patcher.ModelPatcher:
    """disable_dynamic: newer ComfyUIs name it when they ask for the model anew; it is always loaded whole."""
    config = _ToyConfig(_ToyConfig.unet_config)
    config.set_inference_dtype(torch.float32, None)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    state = {names[key]: value for key, value in _weights("unet").items()}
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    model = config.get_model(state, "", offload_device)
    model.load_model_weights(state, "")
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)
    patcher.cached_patcher_init = (_load_model, ())  # for newer ComfyUIs' nodes for several GPUs
    return patcher


def _load_clip() -> comfy.sd.CLIP:
    target = comfy.supported_models_base.ClipTarget(_Tokenizer, _Clip)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    clip.load_sd(_weights("text_encoder"))
    return clip


def _load_vae() -> comfy.sd.VAE:
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


class ToyDrawing(io.ComfyNode):
    """An image and its caption for the toy model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragToyDrawing",
            display_name="Toy Drawing",
            category=f"{CATEGORY}/toy",
            search_aliases=["demo", "toy", "animal"],
            has_intermediate_output=True,  # its picture is shown again when it comes from the cache
            description=(
                "Draws an animal's face of the kind the toy model was trained on, at any size, and says what it drew."
            ),
            inputs=[
                io.Combo.Input("animal", options=list(KINDS), tooltip="Decides the ears."),
                io.Combo.Input("colour", options=list(FUR_COLOURS), tooltip="Of the fur."),
                io.Combo.Input("mood", options=list(MOODS), tooltip="Decides mouth and brows."),
                io.Combo.Input("background", options=list(BACKGROUNDS), tooltip="Its colour."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Decides position, size, tilt, gaze and proportions.",
                ),
                io.Int.Input(
                    "size",
                    default=toy.IMAGE_SIZE,
                    min=toy.IMAGE_SIZE,
                    max=LARGEST_DRAWING,
                    step=8,
                    optional=True,
                    tooltip=(
                        f"Side in pixels: {toy.IMAGE_SIZE} for the toy model, 512 for Stable Diffusion 1.5, 1024 for "
                        "SDXL. The drawing is the same and its edges stay sharp."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="IMAGE", tooltip="The drawing."),
                io.String.Output("caption", display_name="caption", tooltip="For CLIP Text Encode's text."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, animal: str, colour: str, mood: str, background: str, seed: int, size: int = toy.IMAGE_SIZE
    ) -> io.NodeOutput:
        drawing = one_drawing(animal, colour, mood, background, torch.Generator().manual_seed(seed))
        image = drawing.render(size).movedim(1, -1)
        return io.NodeOutput(image, drawing.captions[0], ui=ui.PreviewImage(image, cls=cls))
