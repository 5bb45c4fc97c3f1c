"""A CONDITIONING of one prompt as a UNet is called with it."""

import logging
from dataclasses import dataclass, field
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ..morph_core.errors import InvalidInput
from .adapters import single_conditioning
from .bridge import unet_config

ONLY_WHERE_SAMPLED = ("control", "gligen", "hooks", "area", "mask", "strength", "start_percent", "end_percent")


@dataclass(frozen=True)
class Prompt:
    """context: (1, T, D). added: what else the UNet takes; SDXL's vector of pooled text and sizes, (1, A).

    unseen: what the CONDITIONING carries that has its effect outside of the network.
    """

    context: Tensor
    added: dict[str, Tensor] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()

    def to(self, device: torch.device, dtype: torch.dtype) -> "Prompt":
        """For optimising: as ordinary tensors of this type on this device. Says in the log what they leave out."""
        if self.unseen:
            logging.warning(
                f"Morph & Drag: the prompt carries {', '.join(self.unseen)}, which has no effect in this node, only "
                "where the model is sampled"
            )
        added = {name: value.clone().to(device, dtype) for name, value in self.added.items()}
        return Prompt(self.context.clone().to(device, dtype), added)


def read_prompt(model: Any, conditioning: list[Any], name: str, samples: Tensor) -> Prompt:
    """The prompt, with what this model's family adds to it for a latent of this size (1, C, h, w).

    name: of the input. Raises `InvalidInput` for several prompts and for one that was made for another model.
    """
    embedding, options = single_conditioning(conditioning, name)
    unseen = tuple(key for key in ONLY_WHERE_SAMPLED if key in options)
    config = unet_config(model)
    if embedding.shape[-1] != config["context_dim"]:
        raise InvalidInput(
            f"{name} is {embedding.shape[-1]} wide, model takes {config['context_dim']}; "
            "encode the prompt with this model's own CLIP"
        )
    if not config.get("adm_in_channels"):
        return Prompt(embedding, unseen=unseen)
    vector = _vector(model, conditioning, name, samples)
    if vector.shape[-1] != config["adm_in_channels"]:
        raise InvalidInput(
            f"{name} has a pooled output that makes a vector {vector.shape[-1]} wide, model takes "
            f"{config['adm_in_channels']}; encode the prompt with this model's own CLIP"
        )
    return Prompt(embedding, {"class_labels": vector}, unseen)


def _vector(model: Any, conditioning: list[Any], name: str, samples: Tensor) -> Tensor:
    """ComfyUI's own `y`: of the pooled output, the sizes in the CONDITIONING's options and, without, the latent's."""
    conds = comfy.sampler_helpers.convert_cond(conditioning)
    try:
        (cond,) = comfy.samplers.encode_model_conds(
            model.model.extra_conds, conds, samples, samples.device, prompt_type="positive"
        )
    except KeyError as error:
        raise InvalidInput(f"{name} has no {error.args[0]}; encode the prompt with this model's own CLIP") from error
    return cond["model_conds"]["y"].cond
