"""A picture that frames lie between: inverted once and sampled once, for every segment that it ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..models.latent_diffusion import LatentDiffusion
from ..sampling.trajectory import Trajectory
from .image import PreparedImage, all_inverted
from .morph_settings import Morph
from .stages import OnStage


@dataclass(frozen=True)
class Frame:
    """latent: (1, C, h, w). picture: (1, 3, H, W) in 0..1."""

    latent: Tensor
    picture: Tensor


@dataclass
class Keyframe:
    """trajectory: from the image to its noise. frame: the image as the model redraws it, once it was sampled.

    contexts: what its row gave the attention layers, by sigma and then by part of a layer, of the steps that were kept.
    """

    image: PreparedImage
    trajectory: Trajectory
    frame: Frame | None = None
    contexts: dict[float, dict[Any, Tensor]] = field(default_factory=dict)


def morph_sigmas(model: LatentDiffusion, config: Morph, like: Tensor) -> Tensor:
    """The sigmas (S + 1,) that a morph inverts and samples through."""
    return model.backbone.schedule.spaced(config.steps, config.set_alpha_to_one).to(like)


def keyframes_of(
    model: LatentDiffusion, images: Sequence[PreparedImage], config: Morph, on_stage: OnStage | None = None
) -> list[Keyframe]:
    """Prepared images, each inverted once."""
    sigmas = morph_sigmas(model, config, images[0].latent)
    trajectories = all_inverted(model, images, sigmas, on_stage)
    return [Keyframe(image, trajectory) for image, trajectory in zip(images, trajectories, strict=True)]
