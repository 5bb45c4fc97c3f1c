"""Uni-Edit Sampler: an image edited from a part of its inversion, most where two predictions differ."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..morph_core.sampling.uni_edit import UniEdit, uni_edit
from .host.adapters import CATEGORY
from .host.edit_guider import EDIT_GUIDER, EditRun, edit_sampler, sampler_output
from .host.inputs import checked
from .host.named_errors import named
from .host.versions import schema, stock_name

NODE = "Uni-Edit Sampler"


class UniEditSampler(io.ComfyNode):
    """Jiao et al.'s Uni-Edit as a SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        advanced = stock_name("SamplerCustomAdvanced")
        return schema(
            node_id="MorphDragUniEditSampler",
            display_name=NODE,
            category=f"{CATEGORY}/edit",
            search_aliases=["uniedit", "uniinv", "edit by prompt", "img2img"],
            description=(
                "Edits an image from what it shows to what it is to show: inverts a part of the way, and comes back "
                f"differently where the two prompts say different things (Uni-Edit). For {advanced} with {EDIT_GUIDER} "
                "and the image's latent; the noise does not matter."
            ),
            inputs=[
                io.Float.Input(
                    "strength",
                    default=UniEdit.strength,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the steps that is inverted and edited; 0.6 to 0.8 as published.",
                ),
                io.Float.Input(
                    "omega",
                    default=UniEdit.omega,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How strongly the two prompts' difference acts; 5 as published, of 15 steps at cfg 1.",
                ),
            ],
            outputs=[sampler_output()],
        )

    @classmethod
    @checked
    def execute(cls, strength: float, omega: float) -> io.NodeOutput:
        return io.NodeOutput(edit_sampler(sample_uni_edit, UniEdit(strength, omega)))


def sample_uni_edit(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, disable: bool, config: UniEdit
) -> Tensor:
    """`uni_edit` in the shape of a k-diffusion sampler."""
    with named(NODE):
        run = EditRun.of(model, sigmas, extra_args, callback)
        return uni_edit(run.source, run.target, run.image, sigmas, run.schedule, config, run.on_step, run.mask)
