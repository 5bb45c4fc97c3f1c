"""DDIM Invert: from an image's latent to the noise that KSampler turns back into it."""

import logging
import weakref
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import latent_preview
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..morph_core.sampling import ddim
from ..morph_core.sampling.trajectory import Trajectory
from .host.adapters import CATEGORY, single_latent
from .host.backbone import check_latent
from .host.inputs import checked
from .host.model_sampling import ModelSampling
from .host.noise import InvertedNoise, as_latent
from .host.prompt import guidance_told, read_prompt
from .host.sigmas import SIGMA_KEY, remaining_sigmas, schedule_inputs
from .host.trajectories import Inverted, TrajectoryType
from .host.versions import known, schema, stock_name


class DdimInvert(io.ComfyNode):
    """DDIM inversion in KSampler's convention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragDdimInvert",
            display_name="DDIM Invert",
            category=f"{CATEGORY}/inversion",
            search_aliases=["unsample", "inversion", "noise", "reverse"],
            description=(
                "Finds the noise that leads back to an image. Sample it with KSampler (Advanced): add_noise disable, "
                "ddim, the same scheduler, steps and start_at_step, cfg 1."
            ),
            inputs=[
                io.Model.Input("model", tooltip="Any MODEL; with the image's LoRA, as DiffMorpher does."),
                io.Conditioning.Input(
                    "positive",
                    tooltip=(
                        "A prompt that describes the image. For Flux.1 [dev] through FluxGuidance with guidance 1, as "
                        "inversions were published."
                    ),
                ),
                io.Latent.Input("latent_image", tooltip="The image, from VAE Encode."),
                *schedule_inputs("the KSampler that follows", start_at_step=0),
                known(
                    io.Int.Input,
                    "fixed_point_iterations",
                    default=0,
                    min=0,
                    max=50,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "How often each step's noise is evaluated again at the point it leads to. 0 is plain DDIM. "
                        "With 3 to 5 sampling at cfg 1 returns nearly exactly, for so many times the work."
                    ),
                ),
                known(
                    io.Boolean.Input,
                    "warm_start",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Begins each step with the velocity of the step before (Uni-Inv). Sampling at cfg 1 then "
                        "returns more exactly, for no more work; with fixed-point iterations too."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output("latent", display_name="LATENT", tooltip="The noise to start KSampler from."),
                TrajectoryType.Output(
                    "trajectory",
                    display_name="TRAJECTORY",
                    tooltip="From the image to its noise, for Direct Inversion and Null-text Inversion.",
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip=f"What the fixed-point iterations left, and what to mend, for {stock_name('PreviewAny')}.",
                ),
                io.Noise.Output(
                    "noise",
                    display_name="NOISE",
                    tooltip="The noise for SamplerCustomAdvanced, over an empty latent: for flow models at step 0.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        positive: list[Any],
        latent_image: dict[str, Any],
        steps: int,
        scheduler: str,
        start_at_step: int,
        fixed_point_iterations: int = 0,
        warm_start: bool = False,
    ) -> io.NodeOutput:
        samples = single_latent(latent_image, "latent_image")
        check_latent(model, samples, "latent_image")
        samples = comfy.sample.fix_empty_latent_channels(model, samples)  # of video models: a picture is one frame
        prompt = read_prompt(model, positive, "positive", samples)  # refuses one that was made for another model
        sigmas = remaining_sigmas(model, scheduler, steps, start_at_step)
        inversion = _Inversion(model, fixed_point_iterations, warm_start)
        comfy.sample.sample_custom(
            model,
            torch.zeros_like(samples),
            1.0,
            comfy.samplers.KSAMPLER(inversion),
            sigmas,
            positive,
            positive,
            samples,
            callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        )
        trajectory = inversion.trajectory
        inverted = Inverted(trajectory, positive, weakref.ref(model.model))
        noise = InvertedNoise.of(model, trajectory.noise, sigmas[0])
        report = _report(trajectory, warm_start) + _about_guidance(guidance_told(model, prompt))
        return io.NodeOutput(_latent(model, latent_image, noise), inverted, report, noise)


def _latent(model: Any, image: dict[str, Any], noise: InvertedNoise) -> dict[str, Any] | ExecutionBlocker:
    """For KSampler (Advanced); where it cannot start from a latent, what says so to whoever is connected."""
    samples = as_latent(model, noise.x, noise.sigma)
    if samples is None:
        return ExecutionBlocker(
            "DDIM Invert: at this noise level a flow model's KSampler keeps nothing of a LATENT; connect NOISE to "
            "SamplerCustomAdvanced, over an empty latent, or set start_at_step to 1 or more in both nodes"
        )
    samples = samples.to(comfy.model_management.intermediate_device())
    return {**image, "samples": samples, SIGMA_KEY: noise.sigma.item()}


def _about_guidance(told: float | None) -> str:
    """What is wrong with a guidance that a distilled model is told; said in the log too."""
    if told is None or told == 1:
        return ""
    advice = (
        f"the prompt tells the model a guidance of {told:g}, at which an inversion leads back badly: put "
        "FluxGuidance with guidance 1 behind it, here and where the noise is sampled"
    )
    logging.warning(f"Morph & Drag: DDIM Invert: {advice}")
    return f". But {advice}"


class _Inversion:
    """`ddim.trace` in the shape of a k-diffusion sampler, which ComfyUI loads the model and prompt for."""

    trajectory: Trajectory  # once it has run

    def __init__(self, model: Any, iterations: int, warm_start: bool) -> None:
        self.schedule = ModelSampling(model.get_model_object("model_sampling"))
        self.iterations, self.warm_start = iterations, warm_start

    def __call__(
        self, model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, disable: bool
    ) -> Tensor:
        x = model.latent_image  # not what noise was added to, which of flow matching is nothing at sigma 1
        rows = x.new_ones(len(x))
        trajectory = ddim.trace(
            lambda noisy, sigma: model(noisy, sigma * rows, **extra_args),
            x,
            sigmas,
            self.schedule,
            lambda done, total, x0: callback({"i": done - 1, "denoised": x0, "x": x0}),
            self.iterations,
            self.warm_start,
        )
        self.trajectory = trajectory.to("cpu")
        return trajectory.noise


def _report(trajectory: Trajectory, warm_start: bool) -> str:
    residuals = trajectory.residuals
    if not len(residuals):
        kind = "DDIM inversion with a warm start" if warm_start else "plain DDIM inversion"
        return f"{kind}: no fixed-point iterations"
    worst = int(residuals.argmax())
    return (
        f"the last fixed-point iteration moved the latent by {residuals.mean():.2g} of its deviation on average, "
        f"by {residuals[worst]:.2g} at most, at sigma {trajectory.sigmas[worst]:.2f}"
    )
