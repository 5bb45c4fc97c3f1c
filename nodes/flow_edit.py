"""Flow Edit Sampler: an image edited by the difference of two predictions, without inversion."""

from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..morph_core.sampling.flow_edit import FlowEdit, flow_edit
from .host.adapters import CATEGORY
from .host.edit_guider import EDIT_GUIDER, EditRun, edit_sampler, sampler_output
from .host.inputs import checked
from .host.named_errors import named
from .host.versions import known, schema, stock_name

NODE = "Flow Edit Sampler"


class FlowEditSampler(io.ComfyNode):
    """Kulikov et al.'s FlowEdit as a SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        advanced = stock_name("SamplerCustomAdvanced")
        return schema(
            node_id="MorphDragFlowEditSampler",
            display_name=NODE,
            category=f"{CATEGORY}/edit",
            search_aliases=["flowedit", "edit by prompt", "inversion free", "img2img"],
            description=(
                f"Edits an image from what it shows to what it is to show, without inversion (FlowEdit). For "
                f"{advanced} with {EDIT_GUIDER}, the image's latent, the model's own sigmas and a random noise, whose "
                "seed counts."
            ),
            inputs=[
                io.Float.Input(
                    "strength",
                    default=FlowEdit.strength,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Share of the steps that edit, the last ones. Published: 0.66 for SD 3 (33 of 50), 0.86 for "
                        "Flux (24 of 28). More leaves less of the image."
                    ),
                ),
                known(
                    io.Float.Input,
                    "free_end",
                    default=FlowEdit.free,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Share of the steps, the last ones, in which the target is sampled without regard to the "
                        "image. 0 as published; a little of it cleans up details."
                    ),
                ),
                known(
                    io.Int.Input,
                    "noises",
                    default=FlowEdit.noises,
                    min=1,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip="How many noises each step averages over. 1 as published; more is steadier and slower.",
                ),
            ],
            outputs=[sampler_output()],
        )

    @classmethod
    @checked
    def execute(cls, strength: float, free_end: float = FlowEdit.free, noises: int = FlowEdit.noises) -> io.NodeOutput:
        return io.NodeOutput(edit_sampler(sample_flow_edit, FlowEdit(strength, free_end, noises)))


def sample_flow_edit(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Any, disable: bool, config: FlowEdit
) -> Tensor:
    """`flow_edit` in the shape of a k-diffusion sampler."""
    with named(NODE):
        run = EditRun.of(model, sigmas, extra_args, callback)
        seeded = replace(config, seed=run.seed)
        return flow_edit(run.source, run.target, run.image, sigmas, run.schedule, seeded, run.on_step, run.mask)
