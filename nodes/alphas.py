"""Alpha Schedule and Reschedule Alphas: where a morph's frames lie between the two images."""

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..morph_core.errors import InvalidInput
from ..morph_core.morphing.alphas import EASINGS, Alphas, alpha_schedule, reschedule_alphas
from ..morph_core.morphing.perceptual import METRICS, perceptual_distances
from ..morph_core.morphing.report import Report
from ..morph_core.morphing.timeline import Timeline
from ..morph_core.pictures.perceptual_curve import plot_passes
from .host.adapters import CATEGORY, AlphasType, alphas_input, images_batch, progress
from .host.inputs import checked
from .host.versions import schema


class AlphaSchedule(io.ComfyNode):
    """How many frames, and how they are spread."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragAlphaSchedule",
            display_name="Alpha Schedule",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "interpolate", "frames", "easing"],
            description="The blend weight of every frame of a morph: 0 is the first image, 1 the second.",
            inputs=[
                io.Int.Input("frames", default=16, min=2, max=1024, tooltip="Frames of the morph, both ends included."),
                io.Combo.Input(
                    "easing",
                    options=list(EASINGS),
                    tooltip="How the weights are spread. Reschedule Alphas can space them evenly to the eye later.",
                ),
            ],
            outputs=[AlphasType.Output("alphas", display_name="ALPHAS", tooltip="One weight a frame.")],
        )

    @classmethod
    @checked
    def execute(cls, frames: int, easing: str) -> io.NodeOutput:
        return io.NodeOutput(alpha_schedule(frames, easing))


class RescheduleAlphas(io.ComfyNode):
    """Perceptually even spacing from a first pass's frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragRescheduleAlphas",
            display_name="Reschedule Alphas",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "interpolate", "even speed", "perceptual"],
            has_intermediate_output=True,  # its picture is shown again when it comes from the cache
            description=(
                "Measures how much a morph's frames differ from one to the next and returns weights at which each step "
                "should look equally large. Sample the morph once more with them (DiffMorpher, section 3.5)."
            ),
            inputs=[
                io.Image.Input("images", tooltip="The frames of the first pass, as they were sampled, as one batch."),
                AlphasType.Input("alphas", tooltip="The weights those frames have."),
                io.Int.Input(
                    "frames", default=0, min=0, max=1024, tooltip="How many weights to return; 0: as many as came in."
                ),
                io.Combo.Input(
                    "metric",
                    options=list(METRICS),
                    tooltip=(
                        "How differences are measured. The Laplacian pyramid needs no weights; LPIPS needs "
                        "torchvision's AlexNet or VGG in torch's cache."
                    ),
                ),
            ],
            outputs=[
                AlphasType.Output("rescheduled", display_name="ALPHAS", tooltip="Evenly spaced weights, one a frame."),
                io.Image.Output(
                    "plot",
                    display_name="plot",
                    tooltip="The distance travelled by the frames that came in; Morph Report shows the next pass's.",
                ),
            ],
        )

    @classmethod
    @checked
    def execute(cls, images: torch.Tensor, alphas: Any, frames: int, metric: str) -> io.NodeOutput:
        sequence = alphas if isinstance(alphas, Timeline) else None
        measured = alphas_input(alphas) if sequence is None else sequence.sampled
        if len(images) != len(measured):
            raise InvalidInput(
                f"images has {len(images)} frames but alphas has {len(measured)} weights; they must match"
            )
        on_step = progress(len(images) - 1)
        pictures = images_batch(images, "images").movedim(-1, 1)
        distances = perceptual_distances(pictures, metric, on_step).tolist()
        even: Alphas | Timeline
        if sequence is None:
            even = reschedule_alphas(measured, distances, frames or len(measured))
        elif frames:
            raise InvalidInput("frames must be 0 for a sequence, whose frames Sequence Schedule counts")
        else:
            even = sequence.rescheduled(lambda rows: perceptual_distances(pictures[rows], metric).tolist())
        plot = plot_passes({"images": Report(tuple(distances), measured, metric=metric)})
        return io.NodeOutput(even, plot, ui=ui.PreviewImage(plot, cls=cls))
