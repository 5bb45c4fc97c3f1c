"""DiffMorpher (Zhang et al., CVPR 2024): two images to a sequence of frames between them.

Every published ingredient is a switch of `Morph`; this file only puts them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..models.latent_diffusion import LatentDiffusion
from ..models.text import Text
from ..morphing.alphas import Alphas, alpha_schedule, reschedule_alphas
from ..morphing.perceptual import perceptual_distances
from ..morphing.report import Report
from .image import PreparedImage, prepare_image
from .keyframe import Frame, keyframes_of
from .local_mask import LocalMask
from .morph_frames import MorphFrames
from .morph_settings import Morph as Morph
from .search import searched_alphas
from .stages import OnStage


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
    metric: str = "laplacian pyramid"

    @property
    def report(self) -> Report:
        """How even the steps are, and where the picture changes at once."""
        return Report(tuple(self.distances.tolist()), self.alphas, metric=self.metric)


def morph(
    model: LatentDiffusion,
    images: tuple[Tensor, Tensor],
    captions: tuple[str, str],
    config: Morph | None = None,
    on_stage: OnStage | None = None,
    mask: Tensor | None = None,
    middle: str | None = None,
) -> MorphResult:
    """Morph one image into another.

    images: two of (1, 3, H, W) in 0..1, of one size. captions: what each shows; DiffMorpher works with equal ones.
    mask: (1, 1, H, W) in 0..1, where the morph takes place: what is 0 stays the first image; None: everywhere. middle:
    a third caption, which the frames between lean towards, see `Morph.middle_weight`.
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
    text = None if middle is None else model.encode_text([middle], (images[0].shape[2], images[0].shape[3]))
    return morph_prepared(model, start, end, config, on_stage, mask, text)


@torch.no_grad()
def morph_prepared(
    model: LatentDiffusion,
    start: PreparedImage,
    end: PreparedImage,
    config: Morph,
    on_stage: OnStage | None = None,
    mask: Tensor | None = None,
    middle: Text | None = None,
) -> MorphResult:
    """The morph between two prepared images, rescheduled if the config says so.

    No frame is sampled again that the first pass has at the same alpha, such as the ends.
    """
    if mask is not None and config.correspondence:
        raise InvalidInput("mask keeps a part of the picture in place, but correspondence leads all of it; use one")
    local = None if mask is None else LocalMask(mask, start.latent)
    ends = keyframes_of(model, [start, end], config, on_stage)
    keep = config.reschedule and config.first_pass_stride == 1
    frames = MorphFrames(model, ends[0], ends[1], config, on_stage, keep, local, middle)
    alphas = alpha_schedule(config.frames)
    if not config.reschedule:
        return _measured(frames.at(alphas), alphas, config)
    first = _measured(frames.at(alphas, config.first_pass_stride), alphas, config)
    if config.rescheduling == "search":
        alphas = searched_alphas(frames, config.frames, config.metric)
    else:
        alphas = reschedule_alphas(alphas, first.distances.tolist(), config.frames)
    return replace(_measured(frames.at(alphas), alphas, config), first_pass=first)


def _measured(frames: Sequence[Frame], alphas: Alphas, config: Morph) -> MorphResult:
    latents, pictures = (torch.cat([getattr(frame, name) for frame in frames]) for name in ("latent", "picture"))
    distances = perceptual_distances(pictures, config.metric)
    return MorphResult(pictures, latents, alphas, distances, metric=config.metric)
