"""Slerp Latents, Blend Conditioning and AdaIN: the noise and the prompts of a morph's frames."""

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..morph_core.errors import InvalidInput
from ..morph_core.morphing.adain import adain
from ..morph_core.morphing.alphas import Alphas
from ..morph_core.morphing.blend_text import blend_text
from ..morph_core.morphing.slerp import slerp
from .host.adapters import (
    CATEGORY,
    AlphasType,
    alphas_input,
    check_pair,
    single_conditioning,
)
from .host.inputs import checked
from .host.inverted import inverted_input, inverted_outputs, inverted_values
from .host.masks import mask_cells
from .host.versions import schema

POOLED = "pooled_output"
ALPHAS_TOOLTIP = "One blend weight a frame, from Alpha Schedule or Reschedule Alphas."


class SlerpLatents(io.ComfyNode):
    """The frames' initial noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragSlerpLatents",
            display_name="Slerp Latents",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "interpolate", "spherical"],
            description="Spherical interpolation of two inverted latents: one row of the batch for each frame.",
            inputs=[
                inverted_input(
                    "start",
                    "The first image's noise, from DDIM Invert: LATENT, or NOISE of a flow model. From Match Layouts "
                    "it has one row a frame.",
                ),
                inverted_input("end", "The second image's noise, from DDIM Invert or Match Layouts."),
                AlphasType.Input("alphas", tooltip=ALPHAS_TOOLTIP),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Where the morph takes place: white, grey partly; black stays the first image's noise. Of the "
                        "images' size. None: everywhere."
                    ),
                ),
            ],
            outputs=inverted_outputs("A batch with one row a frame"),
        )

    @classmethod
    @checked
    def execute(cls, start: Any, end: Any, alphas: Any, mask: Tensor | None = None) -> io.NodeOutput:
        ends, outputs = inverted_values("Slerp Latents", start=start, end=end)
        frame_alphas = alphas_input(alphas)
        check_pair(ends[0], ends[1], 1 if mask is not None else len(frame_alphas))
        return outputs(slerp(*ends, frame_alphas, mask_cells(mask, ends[0], "start")))


class BlendConditioning(io.ComfyNode):
    """The frames' prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragBlendConditioning",
            display_name="Blend Conditioning",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "interpolate prompt", "lerp conditioning"],
            description=(
                "Linear interpolation of two prompts, one row of the batch for each frame. Pooled outputs are "
                "blended too; prompts of different token lengths are made equal without changing their meaning."
            ),
            inputs=[
                io.Conditioning.Input("start", tooltip="The first image's prompt."),
                io.Conditioning.Input("end", tooltip="The second image's prompt. It may be the same."),
                AlphasType.Input("alphas", tooltip=ALPHAS_TOOLTIP),
                io.Conditioning.Input(
                    "middle",
                    optional=True,
                    tooltip="A third prompt, which the frames between lean towards, most at alpha 0.5. None: only two.",
                ),
                io.Float.Input(
                    "middle_weight",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How far at alpha 0.5: 1 is the middle prompt itself, 0 leaves it out.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning", display_name="CONDITIONING", tooltip="One prompt a frame, for KSampler's positive."
                )
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, start: list[Any], end: list[Any], alphas: Any, middle: Any = None, middle_weight: float = 1.0
    ) -> io.NodeOutput:
        frame_alphas = alphas_input(alphas)
        prompts = {"start": start, "end": end} if middle is None else {"start": start, "end": end, "middle": middle}
        texts, options = zip(*(single_conditioning(prompt, name) for name, prompt in prompts.items()), strict=True)
        blended = dict(options[0])
        for name, others in zip(prompts, options, strict=True):
            if (options[0].get(POOLED) is None) != (others.get(POOLED) is None):
                raise InvalidInput(f"only one of start and {name} has a pooled output; encode both with the same CLIP")
            check_same_options(options[0], others, name)
        if options[0].get(POOLED) is not None:
            blended[POOLED] = _blended([each[POOLED] for each in options], frame_alphas, middle_weight)
        return io.NodeOutput([[_blended(texts, frame_alphas, middle_weight), blended]])


def _blended(texts: Sequence[Tensor], alphas: Alphas, middle_weight: float) -> Tensor:
    start, end, *middle = texts
    return blend_text(start, end, alphas, *middle, weight=middle_weight)


def check_same_options(start: dict[str, Any], other: dict[str, Any], name: str = "end") -> None:
    """Raise unless everything but the pooled output agrees: areas, masks or ControlNets cannot be blended."""
    for key in sorted({*start, *other} - {POOLED}):
        if not _same(start.get(key), other.get(key)):
            raise InvalidInput(
                f"start and {name} differ in {key!r}, which cannot be blended; set it after Blend Conditioning instead"
            )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a is b or (type(a) is type(b) and bool(a == b))


class AdaIN(io.ComfyNode):
    """Colour and contrast between the two ends'."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragAdaIN",
            display_name="AdaIN",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "match colours", "match colors", "style statistics"],
            description=(
                "Gives every frame channel means and deviations between those of the two ends, so that colours and "
                "contrast change evenly. DiffMorpher applies it to the noise, between Slerp Latents and KSampler."
            ),
            inputs=[
                inverted_input("frames", "The batch of frames: LATENT, or NOISE of a flow model."),
                inverted_input("start", "The first image's latent or noise, of the same kind as the frames."),
                inverted_input("end", "The second image's latent or noise, of the same kind as the frames."),
                AlphasType.Input("alphas", tooltip=ALPHAS_TOOLTIP),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.05, tooltip="0: frames unchanged, 1: full AdaIN."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Where the morph takes place, as for Slerp Latents: statistics are those of the white part, "
                        "and only it is changed. None: the whole."
                    ),
                ),
            ],
            outputs=inverted_outputs("The frames, adjusted"),
        )

    @classmethod
    @checked
    def execute(
        cls, frames: Any, start: Any, end: Any, alphas: Any, strength: float, mask: Tensor | None = None
    ) -> io.NodeOutput:
        (rows, *ends), outputs = inverted_values("AdaIN", frames=frames, start=start, end=end)
        check_pair(ends[0], ends[1])
        return outputs(adain(rows, *ends, alphas_input(alphas), strength, mask_cells(mask, ends[0], "start")))
