"""Fit Image LoRA and LoRA Blend: a model that knows one image, and one that knows two, frame by frame."""

import pickle
from textwrap import shorten
from typing import Any

import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..morph_core.errors import InvalidInput
from ..morph_core.lora.fit import LoraFit, fit_lora
from .host.adapters import (
    CATEGORY,
    AlphasType,
    alphas_input,
    progress,
    single_latent,
)
from .host.backbone import check_latent, scaled_latent, shadowed
from .host.blended_loras import BlendedLoras
from .host.inputs import checked
from .host.lora_layers import lora_layers
from .host.prompt import read_prompt
from .host.uncompiled import run_uncompiled
from .host.versions import known, schema, stock_name

LOAD_LORA = ("LoraModelLoader",)
SAVE_LORA = ("SaveLoRA", "SaveLoRANode")


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
        loras = [lora_layers(model, lora, name) for name, lora in (("start", start), ("end", end))]
        patched = model.clone()
        BlendedLoras("LoRA Blend", loras, alphas_input(alphas)).patch(patched)
        run_uncompiled(patched, "LoRA Blend")
        return io.NodeOutput(patched)
