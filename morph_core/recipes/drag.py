"""A point of an image dragged to where it should be: DragDiffusion's steps, from image to image.

Fit a LoRA, invert part of the way, drag the latent, and sample it beside the original, at whose keys and values it
looks. Every part is a switch of `Drag`; this file only puts them together.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import overload

import torch
from torch import Tensor

from ..attention.end_frames import check_blocks, first_row_alphas, mixed_self_attention
from ..crop import free_cells
from ..denoise import Denoise
from ..dragging.latent import DragLatent, DragResult, drag_latent
from ..dragging.moves import Warp
from ..dragging.points import DragPoints
from ..dragging.warp import warp_latent
from ..errors import InvalidInput
from ..lora.fit import LoraFit
from ..lora.merge import whole_lora
from ..models.features import DEFAULT_BLOCK, up_block_features
from ..models.latent_diffusion import LatentDiffusion
from ..sampling import ddim
from .image import PreparedImage, inverted, lora_layers, prepare_image
from .stages import OnStage, stage_reporter
from .warp_drag import WarpDrag, WarpedImage, warp_drag


@dataclass(frozen=True)
class Drag:
    """What to do. Defaults are DragDiffusion's."""

    steps: int = 50
    strength: float = 0.7
    """Share of the steps that are inverted and sampled again."""
    lora: LoraFit | None = field(default_factory=lambda: LoraFit(steps=80, learning_rate=5e-4))
    """How to fit the image's LoRA; None leaves it out."""
    latent: DragLatent = field(default_factory=DragLatent)
    warp: Warp | None = None
    """How to warp the inverted latent first, so that the optimisation begins near the targets; None: it does not."""
    feature_block: str = DEFAULT_BLOCK
    reference: str | None = "last two up blocks"
    """Where the dragged row looks at the original's keys and values, one of `end_frames.BLOCKS`; None for nowhere."""
    set_alpha_to_one: bool = True
    """The ᾱ of an image: 1, as in ComfyUI, or, as in the published code, ᾱ_0; see `sampling.schedule.ddim_sigmas`."""

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise InvalidInput(f"strength must be above 0 and at most 1, got {self.strength}")
        if self.reference is not None:
            check_blocks(self.reference)


@dataclass(frozen=True)
class DraggedImage:
    """original, dragged: (1, 3, H, W) in 0..1, the original as the model redraws it. drag: how the latent went."""

    original: Tensor
    dragged: Tensor
    drag: DragResult


@overload
def drag(
    model: LatentDiffusion,
    image: Tensor,
    caption: str,
    points: DragPoints,
    config: Drag | None = None,
    mask: Tensor | None = None,
    on_stage: OnStage | None = None,
) -> DraggedImage: ...
@overload
def drag(
    model: LatentDiffusion,
    image: Tensor,
    caption: str,
    points: DragPoints,
    config: WarpDrag,
    mask: Tensor | None = None,
    on_stage: OnStage | None = None,
) -> WarpedImage: ...
def drag(
    model: LatentDiffusion,
    image: Tensor,
    caption: str,
    points: DragPoints,
    config: Drag | WarpDrag | None = None,
    mask: Tensor | None = None,
    on_stage: OnStage | None = None,
) -> DraggedImage | WarpedImage:
    """Drag points of an image (1, 3, H, W) in 0..1: by a warp, or by what the model knows.

    mask: (1, 1, H, W), above 0 on what a warp moves, and where an optimised drag may change the image.
    """
    if isinstance(config, WarpDrag):
        return warp_drag(model, image, caption, points, config, mask, on_stage)
    config = config or Drag()
    prepared = prepare_image(model, image, caption, config.lora, on_stage)
    return drag_prepared(model, prepared, points, config, mask, on_stage)


def drag_prepared(
    model: LatentDiffusion,
    image: PreparedImage,
    points: DragPoints,
    config: Drag,
    mask: Tensor | None = None,
    on_stage: OnStage | None = None,
) -> DraggedImage:
    """As `drag`, of an image whose latent, text and LoRA are known, so that it can be dragged again."""
    backbone = model.backbone
    steps = max(1, round(config.strength * config.steps))
    sigmas = backbone.schedule.spaced(config.steps, config.set_alpha_to_one)[config.steps - steps :].to(image.latent)
    noise = inverted(model, image, sigmas, on_stage).noise
    denoise = backbone.denoiser(image.text)
    read = up_block_features(backbone.up_blocks(), denoise, config.feature_block)
    with whole_lora(lora_layers(model, image)):
        reporter = stage_reporter(on_stage, "dragging")
        start = None if config.warp is None else warped_noise(noise, points, mask, config.warp)
        result = drag_latent(read, backbone.schedule, noise, sigmas, points, config.latent, mask, reporter, start)
        remaining, reference = sigmas[result.level :], config.reference
        images = sample_beside(model, denoise, result.original, result.dragged, remaining, reference, on_stage)
    return DraggedImage(images[:1], images[1:], result)


def warped_noise(noise: Tensor, points: DragPoints, mask: Tensor | None, warp: Warp) -> Tensor:
    """An inverted latent (1, C, h, w) warped as its picture would be. mask: (1, 1, H, W), of the picture."""
    cells = None if mask is None else free_cells(mask, (noise.shape[2], noise.shape[3]))[None, None]
    return warp_latent(noise, points, cells, warp).values


@torch.no_grad()
def sample_beside(
    model: LatentDiffusion,
    denoise: Denoise,
    original: Tensor,
    dragged: Tensor,
    sigmas: Tensor,
    reference: str | None,
    on_stage: OnStage | None = None,
) -> Tensor:
    """The original's and the dragged latent's images (2, 3, H, W), sampled as one batch. reference: see `Drag`."""
    rows = torch.cat([original, dragged])
    with ExitStack() as patches:
        if reference is not None:
            layers = model.backbone.attention_layers()
            patches.enter_context(mixed_self_attention(layers, first_row_alphas(len(rows)), blocks=reference))
        x = ddim.sample(denoise, rows, sigmas, stage_reporter(on_stage, "sampling"))
    return model.decode_latents(x / model.backbone.schedule.scale(sigmas[-1]))
