"""What the tests of Drag Latent Optimize share: a drag on the toy model, and the core's own parts of one."""

import json
from dataclasses import fields
from typing import Any, NamedTuple

import comfy.samplers
import torch
from torch import Tensor

from morph_pack.morph_core.denoise import Denoise
from morph_pack.morph_core.dragging.latent import DragLatent
from morph_pack.morph_core.toy.model import ToyModel
from morph_tests.networks import denoiser_of
from morph_tests.nodes.graph import conditioning, latent, run

STEPS, START = 10, 3
SPACING = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": START}
SIZE = (48, 32)  # of the image in pixels; its latent is 12x8
PAIRS = (((14, 13), (33, 19)), ((29, 6), (24, 25)))  # handle and target, in pixels
NUMBERS = [field.name for field in fields(DragLatent) if field.name != "objective"]
SHORT: dict[str, dict[str, Any]] = {"DragDiffusion": {"iterations": 4}, "GoodDrag": {"iterations": 3, "levels": 2}}
NOSE = (34.2, 40.1)  # of `drawing`, in pixels
KV_INJECT = {"strength": 1.0, "end_percent": 1.0, "blocks": "last two up blocks"}


class Dragged(NamedTuple):
    """The node's outputs."""

    latent: dict[str, Any]
    next_step: int
    paths: Tensor
    tracks: str

    @property
    def samples(self) -> Tensor:
        return self.latent["samples"]

    @property
    def ways(self) -> Tensor:
        """(N, I, 2) in pixels."""
        return torch.tensor([[[place["x"], place["y"]] for place in way] for way in json.loads(self.tracks)])


def as_text(pairs: Any, shift: float = 0) -> str:
    """Pairs of pixels as `points`."""
    return json.dumps([{"x": x + shift, "y": y + shift} for pair in pairs for x, y in pair])


def options(block: str = "second to last up block", checkpointing: bool = False, **numbers: float) -> Any:
    """From Drag Options; what is not given is as published."""
    published_ones = dict.fromkeys(NUMBERS, -1)
    others = {"feature_block": block, "gradient_checkpointing": checkpointing}
    return run("DragOptions", **{**published_ones, **numbers}, **others)[0]


def drag_inputs(model: Any, image_latent: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        **{"model": model, "positive": conditioning(), "latent": image_latent},
        **{"image": torch.full((1, SIZE[1], SIZE[0], 3), 0.5), "points": as_text(PAIRS)},
        **{**SPACING, "objective": "DragDiffusion", "options": options(iterations=4)},
        **changes,
    }


def drag(model: Any, image_latent: dict[str, Any], **changes: Any) -> Dragged:
    return Dragged(*run("DragLatentOptimize", **drag_inputs(model, image_latent, **changes)))


def invert(model: Any, start: int = START) -> dict[str, Any]:
    inputs = {"model": model, "positive": conditioning(), "latent_image": latent()}
    return run("DdimInvert", **inputs, **{**SPACING, "start_at_step": start})[0]


def half_a_mask() -> Tensor:
    mask = torch.zeros(1, SIZE[1], SIZE[0])
    mask[:, 5:20, 10:40] = 1
    return mask


def ksampler_sigmas(model: Any, start: int = START, steps: int = STEPS) -> Tensor:
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)[start:].clone()


def toy_denoiser(core: ToyModel, text: Any = None) -> Denoise:
    return denoiser_of(core.backbone.network, (text or conditioning())[0][0], core.backbone.schedule.sigmas)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
