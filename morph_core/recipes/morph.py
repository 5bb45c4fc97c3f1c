"""DiffMorpher (Zhang et al., CVPR 2024): two images to a sequence of frames between them.

Every published ingredient is a switch of `Morph`; this file only puts them together.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..attention.end_frames import check_blocks, check_share, last_mixed_sigma, mixed_self_attention
from ..denoise import Denoise, unet_denoiser
from ..errors import InvalidInput
from ..lora.blend import LoraWeights, LowRank, blended_loras, check_blend, read_lora
from ..lora.fit import LoraFit, fit_lora
from ..models.backbone import Text, UnetBackbone
from ..models.diffusers_pipeline import LatentDiffusion
from ..morphing.adain import adain
from ..morphing.alphas import Alphas, alpha_schedule, reschedule_alphas
from ..morphing.blend_text import blend_text
from ..morphing.perceptual import perceptual_distances
from ..morphing.slerp import slerp
from ..sampling import ddim
from ..sampling.schedule import ddim_sigmas, latent_scale, sigmas_of
from ..sampling.trajectory import Trajectory, put_back

OnStage = Callable[[str, int, int], None]
"""Called as work goes on with (what is being done, steps done, steps in all); may raise to cancel."""


@dataclass(frozen=True)
class Morph:
    """What to do. Defaults are the published ones, except `metric`: LPIPS needs weights that are not bundled."""

    frames: int = 16
    steps: int = 50
    lora: LoraFit | None = field(default_factory=LoraFit)
    """How to fit the LoRA of each image; None leaves LoRAs out."""
    lora_blend: str = "delta"
    """What is interpolated between the two LoRAs, see `lora.blended_loras`: the paper's "delta", or "factors"."""
    attention: float = 0.6
    """Share of the steps, from the start, with blended self-attention; 0 leaves it out."""
    attention_blocks: str = "up blocks"
    adain: bool = True
    reschedule: bool = True
    exact_ends: bool = False
    """Hold the first and last frame to their inversions (Direct Inversion): they are the images then."""
    metric: str = "laplacian pyramid"
    set_alpha_to_one: bool = True
    """The ᾱ of an image: 1, as in ComfyUI, or, as in the published code, ᾱ_0; see `schedule.ddim_sigmas`."""

    def __post_init__(self) -> None:
        alpha_schedule(self.frames)
        check_blend(self.lora_blend)
        check_blocks(self.attention_blocks)
        check_share(self.attention)


@dataclass(frozen=True)
class End:
    """One of the two images, ready to be morphed: latent (1, C, h, w), text (1, T, D), its LoRA or nothing."""

    latent: Tensor
    text: Tensor
    lora: LoraWeights


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
    ends = [
        prepare_end(model, image, caption, config.lora, on_stage)
        for image, caption in zip(images, captions, strict=True)
    ]
    return morph_ends(model, ends[0], ends[1], config, on_stage)


def prepare_end(
    model: LatentDiffusion, image: Tensor, caption: str, lora: LoraFit | None, on_stage: OnStage | None = None
) -> End:
    """Encode an image (1, 3, H, W) and its caption and fit its LoRA: the part that need not be done twice."""
    latent, text = model.encode_images(image), model.encode_text([caption])
    if lora is None:
        return End(latent, text, {})
    on_step = stage_reporter(on_stage, "fitting LoRA")
    backbone = UnetBackbone(model.unet, model.train_alphas, model.prediction)
    fitted = fit_lora(backbone, latent, Text(text), lora, on_step)
    return End(latent, text, fitted.weights)


@torch.no_grad()
def morph_ends(
    model: LatentDiffusion, start: End, end: End, config: Morph, on_stage: OnStage | None = None
) -> MorphResult:
    """The morph between two prepared ends, with a second pass at rescheduled alphas if the config says so."""
    sigmas = ddim_sigmas(sigmas_of(model.train_alphas).to(start.latent), config.steps, config.set_alpha_to_one)
    ways = [_trace_end(model, x, sigmas, on_stage) for x in (start, end)]
    noise = [way.noise for way in ways]

    def one_pass(alphas: Alphas) -> MorphResult:
        x = slerp(noise[0], noise[1], alphas)
        if config.adain:
            x = adain(x, noise[0], noise[1], alphas)
        pins = {0: ways[0], len(alphas) - 1: ways[1]} if config.exact_ends else {}
        latents = sample_frames(model, x, start, end, alphas, config, sigmas, on_stage, pins)
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
    start: End,
    end: End,
    alphas: Alphas,
    config: Morph,
    sigmas: Tensor,
    on_stage: OnStage | None = None,
    pins: dict[int, Trajectory] | None = None,
) -> Tensor:
    """All frames in one batch: noise (F, C, h, w) at sigmas[0] to latents (F, C, h, w). pins: see `put_back`."""
    plain = unet_denoiser(
        model.unet, blend_text(start.text, end.text, alphas), sigmas_of(model.train_alphas).to(x), model.prediction
    )
    threshold = last_mixed_sigma(sigmas, config.attention)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        with ExitStack() as patches:
            if sigma > threshold:
                patches.enter_context(mixed_self_attention(model.unet, alphas, blocks=config.attention_blocks))
            return plain(x, sigma)

    with blended_loras(lora_layers(model, start), lora_layers(model, end), alphas, config.lora_blend):
        reporter = stage_reporter(on_stage, "sampling frames")
        x = ddim.sample(denoise, x, sigmas, reporter, lambda step, x: put_back(x, pins or {}, step))
    return x / latent_scale(sigmas[-1])


def _trace_end(model: LatentDiffusion, end: End, sigmas: Tensor, on_stage: OnStage | None) -> Trajectory:
    denoise: Denoise = unet_denoiser(
        model.unet, end.text, sigmas_of(model.train_alphas).to(end.latent), model.prediction
    )
    with blended_loras(lora_layers(model, end), {}, (0.0,)):
        x = end.latent * latent_scale(sigmas[-1])
        return ddim.trace(denoise, x, sigmas, stage_reporter(on_stage, "inverting"))


def lora_layers(model: LatentDiffusion, end: End) -> dict[nn.Module, LowRank]:
    """What an end's LoRA updates, see `lora.read_lora`; nothing if it has none."""
    return read_lora(end.lora, model.unet) if end.lora else {}


def stage_reporter(on_stage: OnStage | None, stage: str) -> Callable[..., None] | None:
    """`on_stage` as the callback of a loop that is one stage."""
    if on_stage is None:
        return None
    return lambda done, total, *_: on_stage(stage, done, total)
