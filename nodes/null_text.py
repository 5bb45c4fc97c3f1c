"""Null-text Inversion: what to tell KSampler's unconditional prediction so that guidance follows an inversion."""

from dataclasses import replace
from typing import Any

import numpy as np
from comfy_api.latest import io
from torch import Tensor

from ..morph_core.sampling.null_text import NullText, null_text_inversion
from .adapters import CATEGORY, progress
from .bridge import shadowed
from .inputs import checked
from .prompt import read_prompt
from .trajectory import TrajectoryType, trajectory_input
from .versions import known, schema


class NullTextInversion(io.ComfyNode):
    """Mokady et al.'s Null-text Inversion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        null = NullText()
        return schema(
            node_id="MorphDragNullTextInversion",
            display_name="Null-text Inversion",
            category=f"{CATEGORY}/inversion",
            search_aliases=["inversion", "null text", "unconditional embedding"],
            description=(
                "Adjusts the empty prompt, step by step, until sampling with guidance follows an inversion back to the "
                "image. Connect the result to KSampler's negative and use the same cfg there."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model that was inverted with."),
                TrajectoryType.Input("trajectory", tooltip="The image's way to noise, from DDIM Invert."),
                io.Conditioning.Input("negative", tooltip="What to start from: the empty prompt, as published."),
                io.Float.Input(
                    "cfg", default=null.guidance, min=1.0, max=100.0, step=0.5, tooltip="The guidance. As in KSampler."
                ),
                io.Int.Input(
                    "inner_steps",
                    default=null.inner_steps,
                    min=1,
                    max=500,
                    tooltip="Updates at each sampling step, at most; 10 as published.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=null.learning_rate,
                    min=1e-5,
                    max=1.0,
                    step=1e-3,
                    tooltip="Of Adam; 0.01 as published. Falls from step to step.",
                ),
                known(
                    io.Float.Input,
                    "early_stop",
                    advanced=True,
                    default=null.early_stop,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    tooltip="A step is done when its loss is below this; later steps are allowed more, as published.",
                ),
                known(
                    io.Int.Input,
                    "budget",
                    advanced=True,
                    default=null.budget,
                    min=0,
                    max=100000,
                    tooltip="Updates in all, at most: the steps after them keep what was found. 0: no limit.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "null_text", display_name="CONDITIONING", tooltip="One prompt a step, for KSampler's negative."
                )
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        trajectory: Any,
        negative: list[Any],
        cfg: float,
        inner_steps: int,
        learning_rate: float,
        early_stop: float,
        budget: int,
    ) -> io.NodeOutput:
        inverted = trajectory_input(model, trajectory)
        image = inverted.way.latents[-1]
        told, untold = (
            read_prompt(model, prompt, name, image)
            for prompt, name in ((inverted.positive, "trajectory's prompt"), (negative, "negative"))
        )
        config = NullText(cfg, inner_steps, learning_rate, early_stop, budget)
        with shadowed(model) as backbone:
            conditional, unconditional = (prompt.to(backbone.device) for prompt in (told, untold))
            way = inverted.way.to(backbone.device)
            result = null_text_inversion(
                backbone.denoiser(conditional),
                lambda embedding: backbone.denoiser(replace(unconditional, context=embedding)),
                unconditional.context.float(),
                way,
                config,
                progress(inner_steps * (len(way.sigmas) - 1)),
            )
        ranges = _ranges(model, inverted.way.sigmas)
        options = negative[0][1]
        embeddings = result.embeddings.cpu().to(negative[0][0])
        return io.NodeOutput(
            [
                [embedding, {**options, "start_percent": start, "end_percent": end}]
                for embedding, (start, end) in zip(embeddings, ranges, strict=True)
            ]
        )


def _ranges(model: Any, sigmas: Tensor) -> list[tuple[float, float]]:
    """ComfyUI's start and end percent of each step: from half-way to the step before to half-way to the one after.

    ComfyUI counts percents in the model's training timesteps, between which it interpolates log sigmas.
    """
    known = model.get_model_object("model_sampling").sigmas.log().cpu().numpy()
    logs = sigmas[:-1].log().cpu().numpy()
    halves = (logs[:-1] + logs[1:]) / 2
    timesteps = np.interp(halves, known, np.arange(len(known)))
    edges = [0.0, *(1 - timesteps / (len(known) - 1)).tolist(), 1.0]
    return list(zip(edges, edges[1:], strict=False))
