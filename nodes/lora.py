"""Fit Image LoRA and LoRA Blend: a model that knows one image, and one that knows two, frame by frame."""

import logging
import pickle
from textwrap import shorten
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.utils
import folder_paths
import torch
from comfy.patcher_extension import WrappersMP
from comfy.weight_adapter.lora import LoRAAdapter
from comfy_api.latest import io
from torch import nn

from ..morph_core.errors import InvalidInput
from ..morph_core.lora.blend import StackedLoras
from ..morph_core.lora.fit import LoraFit, fit_lora
from ..morph_core.lora.low_rank import LowRank, check_shapes, joined, low_rank, of_part
from ..morph_core.morphing.alphas import Alphas
from .host.adapters import (
    CATEGORY,
    AlphasType,
    alphas_input,
    progress,
    single_latent,
)
from .host.backbone import check_latent, scaled_latent, shadowed
from .host.frame_batches import current_alphas, parts_first
from .host.inputs import checked
from .host.named_errors import named
from .host.prompt import read_prompt
from .host.uncompiled import run_uncompiled
from .host.versions import known, schema, stock_name

LOAD_LORA = ("LoraModelLoader",)
SAVE_LORA = ("SaveLoRA", "SaveLoRANode")
NETWORK = "diffusion_model."
KEY = "morph_drag_lora_blend"  # of the wrappers
TRANSFORMER_OPTIONS = 5  # its place among the arguments of ComfyUI's `apply_model`
TEXT_ENCODER_PREFIXES = ("lora_te", "text_encoder")


class FitImageLora(io.ComfyNode):
    """A LoRA of one image, fitted in the graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        fit = LoraFit()
        return schema(
            node_id="MorphDragFitImageLora",
            display_name="Fit Image LoRA",
            category=f"{CATEGORY}/morph",
            search_aliases=["train lora", "morph", "drag", "dreambooth", "fine-tune"],
            description=(
                f"Trains a small LoRA on one image, so that the model knows it. Use it with {stock_name(*LOAD_LORA)}, "
                f"LoRA Blend or {stock_name(*SAVE_LORA)}."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to fit on. It stays as it is."),
                io.Latent.Input("latent", tooltip="The image, from VAE Encode."),
                io.Conditioning.Input("positive", tooltip="A prompt that describes the image."),
                io.Int.Input("rank", default=fit.rank, min=1, max=256, tooltip="Size of the LoRA; 16 as published."),
                io.Int.Input(
                    "steps",
                    default=fit.steps,
                    min=1,
                    max=10000,
                    tooltip="Training steps: 200 for a morph (DiffMorpher), 80 for a drag (DragDiffusion).",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=fit.learning_rate,
                    min=1e-7,
                    max=1.0,
                    step=1e-5,
                    tooltip="AdamW's learning rate: 0.0002 for a morph, 0.0005 for a drag.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Decides the initial weights, the noise and the timesteps.",
                ),
                known(
                    io.Boolean.Input,
                    "gradient_checkpointing",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Computes the network twice to keep less of it in memory. Try it when memory runs out.",
                ),
            ],
            outputs=[
                io.LoraModel.Output(
                    "lora", display_name="LORA_MODEL", tooltip=f"The LoRA, for {stock_name(*LOAD_LORA)}."
                ),
                io.LossMap.Output(
                    "loss",
                    display_name="LOSS_MAP",
                    tooltip=f"The loss of every step, for {stock_name('LossGraphNode')}.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        latent: dict[str, Any],
        positive: list[Any],
        rank: int,
        steps: int,
        learning_rate: float,
        seed: int,
        gradient_checkpointing: bool = False,
    ) -> io.NodeOutput:
        samples = single_latent(latent, "latent")
        check_latent(model, samples, "latent")
        prompt = read_prompt(model, positive, "positive", samples)
        config = LoraFit(rank=rank, steps=steps, learning_rate=learning_rate, seed=seed)
        with shadowed(model) as backbone:
            if gradient_checkpointing:
                backbone.enable_gradient_checkpointing()
            text = prompt.to(backbone.device)
            fitted = fit_lora(backbone, scaled_latent(model, samples), text, config, progress(steps))
        return io.NodeOutput(fitted.weights, {"loss": fitted.losses})


class LoadLoraWeights(io.ComfyNode):
    """What ComfyUI's own Save LoRA Weights has saved, for LoRA Blend."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragLoadLoraWeights",
            display_name="Load LoRA Weights",
            category=f"{CATEGORY}/morph",
            search_aliases=["lora", "load lora model"],
            description="Reads a LoRA from a file, for LoRA Blend: one that Fit Image LoRA made, or any other.",
            inputs=[
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip=f"A file among the LoRAs. {stock_name(*SAVE_LORA)} saves into output/loras: move it there.",
                )
            ],
            outputs=[io.LoraModel.Output("lora", display_name="LORA_MODEL", tooltip="The LoRA, for LoRA Blend.")],
        )

    @classmethod
    @checked
    def execute(cls, lora_name: str) -> io.NodeOutput:
        return io.NodeOutput(_read_file(lora_name))


