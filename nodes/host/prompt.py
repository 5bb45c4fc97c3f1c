"""A CONDITIONING of one prompt as a network is called with it."""

import logging
from dataclasses import dataclass
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ...morph_core.errors import InvalidInput
from ...morph_core.models.text import Text
from .adapters import single_conditioning

ONLY_WHERE_SAMPLED = ("control", "gligen", "hooks", "area", "mask", "strength", "start_percent", "end_percent")


@dataclass(frozen=True)
class Prompt:
    """text: of one row, as ComfyUI calls the network with it. unseen: what has its effect outside of the network."""

    text: Text
    unseen: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Text:
        """For optimising: ordinary tensors on this device. Says in the log what they leave out."""
        if self.unseen:
            logging.warning(
                f"Morph & Drag: the prompt carries {', '.join(self.unseen)}, which has no effect in this node, only "
                "where the model is sampled"
            )
        added = {name: _ordinary(value, device) for name, value in self.text.added.items()}
        return Text(_ordinary(self.text.context, device), added=added)


def _ordinary(value: Any, device: torch.device) -> Any:
    return value.clone().to(device) if isinstance(value, Tensor) else value


def read_prompt(model: Any, conditioning: list[Any], name: str, samples: Tensor) -> Prompt:
    """The prompt, with what this model's family adds to it for a latent of this size (1, C, h, w).

    name: of the input. Raises `InvalidInput` for several prompts and for one that was made for another model.
    """
    embedding, options = single_conditioning(conditioning, name)
    unseen = tuple(key for key in ONLY_WHERE_SAMPLED if key in options)
    config = model.model.model_config.unet_config
    width = config.get("context_dim")  # of UNets; transformers put several encoders' texts together in their own ways
    if width and embedding.shape[-1] != width:
        raise InvalidInput(
            f"{name} is {embedding.shape[-1]} wide, model takes {width}; encode the prompt with this model's own CLIP"
        )
    added = _added(model, conditioning, name, samples)
    width = config.get("adm_in_channels")
    if width and "y" in added and added["y"].shape[-1] != width:
        raise InvalidInput(
            f"{name} has a pooled output that makes a vector {added['y'].shape[-1]} wide, model takes {width}; "
            "encode the prompt with this model's own CLIP"
        )
    return Prompt(Text(embedding, added=added), unseen)


def guidance_told(model: Any, prompt: Prompt) -> float | None:
    """The guidance that a prompt tells a model which was distilled with it (Flux.1 [dev]); None of any other model."""
    guidance = prompt.text.added.get("guidance")
    parameters = getattr(model.model.diffusion_model, "params", None)
    if not isinstance(guidance, Tensor) or not getattr(parameters, "guidance_embed", False):
        return None
    return float(guidance.flatten()[0])


def _added(model: Any, conditioning: list[Any], name: str, samples: Tensor) -> dict[str, Any]:
    """What ComfyUI itself makes of the CONDITIONING's options: pooled text and sizes, an inpainting model's picture."""
    conds = comfy.sampler_helpers.convert_cond(conditioning)
    options = {"latent_image": samples, "denoise_mask": None, "seed": 0}
    try:
        (cond,) = comfy.samplers.encode_model_conds(
            model.model.extra_conds, conds, samples, samples.device, prompt_type="positive", **options
        )
    except KeyError as error:
        raise InvalidInput(f"{name} has no {error.args[0]}; encode the prompt with this model's own CLIP") from error
    inputs = {key: value.process_cond(1, area=None).cond for key, value in cond["model_conds"].items()}
    return {key: value for key, value in inputs.items() if key != "c_crossattn"}
