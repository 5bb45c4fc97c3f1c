"""DiffMorpher (Zhang et al., CVPR 2024): two images to a sequence of frames between them.

Every published ingredient is a switch of `Morph`; this file only puts them together.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..attention.end_frames import check_blocks, mixed_self_attention
from ..errors import InvalidInput
from ..lora.blend import blended_loras, check_blend
from ..lora.fit import LoraFit
from ..models.latent_diffusion import LatentDiffusion
from ..morphing.adain import adain
from ..morphing.alphas import Alphas, alpha_schedule, reschedule_alphas
from ..morphing.blend_text import blended
from ..morphing.perceptual import perceptual_distances
from ..morphing.slerp import slerp
from ..sampling import ddim
from ..sampling.direct_inversion import DirectInversion
from ..sampling.schedule import check_share, sigma_after
from ..sampling.trajectory import Trajectory
from .image import PreparedImage, inverted, lora_layers, prepare_image
from .stages import OnStage, stage_reporter


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
    """The morph between two prepared images, with a second pass at rescheduled alphas if the config says so."""
    sigmas = model.backbone.schedule.spaced(config.steps, config.set_alpha_to_one).to(start.latent)
    trajectories = [inverted(model, image, sigmas, on_stage) for image in (start, end)]
    noise = [trajectory.noise for trajectory in trajectories]

    def one_pass(alphas: Alphas) -> MorphResult:
        x = slerp(noise[0], noise[1], alphas)
        if config.adain:
            x = adain(x, noise[0], noise[1], alphas)
        pinned = {0: trajectories[0], len(alphas) - 1: trajectories[1]} if config.exact_ends else {}
        latents = sample_frames(model, x, start, end, alphas, config, sigmas, on_stage, pinned)
        frames = model.decode_latents(latents)
        return MorphResult(frames, latents, alphas, perceptual_distances(frames, config.metric))

    result = one_pass(alpha_schedule(config.frames))
    if not config.reschedule:
        return result
    alphas = reschedule_alphas(result.alphas, result.distances.tolist(), config.frames)
    return replace(one_pass(alphas), first_pass=result)


def sample_frames(
    model: LatentDiffusion,
    x: Tensor,
    start: PreparedImage,
    end: PreparedImage,
    alphas: Alphas,
    config: Morph,
    sigmas: Tensor,
    on_stage: OnStage | None = None,
    pinned_rows: dict[int, Trajectory] | None = None,
) -> Tensor:
    """All frames in one batch: noise (F, C, h, w) at sigmas[0] to latents (F, C, h, w).

    pinned_rows: see `DirectInversion`.
    """
    backbone = model.backbone
    plain = backbone.denoiser(blended(start.text, end.text, alphas))
    mixed_until = sigma_after(sigmas, config.attention)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        with ExitStack() as patches:
            if sigma > mixed_until:
                layers = backbone.attention_layers()
                patches.enter_context(mixed_self_attention(layers, alphas, blocks=config.attention_blocks))
            return plain(x, sigma)

    with blended_loras(lora_layers(model, start), lora_layers(model, end), alphas, config.lora_blend):
        reporter = stage_reporter(on_stage, "sampling frames")
        x = ddim.sample(denoise, x, sigmas, reporter, [DirectInversion(pinned_rows or {})])
    return x / backbone.schedule.scale(sigmas[-1])
