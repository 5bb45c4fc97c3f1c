"""Runs nodes as ComfyUI does, and makes the values that go between them."""

import functools
import itertools
from dataclasses import fields
from typing import Any

import comfy.model_management
import nodes
import torch
from comfy_api.latest import io
from comfy_extras.nodes_train import LoraModelLoader
from torch import Tensor, nn

from morph_pack.morph_core.dragging.latent import DragLatent
from morph_pack.morph_core.lora.low_rank import LoraWeights
from morph_pack.morph_core.toy import model as toy_model
from morph_pack.nodes import NODE_CLASS_MAPPINGS

PREFIX = "MorphDrag"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def run(node: str, **inputs: Any) -> Any:
    """The outputs of one of the pack's nodes, executed in inference mode on a locked clone of its class."""
    cls = NODE_CLASS_MAPPINGS[PREFIX + node].PREPARE_CLASS_CLONE({})
    with torch.inference_mode():
        return cls.EXECUTE_NORMALIZED(**inputs).result


def stock(node: type, **inputs: Any) -> Any:
    """The outputs of one of ComfyUI's own nodes, called as its version is: V3 or V1."""
    with torch.inference_mode():
        if issubclass(node, io.ComfyNode):
            return node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**inputs).result
        return getattr(node(), node.FUNCTION)(**inputs)


def drag_options(**changes: Any) -> Any:
    """DRAG_OPTIONS: as published, but for these."""
    numbers = {field.name: -1 for field in fields(DragLatent) if field.name != "objective"}
    others = {"feature_block": "second to last up block", "gradient_checkpointing": False}
    return run("DragOptions", **{**numbers, **others, **changes})[0]


def sample(
    model: Any,
    positive: Any,
    noise: Tensor,
    steps: int,
    negative: Any = None,
    cfg: float = 1.0,
    start: int = 0,
    scheduler: str = "ddim_uniform",
) -> Tensor:
    """KSampler (Advanced) as the morph uses it: from the noise given, with ddim."""
    with torch.inference_mode():
        (latent,) = nodes.KSamplerAdvanced().sample(
            *(model, "disable", 0, steps, cfg, "ddim", scheduler, positive, negative or positive),
            *({"samples": noise}, start, 10000, "disable"),
        )
    return latent["samples"]


def with_lora(model: Any, lora: LoraWeights, strength: float = 1.0) -> Any:
    """The MODEL from ComfyUI's own Load LoRA Model."""
    return stock(LoraModelLoader, model=model, lora=lora, strength_model=strength)[0]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latent(seed: int = 0, rows: int = 1, channels: int = 4, size: tuple[int, int] = (8, 12)) -> dict[str, Tensor]:
    """A LATENT of random values, not square, so that height and width cannot be swapped unnoticed."""
    return {"samples": normal(rows, channels, *size, seed=seed)}


def conditioning(seed: int = 0, rows: int = 1, **options: Any) -> list[Any]:
    """A CONDITIONING of one random prompt."""
    return [[normal(rows, 8, toy_model.TEXT_WIDTH, seed=100 + seed), options]]


def layers_named(endings: tuple[str, ...] = ATTENTION) -> list[str]:
    """Paths of the toy UNet's layers with these names, as diffusers has them; without endings its attention's."""
    return [name for name, _ in _toy_unet().named_modules() if name.endswith(endings)]


@functools.cache
def _toy_unet() -> nn.Module:
    with torch.device("meta"):
        return toy_model.new_unet()


def random_lora(
    seed: int, rank: int = 4, skip: int = 0, size: float = 0.2, endings: tuple[str, ...] = ATTENTION
) -> LoraWeights:
    """A LoRA for the toy UNet under kohya's names, large enough to change what the model does.

    skip: leave out every skip-th layer. alpha is not the rank, so that forgetting it shows.
    """
    lora: LoraWeights = {}
    for i, name in enumerate(layers_named(endings)):
        if skip and i % skip == 0:
            continue
        out, *inner = _toy_unet().get_submodule(name).weight.shape
        key = "lora_unet_" + name.replace(".", "_")
        down = normal(rank, *inner, seed=1000 * seed + 2 * i)
        lora[f"{key}.lora_down.weight"] = down / down[0].numel() ** 0.5
        up = normal(out, rank, seed=1000 * seed + 2 * i + 1) * size
        lora[f"{key}.lora_up.weight"] = up[..., None, None] if len(inner) > 1 else up
        lora[f"{key}.alpha"] = torch.tensor(rank / 2)
    return lora


def hooks_on(model: Any) -> list[str]:
    """Names of the modules of a MODEL that have hooks of any kind."""
    return [
        name
        for name, module in model.model.named_modules()
        if any(itertools.chain(module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))
    ]


def diffusion_model(model: Any) -> nn.Module:
    """The network of a MODEL, with its weights as they are without LoRAs."""
    comfy.model_management.unload_all_models()
    return model.model.diffusion_model