def _read_file(lora_name: str) -> dict[str, torch.Tensor]:
    """The tensors of a file in a folder for LoRAs; nothing else that a file may hold is ever loaded."""
    try:
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        weights = comfy.utils.load_torch_file(path, safe_load=True)
    except Exception as error:  # a damaged file raises anything
        raise _unreadable(lora_name, _reason(error)) from error
    if not (isinstance(weights, dict) and all(isinstance(weight, torch.Tensor) for weight in weights.values())):
        raise _unreadable(lora_name, "it holds other things than weights")
    return weights


def _unreadable(lora_name: str, reason: str) -> InvalidInput:
    return InvalidInput(f"lora_name {lora_name!r} cannot be read ({reason}); download it again or choose another")


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # PyTorch's own text tells how to load it all the same
        return "it is damaged or holds other things than weights"
    return shorten(str(error).partition("\n")[0], 200) or type(error).__name__


class LoraBlend(io.ComfyNode):
    """Two LoRAs, weighted per frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragLoraBlend",
            display_name="LoRA Blend",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "interpolate lora", "lora per frame"],
            description=(
                "Applies two LoRAs to every frame of a batch, each frame with its own share of both. Nothing is "
                "merged into the model, so a whole morph is sampled in one KSampler run."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model both LoRAs were fitted on, without them."),
                io.LoraModel.Input("start", tooltip="The first image's LoRA: all of it at alpha 0."),
                io.LoraModel.Input("end", tooltip="The second image's LoRA: all of it at alpha 1."),
                AlphasType.Input("alphas", tooltip="One weight a frame; the sampled batch must have as many rows."),
            ],
            outputs=[io.Model.Output("patched_model", display_name="MODEL", tooltip="The model with both LoRAs.")],
        )

    @classmethod
    @checked
    def execute(cls, model: Any, start: dict[str, Any], end: dict[str, Any], alphas: Any) -> io.NodeOutput:
        of_start, of_end = _layers(model, start, "start"), _layers(model, end, "end")
        patched = model.clone()
        blend = _BlendedLoras(of_start, of_end, alphas_input(alphas))
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, blend.run)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, blend.call)
        parts_first(patched)
        run_uncompiled(patched, "LoRA Blend")
        return io.NodeOutput(patched)


class _BlendedLoras:
    """Wrappers around a run of a sampler and one call of the network, which not every family has one of its own for."""

    def __init__(self, start: dict[str, LowRank], end: dict[str, LowRank], alphas: Alphas) -> None:
        self.start, self.end, self.alphas = start, end, alphas
        self.stacked: dict[nn.Module, StackedLoras] | None = None  # of the networks of the run that is under way

    def run(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """What is stacked for a run, on the device that computes, goes with it."""
        self.stacked = {}
        try:
            return executor(*args, **kwargs)
        finally:
            self.stacked = None

    def call(self, executor: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        options: dict[str, Any] = kwargs.get("transformer_options") or args[TRANSFORMER_OPTIONS]
        with named("LoRA Blend"):
            rows = len(args[0])
            alphas = current_alphas(rows, options, self.alphas)
            with self._stacked(executor.class_obj.diffusion_model).applied(alphas, rows):
                return executor(*args, **kwargs)  # type: ignore[no-any-return]

    def _stacked(self, network: nn.Module) -> StackedLoras:
        stacked = {} if self.stacked is None else self.stacked  # a network may be called without a sampler
        if network not in stacked:
            stacked[network] = StackedLoras(_located(network, self.start), _located(network, self.end))
        return stacked[network]


def _located(network: nn.Module, layers: dict[str, LowRank]) -> dict[nn.Module, LowRank]:
    return {network.get_submodule(path): update for path, update in layers.items()}


def _layers(model: Any, lora: dict[str, Any], name: str) -> dict[str, LowRank]:
    """Path in the UNet -> update."""
    key_map = _names_of_layers(model)
    _check_alphas(lora, name)
    try:
        found = comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora), key_map, log_missing=False)
    except KeyError as error:
        raise InvalidInput(f"{name} is not a LoRA, {error.args[0]!r} is missing; use a whole one") from error
    if not found:
        raise InvalidInput(
            f"{name} is not a LoRA for this model: none of its {len(lora)} entries names a layer of the model"
        )
    layers: dict[str, LowRank] = {}
    for target, adapter in found.items():
        key, part = (
            target if isinstance(target, tuple) else (target, None)
        )  # part: (axis, first, length) of a fused one
        path = key.removeprefix(NETWORK).removesuffix(".weight")
        parts = _down_up_alpha(adapter, name, key)
        layer = model.model.diffusion_model.get_submodule(path)
        try:
            update = low_rank(*parts)
            if part:
                update = of_part(update, part[1], layer.weight.shape[0])
            check_shapes(layer, update)
        except InvalidInput as error:
            raise InvalidInput(f"{name}: {error}") from error
        layers[path] = joined(layers[path], update) if path in layers else update
    read = {key for adapter in found.values() for key in adapter.loaded_keys}
    unread = [key for key in lora if key not in read and not key.startswith(TEXT_ENCODER_PREFIXES)]
    if len(read) + len(unread) < len(lora):
        logging.warning(f"LoRA Blend: {name} also changes the text encoder; only its part for the UNet is blended")
    if unread:
        raise InvalidInput(
            f"{name} has {len(unread)} entries that are not plain LoRA layers of this model, the first is "
            f"{unread[0]!r}; use a LoRA fitted on this model"
        )
    return layers


def _names_of_layers(model: Any) -> dict[str, str]:
    """What LoRA files call the network's layers: as ComfyUI knows it, and as PEFT and today's diffusers write it."""
    names: dict[str, str] = {}
    for path, own in comfy.utils.unet_to_diffusers(model.model.model_config.unet_config).items():
        layer, _, parameter = path.rpartition(".")
        if parameter == "weight":
            names |= {prefix + layer: f"{NETWORK}{own}" for prefix in ("", "unet.", "base_model.model.")}
    return comfy.lora.model_lora_keys_unet(model.model, names)  # type: ignore[no-any-return]


def _check_alphas(lora: dict[str, Any], name: str) -> None:
    """Before ComfyUI reads them as one number each."""
    for key, value in lora.items():
        if key.endswith(".alpha") and value.numel() != 1 and not key.startswith(TEXT_ENCODER_PREFIXES):
            raise InvalidInput(f"{name} has {value.numel()} values in {key!r} and must have one; use a whole LoRA")


def _down_up_alpha(adapter: Any, name: str, key: str) -> tuple[torch.Tensor, torch.Tensor, float | None]:
    if not isinstance(adapter, LoRAAdapter):
        raise InvalidInput(f"{name} changes {key!r} by more than a LoRA layer; use a plain LoRA")
    up, down, alpha, mid, dora_scale, reshape = adapter.weights
    if mid is not None or dora_scale is not None or reshape is not None:
        raise InvalidInput(f"{name} uses Tucker layers, DoRA or reshaping, which cannot be blended; use a plain LoRA")
    return down, up, alpha
