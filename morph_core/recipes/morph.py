"""DiffMorpher (Zhang et al., CVPR 2024): two images to a sequence of frames between them.

Every published ingredient is a switch of `Morph`; this file only puts them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..attention.end_frames import check_blocks
from ..errors import InvalidInput
from ..lora.blend import check_blend
from ..lora.fit import LoraFit
from ..models.latent_diffusion import LatentDiffusion
from ..morphing.alphas import Alphas, alpha_schedule, reschedule_alphas
from ..morphing.perceptual import perceptual_distances
from ..sampling.schedule import check_share
from .image import PreparedImage, prepare_image
from .morph_frames import Frame, MorphFrames
from .stages import OnStage


@dataclass(frozen=True)
class Morph:
    """What to do. Defaults are the published ones, except `metric`: LPIPS needs weights that are not bundled."""

    frames: int = 16
    steps: int = 50
    lora: LoraFit | None = field(default_factory=LoraFit)
    """How to fit the LoRA of each image; None leaves LoRAs out."""
    lora_blend: str = "delta"
    """What is interpolated between the two LoRAs, see `lora.blend.blended_loras`: the paper's "delta", or "factors"."""
    attention: float = 0.6
    """Share of the steps, from the start, with blended self-attention; 0 leaves it out."""
    attention_blocks: str = "up blocks"
    adain: bool = True
    reschedule: bool = True
    first_pass_stride: int = 1
    """How many steps the pass that rescheduling measures takes as one: above 1 it costs less and measures less well."""
    frames_per_batch: int = 0
    """So many frames go through the network at a time, after the first and last; 0: all at once."""
    exact_ends: bool = False
    """Hold the first and last frame to their inversions (Direct Inversion): they are the images then."""
    metric: str = "laplacian pyramid"
    set_alpha_to_one: bool = True
    """The ᾱ of an image: 1, as in ComfyUI, or, as in the published code, ᾱ_0; see `sampling.schedule.ddim_sigmas`."""

    def __post_init__(self) -> None:
        alpha_schedule(self.frames)
        check_blend(self.lora_blend)
        check_blocks(self.attention_blocks)
        check_share(self.attention)
        if self.first_pass_stride < 1 or self.frames_per_batch < 0:
            raise InvalidInput(
                f"first_pass_stride must be 1 or more and frames_per_batch not negative, got {self.first_pass_stride} "
                f"and {self.frames_per_batch}"
            )


@dataclass(frozen=True)
class MorphResult:
    """frames: (F, 3, H, W) in 0..1. latents: (F, C, h, w). alphas, distances: of `frames`, F and F − 1 numbers.

    first_pass: the frames at even alphas that the rescheduling was based on, or None without rescheduling.
    """

    frames: Tensor
    latents: Tensor
    alphas: Alphas
    distances: Tensor
    first_pass: "MorphResult | None" = None


def morph(
    model: LatentDiffusion,
    images: tuple[Tensor, Tensor],
    captions: tuple[str, str],
    config: Morph | None = None,
    on_stage: OnStage | None = None,
) -> MorphResult:
    """Morph one image into another.

    images: two of (1, 3, H, W) in 0..1, of one size. captions: what each shows; DiffMorpher works with equal ones.
    """
    config = config or Morph()
    perceptual_distances(torch.zeros(2, 3, 64, 64), config.metric)  # fails before the work, not after it
    if images[0].shape != images[1].shape or len(images[0]) != 1:
        shapes = " and ".join(str(tuple(image.shape)) for image in images)
        raise InvalidInput(f"a morph takes two images of the same shape (1, 3, H, W), got {shapes}")
    start, end = (
        prepare_image(model, image, caption, config.lora, on_stage)
        for image, caption in zip(images, captions, strict=True)
    )
    return morph_prepared(model, start, end, config, on_stage)


@torch.no_grad()
def morph_prepared(
    model: LatentDiffusion,
    start: PreparedImage,
    end: PreparedImage,
    config: Morph,
    on_stage: OnStage | None = None,
) -> MorphResult:
    """The morph between two prepared images, with a second pass at rescheduled alphas if the config says so.

    The second pass samples no frame again that the first has at the same alpha, such as the ends.
    """
    frames = MorphFrames(model, start, end, config, on_stage)
    alphas = alpha_schedule(config.frames)
    if not config.reschedule:
        return _measured(frames.at(alphas), alphas, config)
    first = _measured(frames.at(alphas, config.first_pass_stride), alphas, config)
    alphas = reschedule_alphas(alphas, first.distances.tolist(), config.frames)
    return replace(_measured(frames.at(alphas), alphas, config), first_pass=first)


def _measured(frames: Sequence[Frame], alphas: Alphas, config: Morph) -> MorphResult:
    latents, pictures = (torch.cat([getattr(frame, name) for frame in frames]) for name in ("latent", "picture"))
    return MorphResult(pictures, latents, alphas, perceptual_distances(pictures, config.metric))
