"""Slerp Latents, Blend Conditioning and AdaIN: the noise and the prompts of a morph's frames."""

from typing import Any

import torch
from comfy_api.latest import io

from ..morph_core.errors import InvalidInput
from ..morph_core.morphing.adain import adain
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
from .host.versions import schema

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
            ],
            outputs=inverted_outputs("A batch with one row a frame"),
        )

    @classmethod
    @checked
    def execute(cls, start: Any, end: Any, alphas: Any) -> io.NodeOutput:
        ends, outputs = inverted_values("Slerp Latents", start=start, end=end)
        frame_alphas = alphas_input(alphas)
        check_pair(ends[0], ends[1], len(frame_alphas))
        return outputs(slerp(*ends, frame_alphas))


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
            ],
            outputs=[
                io.Conditioning.Output(
                    "conditioning", display_name="CONDITIONING", tooltip="One prompt a frame, for KSampler's positive."
                )
            ],
        )

    @classmethod
    @checked
    def execute(cls, start: list[Any], end: list[Any], alphas: Any) -> io.NodeOutput:
        frame_alphas = alphas_input(alphas)
        text_0, options_0 = single_conditioning(start, "start")
        text_1, options_1 = single_conditioning(end, "end")
        options = dict(options_0)
        pooled_0, pooled_1 = options_0.get("pooled_output"), options_1.get("pooled_output")
        if (pooled_0 is None) != (pooled_1 is None):
            raise InvalidInput("only one of start and end has a pooled output; encode both with the same CLIP")
        if pooled_0 is not None:
            options["pooled_output"] = blend_text(pooled_0, pooled_1, frame_alphas)
        check_same_options(options_0, options_1)
        return io.NodeOutput([[blend_text(text_0, text_1, frame_alphas), options]])


def check_same_options(start: dict[str, Any], end: dict[str, Any]) -> None:
    """Raise unless everything but the pooled output agrees: areas, masks or ControlNets cannot be blended."""
    for key in sorted({*start, *end} - {"pooled_output"}):
        if not _same(start.get(key), end.get(key)):
            raise InvalidInput(
                f"start and end differ in {key!r}, which cannot be blended; set it after Blend Conditioning instead"
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
            ],
            outputs=inverted_outputs("The frames, adjusted"),
        )

    @classmethod
    @checked
    def execute(cls, frames: Any, start: Any, end: Any, alphas: Any, strength: float) -> io.NodeOutput:
        (rows, *ends), outputs = inverted_values("AdaIN", frames=frames, start=start, end=end)
        check_pair(ends[0], ends[1])
        return outputs(adain(rows, *ends, alphas_input(alphas), strength))
