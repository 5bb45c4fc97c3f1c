"""Morph Report: what a morph's frames measure, in words and as a plot."""

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ..morph_core.morphing.perceptual import METRICS
from ..morph_core.morphing.report import morph_report
from ..morph_core.pictures.perceptual_curve import plot_passes
from .host.adapters import CATEGORY, AlphasType, image_of_one, images_batch, places_input, progress
from .host.inputs import checked
from .host.versions import schema


class MorphReport(io.ComfyNode):
    """Measured passes, nothing predicted."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragMorphReport",
            display_name="Morph Report",
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "measure", "even speed", "perceptual", "path length", "jump", "plot"],
            is_output_node=True,
            has_intermediate_output=True,  # its picture is shown again when it comes from the cache
            description=(
                "Measures a finished morph: how long its path is, how even its steps are, where the picture changes "
                "at once, and how far its ends are from the pictures they should be."
            ),
            inputs=[
                io.Image.Input("images", tooltip="The frames to measure, in order, as one batch."),
                io.Combo.Input(
                    "metric",
                    options=list(METRICS),
                    tooltip=(
                        "How differences are measured. The Laplacian pyramid needs no weights; LPIPS needs "
                        "torchvision's AlexNet or VGG in torch's cache."
                    ),
                ),
                io.Boolean.Input(
                    "closed",
                    default=False,
                    tooltip="The film repeats: measure the step from the last frame to the first, too.",
                ),
                AlphasType.Input(
                    "alphas",
                    optional=True,
                    tooltip=(
                        "The weights that the frames have. With them a change that no spacing can part is told from "
                        "one that more frames would part."
                    ),
                ),
                io.Image.Input(
                    "first_pass", optional=True, tooltip="The frames of the pass before, measured and drawn as well."
                ),
                io.Image.Input(
                    "start_image", optional=True, tooltip="What the first frame should be; the text says how far it is."
                ),
                io.Image.Input(
                    "end_image", optional=True, tooltip="What the last frame should be; the text says how far it is."
                ),
            ],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="The numbers, a sentence each."),
                io.Image.Output("plot", display_name="plot", tooltip="The distance travelled, and the text below."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        images: Tensor,
        metric: str,
        closed: bool,
        alphas: Any = None,
        first_pass: Tensor | None = None,
        start_image: Tensor | None = None,
        end_image: Tensor | None = None,
    ) -> io.NodeOutput:
        frames = _frames(images, "images")
        places = None if alphas is None else places_input(alphas)
        ends = (_end(start_image, "start_image"), _end(end_image, "end_image"))
        report = morph_report(frames, metric, places, *ends, closed, progress(len(frames) - 1 + closed))
        passes, text = {"images": report}, report.text()
        if first_pass is not None:
            before = _frames(first_pass, "first_pass")
            passes["first pass"] = morph_report(
                before, metric, closed=closed, on_step=progress(len(before) - 1 + closed), name="first_pass"
            )
            text += f"\nFirst pass: {passes['first pass'].summary()}"
        plot = plot_passes(passes, text)
        shown = {**ui.PreviewImage(plot, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(text, plot, ui=shown)


def _frames(images: Tensor, name: str) -> Tensor:
    """(F, 3, H, W)."""
    return images_batch(images, name).movedim(-1, 1)


def _end(image: Tensor | None, name: str) -> Tensor | None:
    """(1, 3, H, W)."""
    return None if image is None else image_of_one(image, name).movedim(-1, 0)[None]
