"""Load Toy Model and Toy Drawing: everything a demo needs, with nothing downloaded."""

from typing import get_args

import torch
from comfy_api.latest import io, ui

from ..morph_core.toy import model as toy
from ..morph_core.toy.drawing import BACKGROUNDS, FUR_COLOURS, KINDS, MOODS, one_drawing
from ..morph_core.toy.words import WORDS
from .host.adapters import CATEGORY
from .host.inputs import checked
from .host.toy import load_clip, load_model, load_vae
from .host.versions import schema

LARGEST_DRAWING = 2048  # pixels a side


class LoadToyModel(io.ComfyNode):
    """The bundled model as genuine MODEL, CLIP and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        known = ", ".join(WORDS[2:])
        return schema(
            node_id="MorphDragLoadToyModel",
            display_name="Load Toy Model",
            category=f"{CATEGORY}/toy",
            search_aliases=["demo", "toy"],
            description=(
                f"A tiny Stable Diffusion, or a tiny Flux, that draws animal faces, {toy.IMAGE_SIZE} pixels a side. It "
                "comes with the pack: nothing to download. Prompts like 'a happy red cat on mint'; the words that it "
                f"knows: {known}."
            ),
            inputs=[
                io.Combo.Input(
                    "network",
                    options=list(get_args(toy.Network)),
                    default="UNet",
                    optional=True,
                    tooltip=(
                        "UNet: in the shape of Stable Diffusion. Transformer: in that of Flux, a flow-matching model, "
                        "sampled from NOISE."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output("model", display_name="MODEL", tooltip="For KSampler and every node here."),
                io.Clip.Output("clip", display_name="CLIP", tooltip="For CLIP Text Encode."),
                io.Vae.Output("vae", display_name="VAE", tooltip="For VAE Encode and VAE Decode."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, network: toy.Network = "UNet") -> io.NodeOutput:
        return io.NodeOutput(load_model(network), load_clip(), load_vae())


class ToyDrawing(io.ComfyNode):
    """An image and its caption for the toy model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragToyDrawing",
            display_name="Toy Drawing",
            category=f"{CATEGORY}/toy",
            search_aliases=["demo", "toy", "animal"],
            has_intermediate_output=True,  # its picture is shown again when it comes from the cache
            description=(
                "Draws an animal's face of the kind the toy model was trained on, at any size, and says what it drew."
            ),
            inputs=[
                io.Combo.Input("animal", options=list(KINDS), tooltip="Decides the ears."),
                io.Combo.Input("colour", options=list(FUR_COLOURS), tooltip="Of the fur."),
                io.Combo.Input("mood", options=list(MOODS), tooltip="Decides mouth and brows."),
                io.Combo.Input("background", options=list(BACKGROUNDS), tooltip="Its colour."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Decides position, size, tilt, gaze and proportions.",
                ),
                io.Int.Input(
                    "size",
                    default=toy.IMAGE_SIZE,
                    min=toy.IMAGE_SIZE,
                    max=LARGEST_DRAWING,
                    step=8,
                    optional=True,
                    tooltip=(
                        f"Side in pixels: {toy.IMAGE_SIZE} for the toy model, 512 for Stable Diffusion 1.5, 1024 for "
                        "SDXL. The drawing is the same and its edges stay sharp."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="IMAGE", tooltip="The drawing."),
                io.String.Output("caption", display_name="caption", tooltip="For CLIP Text Encode's text."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, animal: str, colour: str, mood: str, background: str, seed: int, size: int = toy.IMAGE_SIZE
    ) -> io.NodeOutput:
        drawing = one_drawing(animal, colour, mood, background, torch.Generator().manual_seed(seed))
        image = drawing.render(size).movedim(1, -1)
        return io.NodeOutput(image, drawing.captions[0], ui=ui.PreviewImage(image, cls=cls))
