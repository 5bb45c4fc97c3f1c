"""Sequence Schedule, Sequence From Values and Arrange Frames: when a sequence shows what."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..morph_core.errors import InvalidInput, shown
from ..morph_core.morphing.alphas import EASINGS
from ..morph_core.morphing.timeline import timeline, timeline_of_values
from .host.adapters import CATEGORY, AlphasType, images_batch, timeline_input
from .host.inputs import checked
from .host.versions import schema
from .keyframes import KeyframesType, keyframes_input

CLOSED = "Whether the last picture leads back to the first: a loop, which does not show its first frame again."


class SequenceSchedule(io.ComfyNode):
    """Frames, easing and holds of each segment."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragSequenceSchedule",
            display_name="Sequence Schedule",
            category=f"{CATEGORY}/sequence",
            search_aliases=["keyframe timing", "hold", "easing", "loop"],
            description=(
                "When a sequence shows what. Each field has one entry for all, or one for each segment or picture, "
                "parted by commas."
            ),
            inputs=[
                KeyframesType.Input("keyframes", tooltip="The pictures, from Add Keyframe."),
                io.String.Input(
                    "frames",
                    default="16",
                    tooltip="Frames of each segment, both its pictures included: 16, or 16, 8, 24.",
                ),
                io.String.Input(
                    "easings",
                    default="linear",
                    tooltip=f"How each segment's frames are spread: {', '.join(EASINGS)}.",
                ),
                io.String.Input(
                    "holds", default="0", tooltip="For how many frames more each picture stays: 0, or 4, 0, 4."
                ),
                io.Boolean.Input("closed", default=False, tooltip=CLOSED),
            ],
            outputs=[AlphasType.Output("alphas", display_name="ALPHAS", tooltip="For Blend Keyframes.")],
        )

    @classmethod
    @checked
    def execute(cls, keyframes: Any, frames: str, easings: str, holds: str, closed: bool) -> io.NodeOutput:
        pictures = len(keyframes_input(keyframes))
        counts, stays = (_whole_numbers(name, text) for name, text in (("frames", frames), ("holds", holds)))
        return io.NodeOutput(timeline(pictures, counts, _entries("easings", easings), stays, closed))


def _entries(name: str, text: str) -> list[str]:
    entries = [entry.strip() for entry in text.split(",")]
    if not all(entries):
        raise InvalidInput(f"{name} must be entries parted by commas, none of them empty; got {shown(text)}")
    return entries


def _whole_numbers(name: str, text: str) -> list[int]:
    entries = _entries(name, text)
    if not all(entry.lstrip("-").isdecimal() for entry in entries):
        raise InvalidInput(f"{name} must be whole numbers, parted by commas; got {shown(text)}")
    return [int(entry) for entry in entries]


class SequenceFromValues(io.ComfyNode):
    """A curve or a sound in place of a schedule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragSequenceFromValues",
            display_name="Sequence From Values",
            category=f"{CATEGORY}/sequence",
            search_aliases=["audio reactive", "curve", "float list"],
            is_input_list=True,
            description=(
                "One number a frame says what it shows: 0 the first picture, 1 the last, anything between in any "
                "order. For the loudness of a sound, a curve, or any list of numbers."
            ),
            inputs=[
                KeyframesType.Input("keyframes", tooltip="The pictures, from Add Keyframe."),
                io.Float.Input(
                    "values",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    force_input=True,
                    tooltip="A number from 0 to 1 for each frame, as a list.",
                ),
                io.Boolean.Input("closed", default=False, tooltip=f"{CLOSED} 1 is the first picture then."),
            ],
            outputs=[AlphasType.Output("alphas", display_name="ALPHAS", tooltip="For Blend Keyframes.")],
        )

    @classmethod
    @checked
    def execute(cls, keyframes: list[Any], values: list[float], closed: list[bool]) -> io.NodeOutput:
        return io.NodeOutput(timeline_of_values(values, len(keyframes_input(keyframes[0])), closed[0]))


class ArrangeFrames(io.ComfyNode):
    """From frames as they were sampled to frames as they are shown."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragArrangeFrames",
            display_name="Arrange Frames",
            category=f"{CATEGORY}/sequence",
            search_aliases=["sequence", "hold", "order frames"],
            description=(
                "Puts the frames of Blend Keyframes, each of which is sampled once, into the order of the sequence: "
                "with holds, and in whatever order values ask for them."
            ),
            inputs=[
                io.Image.Input("images", tooltip="The frames, decoded, as one batch."),
                AlphasType.Input("alphas", tooltip="Those that Blend Keyframes had."),
            ],
            outputs=[io.Image.Output("arranged", display_name="images", tooltip="The sequence.")],
        )

    @classmethod
    @checked
    def execute(cls, images: Tensor, alphas: Any) -> io.NodeOutput:
        sequence, pictures = timeline_input(alphas), images_batch(images, "images")
        if len(pictures) != len(sequence.sampled):
            raise InvalidInput(
                f"images has {len(pictures)} frames but the sequence of alphas has {len(sequence.sampled)} to sample; "
                "connect the alphas that Blend Keyframes had"
            )
        return io.NodeOutput(pictures[sequence.shown])
