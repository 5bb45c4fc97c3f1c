"""Add Picture, Add Keyframe and Blend Keyframes: any number of pictures as one morph."""

from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..morph_core.attention.end_frames import BLOCKS, check_blocks
from ..morph_core.errors import InvalidInput, shown
from ..morph_core.morphing.adain import adain
from ..morph_core.morphing.alphas import Alphas
from ..morph_core.morphing.blend_text import as_long, blend_text
from ..morph_core.morphing.slerp import slerp
from ..morph_core.morphing.timeline import Timeline
from .blend import check_same_options
from .host.adapters import CATEGORY, AlphasType, check_like, single_conditioning, timeline_input
from .host.blended_loras import BlendedLoras
from .host.end_frames import EndFrames
from .host.frame_batches import InSegments
from .host.inputs import checked
from .host.inverted import inverted_input, inverted_outputs, inverted_values
from .host.lora_layers import lora_layers
from .host.uncompiled import run_uncompiled
from .host.versions import known, schema

KeyframesType = io.Custom("KEYFRAMES")


@dataclass(frozen=True)
class Keyframe:
    """A picture as its noise, of DDIM Invert, its prompt, and its LORA_MODEL if it has one."""

    noise: Any
    positive: list[Any]
    lora: dict[str, Tensor] | None


def keyframes_input(keyframes: Any, name: str = "keyframes") -> tuple[Keyframe, ...]:
    """The value of an input of keyframes."""
    if not (isinstance(keyframes, tuple) and all(isinstance(item, Keyframe) for item in keyframes)):
        raise InvalidInput(f"{name} must be keyframes, from Add Keyframe; got {shown(keyframes)}")
    return keyframes


class AddPicture(io.ComfyNode):
    """Pictures and their prompts as lists, for which stock nodes run once each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragAddPicture",
            display_name="Add Picture",
            category=f"{CATEGORY}/sequence",
            search_aliases=["list of images", "keyframe", "sequence", "morph many"],
            is_input_list=True,
            description=(
                "Puts one more picture and its prompt at the end of two lists. What takes them, VAE Encode, CLIP Text "
                "Encode, Fit Image LoRA or DDIM Invert, runs once for each: six pictures need no more nodes than two."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The picture that comes next."),
                io.String.Input("prompt", force_input=True, tooltip="What it shows."),
                io.Image.Input("images", optional=True, tooltip="The pictures before it, from Add Picture."),
                io.String.Input("prompts", optional=True, force_input=True, tooltip="Their prompts."),
            ],
            outputs=[
                io.Image.Output("all_images", display_name="images", is_output_list=True, tooltip="All so far."),
                io.String.Output("all_prompts", display_name="prompts", is_output_list=True, tooltip="One a picture."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        image: list[Tensor],
        prompt: list[str],
        images: list[Tensor] | None = None,
        prompts: list[str] | None = None,
    ) -> io.NodeOutput:
        before, words = images or [], prompts or []
        if len(before) != len(words):
            raise InvalidInput(
                f"images has {len(before)} pictures but prompts has {len(words)}; connect both to the same Add Picture"
            )
        if len(image) != len(prompt):
            raise InvalidInput(f"image has {len(image)} pictures but prompt has {len(prompt)}; give each picture one")
        new = [picture for batch in image for picture in batch.split(1)]
        if len(new) != len(image):
            raise InvalidInput(f"image must hold one picture, got a batch of {len(new)}; add them one by one")
        return io.NodeOutput([*before, *new], [*words, *prompt])


class AddKeyframe(io.ComfyNode):
    """Pictures of a sequence, as a morph knows them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragAddKeyframe",
            display_name="Add Keyframe",
            category=f"{CATEGORY}/sequence",
            search_aliases=["keyframe", "sequence", "morph many", "loop"],
            is_input_list=True,
            description=(
                "Puts an inverted picture at the end of a sequence, or several, where they come as lists from nodes "
                "behind Add Picture."
            ),
            inputs=[
                inverted_input("noise", "The picture's noise, from DDIM Invert: LATENT, or NOISE of a flow model."),
                io.Conditioning.Input("positive", tooltip="The picture's prompt, of its inversion."),
                io.LoraModel.Input("lora", optional=True, tooltip="The picture's LoRA, if it has one."),
                KeyframesType.Input("keyframes", optional=True, tooltip="The pictures before it, from Add Keyframe."),
            ],
            outputs=[KeyframesType.Output("all_keyframes", display_name="KEYFRAMES", tooltip="All so far.")],
        )

    @classmethod
    @checked
    def execute(
        cls,
        noise: list[Any],
        positive: list[Any],
        lora: list[Any] | None = None,
        keyframes: list[Any] | None = None,
    ) -> io.NodeOutput:
        loras = lora or [None] * len(noise)
        if not len(noise) == len(positive) == len(loras):
            raise InvalidInput(
                f"noise is of {len(noise)} pictures, positive of {len(positive)} and lora of {len(loras)}; give each "
                "picture its own"
            )
        before = [item for chain in keyframes or [] for item in keyframes_input(chain)]
        return io.NodeOutput((*before, *(Keyframe(*parts) for parts in zip(noise, positive, loras, strict=True))))


