"""Attention KV Inject: rows of a batch whose self-attention looks at others: a morph's ends, a drag's original."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..morph_core.attention.end_frames import BLOCKS, check_blocks
from ..morph_core.errors import InvalidInput
from .host.adapters import CATEGORY, AlphasType, alphas_input
from .host.end_frames import EndFrames
from .host.frame_batches import InParts
from .host.inputs import checked
from .host.masks import PictureMask
from .host.matches import MatchesType, layouts_input
from .host.uncompiled import run_uncompiled
from .host.versions import known, schema


class AttentionKVInject(io.ComfyNode):
    """DiffMorpher's attention interpolation as a model patch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragAttentionKVInject",
            display_name="Attention KV Inject",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "drag", "reference", "attention interpolation", "MasaCtrl"],
            description=(
                "For a morph: replaces keys and values of every frame's self-attention by its blend of the first and "
                "last frame's. For a drag, without alphas: every row looks at the first, the original."
            ),
            inputs=[
                io.Model.Input("model", tooltip="Any MODEL."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=1.0, step=0.05, tooltip="0: the row's own, 1: the injected."
                ),
                io.Float.Input(
                    "end_percent",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the steps, from the first, in which it acts: 0.6 for a morph, 1 for a drag.",
                ),
                io.Combo.Input(
                    "blocks",
                    options=list(BLOCKS),
                    tooltip=(
                        "Where it acts. As published: up blocks for a morph, the last two of them for a drag. Of a "
                        "transformer the second half of the layers (of Flux.1 those found by FreeFlux), the last "
                        "quarter, or all."
                    ),
                ),
                AlphasType.Input(
                    "alphas",
                    optional=True,
                    tooltip="A morph's weights; the sampled batch must have as many rows. Leave empty for a drag.",
                ),
                known(
                    io.Int.Input,
                    "frames_per_batch",
                    default=0,
                    min=0,
                    max=1024,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Set it when memory runs out: so many frames go through the model at a time, after the first "
                        "and last, which always go together. 0: all at once. The result is the same."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Where a morph takes place: white, grey partly; the rest looks at the first frame. None: "
                        "everywhere. Connect the same to Slerp Latents, AdaIN and Direct Inversion."
                    ),
                ),
                MatchesType.Input(
                    "matches",
                    optional=True,
                    tooltip="From Match Layouts: each frame sees both ends as they lie in its own layout. UNets only.",
                ),
            ],
            outputs=[io.Model.Output("patched_model", display_name="MODEL", tooltip="The model with the patch.")],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        strength: float,
        end_percent: float,
        blocks: str,
        alphas: Any = None,
        frames_per_batch: int = 0,
        mask: Tensor | None = None,
        matches: Any = None,
    ) -> io.NodeOutput:
        check_blocks(blocks)
        frame_alphas = None if alphas is None else alphas_input(alphas)
        if mask is not None and alphas is None:
            raise InvalidInput("mask says where a morph takes place, but alphas is empty; connect both or neither")
        if mask is not None and matches is not None:
            raise InvalidInput("mask keeps a part of the picture in place, but matches lead all of it; leave one empty")
        layouts = None if matches is None else layouts_input(matches, model, frame_alphas)
        patched = model.clone()
        picture = None if mask is None else PictureMask(mask)
        frames = EndFrames(frame_alphas, strength, end_percent, blocks, picture, layouts)
        frames.patch(patched)
        if frames_per_batch:
            InParts(frames_per_batch).patch(patched)
        run_uncompiled(patched, "Attention KV Inject")
        return io.NodeOutput(patched)
