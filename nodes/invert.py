"""DDIM Invert: from an image's latent to the noise that KSampler turns back into it."""

from typing import Any

import comfy.sample
import comfy.samplers
import latent_preview
import torch
from comfy_api.latest import io

from ..morph_core import ddim
from .adapters import CATEGORY, names_the_node, single_latent
from .bridge import check_latent
from .prompt import read_prompt
from .sigmas import SIGMA_KEY, remaining_sigmas, schedule_inputs


class DdimInvert(io.ComfyNode):
    """DDIM inversion in KSampler's convention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MorphDragDdimInvert",
            display_name="DDIM Invert",
            category=CATEGORY,
            description=(
                "Finds the noise that leads back to an image. Sample it with KSampler (Advanced): add_noise disable, "
                "ddim, the same scheduler, steps and start_at_step, cfg 1."
            ),
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion UNet; with the image's LoRA, as DiffMorpher does."),
                io.Conditioning.Input("positive", tooltip="A prompt that describes the image."),
                io.Latent.Input("latent_image", tooltip="The image, from VAE Encode."),
                *schedule_inputs("the KSampler that follows", start_at_step=0),
            ],
            outputs=[io.Latent.Output("latent", display_name="LATENT", tooltip="The noise to start KSampler from.")],
        )

    @classmethod
    @names_the_node
    def execute(
        cls,
        model: Any,
        positive: list[Any],
        latent_image: dict[str, Any],
        steps: int,
        scheduler: str,
        start_at_step: int,
    ) -> io.NodeOutput:
        samples = single_latent(latent_image, "latent_image")
        check_latent(model, samples, "latent_image")
        read_prompt(model, positive, "positive", samples)  # refuses one that was made for another model
        sigmas = remaining_sigmas(model, scheduler, steps, start_at_step)
        inverted = comfy.sample.sample_custom(
            model,
            torch.zeros_like(samples),
            1.0,
            comfy.samplers.KSAMPLER(_invert),
            sigmas,
            positive,
            positive,
            samples,
            callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        )
        return io.NodeOutput({**latent_image, "samples": inverted, SIGMA_KEY: sigmas[0].item()})


def _invert(
    model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: dict[str, Any], callback: Any, disable: bool
) -> torch.Tensor:
    """`ddim.invert` in the shape of a k-diffusion sampler, which ComfyUI loads the model and prompt for."""
    rows = x.new_ones(len(x))
    return ddim.invert(
        lambda noisy, sigma: model(noisy, sigma * rows, **extra_args),
        x,
        sigmas,
        lambda done, total, x0: callback({"i": done - 1, "denoised": x0, "x": x0}),
    )
