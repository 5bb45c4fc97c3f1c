"""Attention KV Inject: rows of a batch whose self-attention looks at others: a morph's ends, a drag's original."""

from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import io

from ..morph_core.attention.end_frames import BLOCKS, block_is_chosen, check_blocks, first_row_alphas, mix_end_contexts
from ..morph_core.morphing.alphas import Alphas
from ..morph_core.sampling.schedule import sigma_after
from .host.adapters import CATEGORY, AlphasType, alphas_input
from .host.backbone import unet_config, up_block_of
from .host.frame_batches import PARTS, InParts, current_alphas, current_frames, parts_first
from .host.inputs import checked
from .host.named_errors import named
from .host.uncompiled import run_uncompiled
from .host.versions import known, schema

STAGES = {"input": "down", "middle": "mid", "output": "up"}


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
                io.Model.Input("model", tooltip="A Stable Diffusion UNet."),
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
                    tooltip="Where it acts. As published: up blocks for a morph, the last two of them for a drag.",
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
    ) -> io.NodeOutput:
        check_blocks(blocks)
        frame_alphas = None if alphas is None else alphas_input(alphas)
        patched = model.clone()
        patched.set_model_attn1_patch(_EndContexts(unet_config(model), frame_alphas, strength, end_percent, blocks))
        if frames_per_batch:
            parts = InParts(frames_per_batch)
            patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, PARTS, parts)
            patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, PARTS, parts.prepare)
            parts_first(patched)
        run_uncompiled(patched, "Attention KV Inject")
        return io.NodeOutput(patched)


class _EndContexts:
    """ComfyUI's `attn1_patch`: sees the input of every self-attention layer before keys and values are made."""

    def __init__(
        self, config: dict[str, Any], alphas: Alphas | None, strength: float, end_percent: float, blocks: str
    ) -> None:
        self.config, self.alphas, self.strength = config, alphas, strength
        self.end_percent, self.blocks = end_percent, blocks

    def __call__(
        self, query: torch.Tensor, context: torch.Tensor, value: torch.Tensor, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with named("Attention KV Inject"):
            if not self._acts(options):
                return query, context, value
            mixed = self._mixed(context, "context", options)
            return query, mixed, mixed if value is context else self._mixed(value, "value", options)

    def _mixed(self, context: torch.Tensor, name: str, options: dict[str, Any]) -> torch.Tensor:
        """name: "context" or "value", which a layer has apart where another patch has changed one of them."""
        alphas = self._alphas(len(context), options)
        layer = (self, name, *options["block"], options["block_index"])
        ends = current_frames(len(context), options).of_ends.setdefault(layer, context)
        return mix_end_contexts(context, alphas, self.strength, ends)

    def _alphas(self, rows: int, options: dict[str, Any]) -> Alphas:
        """Those of the current frames; for a drag, by which all rows look at the first."""
        if self.alphas is None:
            return first_row_alphas(len(current_frames(rows, options).frames))
        return current_alphas(rows, options, self.alphas)

    def _acts(self, options: dict[str, Any]) -> bool:
        stage, number = options["block"]
        up_count = len(self.config["channel_mult"])
        if not block_is_chosen(self.blocks, STAGES[stage], up_block_of(number, self.config), up_count):
            return False
        sigma = options["sigmas"].max()
        return bool(sigma > sigma_after(options["sample_sigmas"].to(sigma), self.end_percent))