class BlendKeyframes(io.ComfyNode):
    """All of DiffMorpher between each two pictures, as one batch for a sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragBlendKeyframes",
            display_name="Blend Keyframes",
            category=f"{CATEGORY}/sequence",
            search_aliases=["sequence", "morph many", "loop", "DiffMorpher"],
            description=(
                "What Slerp Latents, AdaIN, Blend Conditioning, LoRA Blend and Attention KV Inject do between two "
                "pictures, between each two of a sequence. The batch has each frame once: Arrange Frames puts them in "
                "order."
            ),
            inputs=[
                io.Model.Input("model", tooltip="Any MODEL, without the pictures' LoRAs."),
                KeyframesType.Input("keyframes", tooltip="The pictures, from Add Keyframe."),
                AlphasType.Input("alphas", tooltip="From Sequence Schedule or Reschedule Alphas."),
                io.Float.Input(
                    "adain",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="AdaIN's strength: colours and contrast between those of both pictures.",
                ),
                io.Float.Input(
                    "attention",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Attention KV Inject's strength: 0 leaves it out.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the steps, from the first, in which the attention is blended.",
                ),
                io.Combo.Input("blocks", options=list(BLOCKS), tooltip="Where it is blended; up blocks as published."),
                known(
                    io.Int.Input,
                    "frames_per_batch",
                    default=0,
                    min=0,
                    max=1024,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Set it when memory runs out: so many frames of a segment go through the model at a time. 0: a "
                        "whole segment. The result is the same."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output("patched_model", display_name="MODEL", tooltip="The model with all patches."),
                io.Conditioning.Output("conditioning", display_name="CONDITIONING", tooltip="One prompt a frame."),
                *inverted_outputs("A batch with one row a frame"),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        keyframes: Any,
        alphas: Any,
        adain: float,
        attention: float,
        end_percent: float,
        blocks: str,
        frames_per_batch: int = 0,
    ) -> io.NodeOutput:
        check_blocks(blocks)
        pictures, timeline = keyframes_input(keyframes), timeline_input(alphas)
        if len(pictures) != timeline.pictures:
            raise InvalidInput(
                f"alphas are of {timeline.pictures} pictures but keyframes has {len(pictures)}; connect Sequence "
                "Schedule to the same Add Keyframe"
            )
        noise = {f"keyframe {number}": picture.noise for number, picture in enumerate(pictures, start=1)}
        latents, outputs = inverted_values("Blend Keyframes", **noise)
        for name, latent in zip(noise, latents, strict=True):
            check_like(latents[0], latent, name, "keyframe 1")
        rows = timeline.between(latents, _noise_between(adain))
        conditioning = _blended([picture.positive for picture in pictures], timeline)
        patched = model.clone()
        loras = [
            {} if picture.lora is None else lora_layers(model, picture.lora, f"lora of keyframe {number}")
            for number, picture in enumerate(pictures, start=1)
        ]
        if any(loras):
            BlendedLoras("Blend Keyframes", loras, timeline.sampled).patch(patched)
        if attention:
            EndFrames(timeline.sampled, attention, end_percent, blocks).patch(patched)
        InSegments(timeline, frames_per_batch).patch(patched)
        run_uncompiled(patched, "Blend Keyframes")
        return io.NodeOutput(patched, conditioning, *outputs(rows).result)


def _noise_between(strength: float) -> Any:
    def blend(start: Tensor, end: Tensor, alphas: Alphas) -> Tensor:
        frames = slerp(start, end, alphas)
        return adain(frames, start, end, alphas, strength) if strength else frames

    return blend


def _blended(prompts: list[list[Any]], timeline: Timeline) -> list[Any]:
    """One CONDITIONING with a row a frame."""
    named_prompts = [single_conditioning(prompt, f"positive of keyframe {n}") for n, prompt in enumerate(prompts, 1)]
    texts, options_of = zip(*named_prompts, strict=True)
    for options in options_of[1:]:
        check_same_options(options_of[0], options)
    pooled = [options.get("pooled_output") for options in options_of]
    options = dict(options_of[0])
    if any(item is not None for item in pooled):
        if any(item is None for item in pooled):
            raise InvalidInput("some keyframes' prompts have a pooled output, others none; encode all with one CLIP")
        options["pooled_output"] = timeline.between(pooled, blend_text)
    return [[timeline.between(as_long(texts), blend_text), options]]
