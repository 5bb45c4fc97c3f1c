"""Sampling makes images of noise that an inversion found, so KSampler is set as DDIM Invert was."""

from typing import Any

from ..description import NARROW, WIDE, Node
from .inversion import SPACING

SAMPLER = {
    **{"add_noise": "disable", "noise_seed": 0, **SPACING, "cfg": 1.0, "sampler_name": "ddim"},
    **{"start_at_step": 0, "end_at_step": 10000, "return_with_leftover_noise": "disable"},
}


def ksampler(name: str, links: dict[str, str], **other: Any) -> Node:
    """KSampler (Advanced) adds no noise; `other` are values that differ."""
    return Node(name, "KSamplerAdvanced", links, {**SAMPLER, **other}, WIDE)


def decoded(name: str, latents: str, width: int = NARROW) -> Node:
    """VAE Decode decodes with the model's VAE."""
    return Node(name, "VAEDecode", {"samples": latents, "vae": "model.VAE"}, width=width)


def empty_prompt(tag: str = "") -> Node:
    """The empty prompt is KSampler's negative one; `tag` ends its name where there are several."""
    return Node(f"empty prompt{tag}", "CLIPTextEncode", {"clip": "model.CLIP"}, room=30, title="Empty prompt")
