"""MODEL to what the core works on. The only file that looks inside ComfyUI's model objects."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ...morph_core.denoise import Denoise
from ...morph_core.errors import InvalidInput, UnsupportedModel
from ...morph_core.models.text import Text
from ...morph_core.models.unet import ATTENTION_PROJECTIONS
from .checkpointing import checkpointed
from .model_sampling import ModelSampling
from .shadow import pytorch_attention, shadow_model

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


ALL_MEMORY = 1e20  # bytes; what gradients need is not known beforehand, so every other model makes room
CHECKPOINTED = ("ResBlock", "TransformerBlock", "StreamBlock", "JointBlock")  # ends of the names of ComfyUI's classes
TRANSFORMER_PROJECTION = re.compile(
    r"(attn\d?|attention)\.(qkv|proj|out|[qkvo]|to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)$"
    r"|single_blocks\.\d+\.linear[12]$"  # of Flux and Chroma: projections fused with the block's MLP
)
DOWN_UP_MIDDLE = {"down": 0, "up": 1, "mid": 2}  # the order in which diffusers has a UNet's parts


@dataclass(frozen=True)
class ShadowBackbone:
    """A MODEL as the core takes it: its network's shadow, and ComfyUI's own ways of calling it.

    model: its `apply_model` scales, times, predicts and conditions as where the MODEL is sampled.
    """

    model: comfy.model_base.BaseModel
    dtype: torch.dtype
    device: torch.device

    @property
    def network(self) -> nn.Module:
        """ComfyUI's own class."""
        return self.model.diffusion_model  # type: ignore[no-any-return]

    @property
    def schedule(self) -> ModelSampling:
        """The MODEL's own."""
        return ModelSampling(self.model.model_sampling)

    def denoiser(self, text: Text) -> Denoise:
        """The network, called with this text. added: what ComfyUI makes of a CONDITIONING beside the embeddings."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            rows = len(x)
            inputs = {name: _rows(value, rows) for name, value in {"c_crossattn": text.context, **text.added}.items()}
            options = {"optimized_attention_override": pytorch_attention}  # anew: networks write into it
            return self.model.apply_model(x, sigma.expand(rows), transformer_options=options, **inputs)  # type: ignore[no-any-return]

        return denoise

    def attention_projections(self) -> dict[str, nn.Linear]:
        """Of a UNet by diffusers' paths and in diffusers' order, so that a seed gives the LoRA that it gives there."""
        if not isinstance(self.network, UNetModel):
            return transformer_projections(self.network)
        names = diffusers_paths(self.model.model_config.unet_config)
        layers = {
            names.get(path, path): layer
            for path, layer in self.network.named_modules()
            if path.endswith(ATTENTION_PROJECTIONS)
        }
        return dict(sorted(layers.items(), key=lambda item: _place(item[0])))

    def up_blocks(self) -> Sequence[nn.Module]:
        """Their last layers: what a block returns, they return. Raises `UnsupportedModel` for other networks."""
        if not isinstance(self.network, UNetModel):
            raise UnsupportedModel(
                f"model is a {type(self.network).__name__}, which has no up blocks whose features a drag could follow; "
                "load a Stable Diffusion 1.x, 2.x or XL checkpoint"
            )
        blocks = self.model.model_config.unet_config["num_res_blocks"]
        ends: list[nn.Module] = []
        end = -1
        for residual_blocks in reversed(blocks):
            end += residual_blocks + 1
            ends.append(self.network.output_blocks[end][-1])  # type: ignore[index, arg-type]
        return ends

    def enable_gradient_checkpointing(self) -> None:
        """Keep only what goes into each block, and compute the rest twice."""
        for layer in self.network.modules():
            if type(layer).__name__.endswith(CHECKPOINTED):
                layer.forward = checkpointed(layer)  # type: ignore[method-assign]


def _rows(value: Any, rows: int) -> Any:
    """What is said to one row, said to each."""
    return comfy.utils.repeat_to_batch_size(value, rows) if isinstance(value, Tensor) else value


def _place(path: str) -> tuple[Any, ...]:
    """Where diffusers has the attention that a projection belongs to; its own projections stay in their order."""
    stage, _, attention = path.rpartition(".to_")[0].partition("_block")
    return DOWN_UP_MIDDLE.get(stage, 0), [int(number) for number in re.findall(r"\d+", attention)]


def diffusers_paths(config: dict[str, Any]) -> dict[str, str]:
    """Of a UNet's layers: ComfyUI's path to diffusers'."""
    paths = comfy.utils.unet_to_diffusers(config).items()
    return {own.rpartition(".")[0]: path.rpartition(".")[0] for path, own in paths if own.endswith(".weight")}


