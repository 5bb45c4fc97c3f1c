"""Match Layouts: where two images' layouts differ, both ends of their morph led to each frame's own."""

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..morph_core.errors import InvalidInput
from ..morph_core.matching.aligned import AlignedEnds
from ..morph_core.matching.descriptors import descriptors
from ..morph_core.matching.matches import Matches, match_layouts
from ..morph_core.pictures.handle_tracks import as_image
from ..morph_core.pictures.matches import draw_matches
from .blend import ALPHAS_TOOLTIP
from .host.adapters import CATEGORY, AlphasType, alphas_input, check_pair, image_of_one, single_latent
from .host.backbone import check_latent, scaled_latent, shadowed, unet_config
from .host.inputs import checked
from .host.inverted import inverted_input, inverted_values
from .host.matches import MatchesType
from .host.prompt import read_prompt
from .host.versions import schema

NODE = "Match Layouts"


class MatchLayouts(io.ComfyNode):
    """Correspondence by the model's own features, between DDIM Invert and Slerp Latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragMatchLayouts",
            display_name=NODE,
            category=f"{CATEGORY}/morph",
            search_aliases=["morph", "correspondence", "align", "warp", "optical flow", "DIFT", "AlignMorph"],
            has_intermediate_output=True,  # its picture is shown again when it comes from the cache
            description=(
                "For two images whose layouts differ (position, size, tilt): finds which places belong together, by "
                "features of the model itself, and leads both noises from one layout to the other, frame by frame, so "
                "that a morph moves what it would otherwise fade. Goes between DDIM Invert and Slerp Latents."
            ),
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Stable Diffusion UNet, whose features are compared. No LoRA needed."
                ),
                inverted_input("start", "The first image's noise, from DDIM Invert."),
                inverted_input("end", "The second image's noise, from DDIM Invert."),
                io.Latent.Input("start_image", tooltip="The first image, from VAE Encode."),
                io.Latent.Input("end_image", tooltip="The second image, from VAE Encode."),
                io.Conditioning.Input("start_positive", tooltip="A prompt that describes the first image."),
                io.Conditioning.Input("end_positive", tooltip="That of the second. It may be the same."),
                AlphasType.Input("alphas", tooltip=ALPHAS_TOOLTIP),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="The share of the way that layouts are led. 0: nothing moves, as without this node.",
                ),
                io.Image.Input("start_picture", optional=True, tooltip="To draw the matches on: what was encoded."),
                io.Image.Input("end_picture", optional=True, tooltip="That of the second image."),
            ],
            outputs=[
                io.Latent.Output("start_latent", display_name="start LATENT", tooltip=_of("first", "LATENTs")),
                io.Latent.Output("end_latent", display_name="end LATENT", tooltip=_of("second", "LATENTs")),
                MatchesType.Output("matches", display_name="MATCHES", tooltip="For matches of Attention KV Inject."),
                io.Image.Output("picture", display_name="picture", tooltip="Which places belong together, as dots."),
                io.Noise.Output("start_noise", display_name="start NOISE", tooltip=_of("first", "NOISE")),
                io.Noise.Output("end_noise", display_name="end NOISE", tooltip=_of("second", "NOISE")),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls,
        model: Any,
        start: Any,
        end: Any,
        start_image: dict[str, Any],
        end_image: dict[str, Any],
        start_positive: list[Any],
        end_positive: list[Any],
        alphas: Any,
        strength: float,
        start_picture: Tensor | None = None,
        end_picture: Tensor | None = None,
    ) -> io.NodeOutput:
        unet_config(model, ", or leave this node out")
        frame_alphas = alphas_input(alphas)
        noises, outputs = inverted_values(NODE, start=start, end=end)
        check_pair(noises[0], noises[1])
        sources = ((start_image, start_positive, "start"), (end_image, end_positive, "end"))
        matches = _matched(model, sources, noises[0].shape).scaled(strength)
        (start_latent, start_noise), (end_latent, end_noise) = (
            outputs(rows).args for rows in AlignedEnds(matches).latents(*noises, frame_alphas)
        )
        pictures = [
            _shown(model, single_latent(image, name), picture, name)
            for (image, _, name), picture in zip(sources, (start_picture, end_picture), strict=True)
        ]
        drawn = as_image(draw_matches(*pictures, matches))
        return io.NodeOutput(start_latent, end_latent, matches, drawn, start_noise, end_noise)


def _of(which: str, kind: str) -> str:
    return f"The {which} image's noise as it lies in each frame, for Slerp Latents, where {kind} came in."


def _matched(model: Any, sources: Any, shape: torch.Size) -> Matches:
    """sources: LATENT, CONDITIONING and "start" or "end" of either image. shape: of the noises."""
    read = []
    for image, positive, name in sources:
        samples = single_latent(image, f"{name}_image")
        check_latent(model, samples, f"{name}_image")
        if samples.shape != shape:
            raise InvalidInput(
                f"{name}_image is of shape {tuple(samples.shape)}, {name} of {tuple(shape)}; connect the LATENT that "
                "was inverted"
            )
        read.append((samples, read_prompt(model, positive, f"{name}_positive", samples)))
    with shadowed(model) as backbone:
        features = [
            descriptors(backbone, prompt.to(backbone.device), scaled_latent(model, samples), seed=seed)
            for seed, (samples, prompt) in enumerate(read)
        ]
    return match_layouts(*features)


def _shown(model: Any, samples: Tensor, picture: Tensor | None, name: str) -> Tensor:
    """(H, W, 3) in 0..1: the picture, else the guess at it that ComfyUI previews a latent by."""
    if picture is not None:
        return image_of_one(picture, f"{name}_picture")
    latent_format = model.get_model_object("latent_format")
    factors, bias = latent_format.latent_rgb_factors, getattr(latent_format, "latent_rgb_factors_bias", None)
    if factors is None:
        return torch.full((*samples.shape[-2:], 3), 0.5)
    colours = latent_format.process_in(samples[0].float()).movedim(0, -1) @ torch.tensor(factors)
    return ((colours + torch.tensor(bias or [0.0] * 3) + 1) / 2).clamp(0, 1)
