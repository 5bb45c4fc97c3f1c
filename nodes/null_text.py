"""Null-text Inversion: negative prompts, one a step, with which guidance follows an inversion."""

from dataclasses import replace
from typing import Any

from comfy_api.latest import io

from ..morph_core.sampling.null_text import NullText, null_text_inversion
from .host.adapters import CATEGORY, progress
from .host.backbone import shadowed
from .host.inputs import checked
from .host.prompt import read_prompt
from .host.sigmas import step_percents
from .host.trajectories import TrajectoryType, trajectory_input
from .host.versions import known, schema


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
                TrajectoryType.Input("trajectory", tooltip="From the image to its noise, from DDIM Invert."),
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
        image = inverted.trajectory.latents[-1]
        conditional = read_prompt(model, inverted.positive, "trajectory's prompt", image)
        unconditional = read_prompt(model, negative, "negative", image)
        config = NullText(cfg, inner_steps, learning_rate, early_stop, budget)
        with shadowed(model) as backbone:
            empty = unconditional.to(backbone.device)
            result = null_text_inversion(
                backbone.denoiser(conditional.to(backbone.device)),
                lambda embedding: backbone.denoiser(replace(empty, context=embedding)),
                empty.context.float(),
                inverted.trajectory.to(backbone.device),
                config,
                progress(inner_steps * (len(inverted.trajectory.sigmas) - 1)),
            )
        ranges = step_percents(model, inverted.trajectory.sigmas)
        options = negative[0][1]
        embeddings = result.embeddings.cpu().to(negative[0][0])
        return io.NodeOutput(
            [
                [embedding, {**options, "start_percent": start, "end_percent": end}]
                for embedding, (start, end) in zip(embeddings, ranges, strict=True)
            ]
        )
