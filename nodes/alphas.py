"""Alpha Schedule, Reschedule Alphas and Even Frames: where a morph's frames lie between the two images."""

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..morph_core.errors import InvalidInput
from ..morph_core.morphing.alphas import EASINGS, Alphas, alpha_schedule, reschedule_alphas
from ..morph_core.morphing.even_frames import evenest, with_long_steps_cut
from ..morph_core.morphing.perceptual import METRICS, perceptual_distances, perceptual_distances_of_pairs
from ..morph_core.morphing.report import Report
from ..morph_core.morphing.timeline import Timeline
from ..morph_core.pictures.perceptual_curve import plot_passes
from .host.adapters import CATEGORY, AlphasType, alphas_input, images_batch, progress
from .host.inputs import checked
from .host.versions import schema

PATH = "path"
METHODS = (PATH, "long steps")


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
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    optional=True,
                    tooltip=(
                        "path: evenly along the measured path, as published. long steps: more frames where steps are "
                        "long, the ends beside; Even Frames then picks the most even of both passes."
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
    def execute(cls, images: torch.Tensor, alphas: Any, frames: int, metric: str, method: str = PATH) -> io.NodeOutput:
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
        if sequence is None and method == PATH:
            even = reschedule_alphas(measured, distances, frames or len(measured))
        elif sequence is None:
            even = with_long_steps_cut(measured, distances, frames or len(measured))
        elif method != PATH:
            raise InvalidInput(f"method must be {PATH} for a sequence, got {method}")
        elif frames:
            raise InvalidInput("frames must be 0 for a sequence, whose frames Sequence Schedule counts")
        else:
            even = sequence.rescheduled(lambda rows: perceptual_distances(pictures[rows], metric).tolist())
        plot = plot_passes({"images": Report(tuple(distances), measured, metric=metric)})
        return io.NodeOutput(even, plot, ui=ui.PreviewImage(plot, cls=cls))


class EvenFrames(io.ComfyNode):
    """The most even of all frames that two passes made."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragEvenFrames",
            display_name="Even Frames",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "even speed", "pick frames", "perceptual"],
            description=(
                "Of the frames of two passes of one morph it picks those whose steps vary least. Nothing is sampled; "
                "what the first pass found is not lost."
            ),
            inputs=[
                io.Image.Input("images", tooltip="The frames of the second pass, as one batch."),
                AlphasType.Input("alphas", tooltip="The weights those frames have."),
                io.Image.Input("first_pass", tooltip="The frames of the first pass."),
                AlphasType.Input("first_alphas", tooltip="The weights of the first pass."),
                io.Int.Input(
                    "frames", default=0, min=0, max=1024, tooltip="How many to pick; 0: as many as the first pass has."
                ),
                io.Combo.Input("metric", options=list(METRICS), tooltip="As of Reschedule Alphas."),
            ],
            outputs=[
                io.Image.Output("picked", display_name="images", tooltip="The frames, in order."),
                AlphasType.Output("their_alphas", display_name="ALPHAS", tooltip="Their weights."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, images: torch.Tensor, alphas: Any, first_pass: torch.Tensor, first_alphas: Any, frames: int, metric: str
    ) -> io.NodeOutput:
        made: dict[float, torch.Tensor] = {}
        for name, batch, weights in (("images", images, alphas), ("first_pass", first_pass, first_alphas)):
            pictures, known = images_batch(batch, name), alphas_input(weights)
            if len(pictures) != len(known):
                raise InvalidInput(
                    f"{name} has {len(pictures)} frames but its alphas are {len(known)}; they must match"
                )
            made |= dict(zip(known, pictures, strict=True))
        sizes = {tuple(picture.shape) for picture in made.values()}
        if len(sizes) > 1:
            raise InvalidInput(f"images and first_pass must be of one size, got {' and '.join(map(str, sizes))}")
        in_order = tuple(sorted(made))
        pictures = torch.stack([made[alpha] for alpha in in_order])
        wanted = frames or len(first_pass)
        if len(in_order) < wanted:
            raise InvalidInput(f"frames must be at most the {len(in_order)} that both passes have, got {wanted}")
        chosen = evenest(perceptual_distances_of_pairs(pictures.movedim(-1, 1), metric), wanted)
        return io.NodeOutput(pictures[chosen], tuple(in_order[frame] for frame in chosen))