def transformer_projections(network: nn.Module) -> dict[str, nn.Linear]:
    """The attention projections of a transformer, fused ones included, by its own paths, which LoRA files use.

    Raises `UnsupportedModel` where there are none by any name that is known.
    """
    layers = {
        path: layer
        for path, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and TRANSFORMER_PROJECTION.search(path)
    }
    if not layers:
        raise UnsupportedModel(
            f"model's network, {type(network).__name__}, has no attention projections by known names"
        )
    return layers


def unet_config(model: "ModelPatcher", otherwise: str = "") -> dict[str, Any]:
    """ComfyUI's UNet configuration. otherwise: what else to do than to load one.

    Raises `UnsupportedModel` when the MODEL is not a UNet.
    """
    network = model.model.diffusion_model
    if not isinstance(network, UNetModel):
        raise UnsupportedModel(
            f"model is a {type(network).__name__}, not a UNet; load a Stable Diffusion 1.x, 2.x or XL checkpoint"
            f"{otherwise}"
        )
    return model.model.model_config.unet_config  # type: ignore[no-any-return]


def up_block_of(output_block: int, config: dict[str, Any]) -> int:
    """Which up block (diffusers' numbering) one of ComfyUI's output blocks belongs to."""
    return int(output_block // (config["num_res_blocks"][0] + 1))


@contextmanager
def shadowed(model: "ModelPatcher") -> Iterator[ShadowBackbone]:
    """The MODEL, loaded with its patches, as a backbone that gradients go through; outside inference mode."""
    sampling = model.get_model_object("model_sampling")
    _warn_of_patches(model)
    loaded = _with_weights_in_memory(model)
    comfy.model_management.load_models_gpu([loaded], memory_required=ALL_MEMORY, force_full_load=True)
    device = loaded.load_device
    dtype = loaded.model.manual_cast_dtype or loaded.model.get_dtype()
    adding_in_place = torch.autograd.graph.allow_mutation_on_saved_tensors()  # as transformers' blocks do
    is_unet = isinstance(model.model.diffusion_model, UNetModel)
    gradients = nullcontext() if is_unet else adding_in_place
    with torch.inference_mode(False), torch.enable_grad(), gradients, _said_to_be_training():
        yield ShadowBackbone(shadow_model(loaded.model, sampling, device, dtype), dtype, device)


@contextmanager
def _said_to_be_training() -> Iterator[None]:
    """Newer ComfyUIs' networks use kernels that have no backward pass, unless this says so."""
    before = getattr(comfy.model_management, "in_training", None)
    if before is not None:
        comfy.model_management.in_training = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if before is not None:
            comfy.model_management.in_training = before  # type: ignore[attr-defined]


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
    """Say what of the MODEL is not in its weights, and so not in its shadow."""
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
    """Raise when a latent (B, C, H, W), or (B, C, T, H, W) of video models, is of another model. name: of the input."""
    latent_format = model.get_model_object("latent_format")
    if samples.shape[1] != latent_format.latent_channels:
        raise InvalidInput(
            f"{name} has {samples.shape[1]} channels, model takes {latent_format.latent_channels}; "
            "encode the image with this model's own VAE"
        )
    if samples.ndim not in (4, 2 + latent_format.latent_dimensions):
        raise InvalidInput(
            f"{name} has {samples.ndim} axes, model takes {2 + latent_format.latent_dimensions}; encode the image with "
            "this model's own VAE"
        )


def scaled_latent(model: "ModelPatcher", samples: Tensor) -> Tensor:
    """A LATENT's samples as the UNet takes them, as an ordinary tensor on the model's device."""
    return model.model.process_latent_in(samples.detach().clone()).to(model.load_device, torch.float32)
