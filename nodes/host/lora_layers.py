"""A LORA_MODEL, whatever its keys are called, as updates of the layers of a MODEL's network."""

import logging
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.utils
import torch
from comfy.weight_adapter.lora import LoRAAdapter

from ...morph_core.errors import InvalidInput
from ...morph_core.lora.low_rank import LowRank, check_shapes, joined, low_rank, of_part

NETWORK = "diffusion_model."
TEXT_ENCODER_PREFIXES = ("lora_te", "text_encoder")


def lora_layers(model: Any, lora: dict[str, Any], name: str) -> dict[str, LowRank]:
    """Path in the network -> what a LORA_MODEL updates there.

    name: of the input. Raises `InvalidInput` for what is no LoRA of this model, or more than one of plain layers.
    """
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
