"""A point of an image dragged at once: a warp, and a few steps of the model that heal it.

No LoRA, no optimisation; the model is asked `healing_steps` times, or not at all. The optimised drag is in `drag`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..dragging.moves import Warp
from ..dragging.points import DragPoints
from ..dragging.warp import warp_image
from ..errors import InvalidInput
from ..models.latent_diffusion import LatentDiffusion
from ..sampling import ddim
from ..sampling.kept_outside import KeptOutside
from .stages import OnStage, stage_reporter


@dataclass(frozen=True)
class WarpDrag:
    """What to do."""

    warp: Warp = field(default_factory=Warp)
    steps: int = 20
    healing_steps: int = 4
    """The last of the steps, which repaint from new noise; 0 for the warp alone."""
    whole: bool = False
    """Whether all that moved is repainted, which mends what is stretched, or only what it left and its rim."""
    rim: int = 2
    """Pixels to either side of a moved edge that are repainted."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.healing_steps <= self.steps or self.rim < 0:
            raise InvalidInput(
                f"healing_steps must be between 0 and steps, rim not negative; got {self.healing_steps} of "
                f"{self.steps} steps, rim {self.rim}"
            )


@dataclass(frozen=True)
class WarpedImage:
    """dragged, warped: (1, 3, H, W) in 0..1, healed and not. repainted: (1, 1, H, W), bool."""

    dragged: Tensor
    warped: Tensor
    repainted: Tensor


@torch.no_grad()
def warp_drag(
    model: LatentDiffusion,
    image: Tensor,
    caption: str,
    points: DragPoints,
    config: WarpDrag | None = None,
    mask: Tensor | None = None,
    on_stage: OnStage | None = None,
) -> WarpedImage:
    """Drag points of an image (1, 3, H, W) in 0..1. mask: (1, 1, H, W), above 0 on what moves, see `warp_image`."""
    config = config or WarpDrag()
    warped = warp_image(image, points, mask, config.warp)
    repainted = warped.to_repaint(config.rim, config.whole)
    if not config.healing_steps:
        return WarpedImage(warped.values, warped.values, repainted)
    schedule = model.backbone.schedule
    latent = model.encode_images(warped.values)
    sigmas = schedule.spaced(config.steps)[config.steps - config.healing_steps :].to(latent)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(config.seed)).to(latent)
    denoise = model.backbone.denoiser(model.encode_text([caption], (image.shape[2], image.shape[3])))
    reporter = stage_reporter(on_stage, "healing")
    x = schedule.noised(latent, noise, sigmas[0])
    x = ddim.sample(denoise, x, sigmas, reporter, [KeptOutside(latent, repainted)])
    healed = model.decode_latents(x / schedule.scale(sigmas[-1]))
    return WarpedImage(torch.where(repainted, healed, warped.values), warped.values, repainted)
