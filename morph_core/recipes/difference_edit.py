"""An image edited by the difference of two prompts' predictions: FlowEdit or Uni-Edit, which need only a `Denoise`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoise import Denoise
from ..errors import InvalidInput, shown
from ..lora.merge import whole_lora
from ..models.latent_diffusion import LatentDiffusion
from ..models.text import Text
from ..sampling.flow_edit import FlowEdit, flow_edit
from ..sampling.guidance import guided_denoiser
from ..sampling.uni_edit import UniEdit, uni_edit
from .image import EditedImage, PreparedImage, lora_layers, text_for
from .stages import OnStage, stage_reporter


@dataclass(frozen=True)
class DifferenceEdit:
    """What to do. Defaults are FlowEdit's published ones for Stable Diffusion 3."""

    method: FlowEdit | UniEdit = FlowEdit()
    steps: int = 50
    source_guidance: float = 3.5
    edited_guidance: float = 13.5
    """Of the two predictions; Uni-Edit was published with 1 for both, and omega in their place."""

    def __post_init__(self) -> None:
        if not isinstance(self.method, FlowEdit | UniEdit):
            raise InvalidInput(f"method must be a FlowEdit or a UniEdit, got {shown(self.method)}")
        if not round(self.method.strength * self.steps):
            raise InvalidInput(
                f"of {self.steps} steps a strength of {self.method.strength:g} edits in none; raise either"
            )


@torch.no_grad()
def edit_prepared_by_difference(
    model: LatentDiffusion,
    image: PreparedImage,
    edited_prompt: str,
    config: DifferenceEdit,
    on_stage: OnStage | None = None,
) -> EditedImage:
    """An image whose latent and text, and perhaps LoRA, are known, edited into what edited_prompt describes."""
    backbone = model.backbone
    sigmas = backbone.schedule.spaced(config.steps).to(image.latent)
    unconditional = backbone.denoiser(text_for(model, image, ""))

    def guided(text: Text, guidance: float) -> Denoise:
        return guided_denoiser(unconditional, backbone.denoiser(text), guidance)

    source = guided(image.text, config.source_guidance)
    target = guided(text_for(model, image, edited_prompt), config.edited_guidance)
    with whole_lora(lora_layers(model, image)):
        latent = _edited(config.method, source, target, image.latent, sigmas, model, on_stage)
    return EditedImage(model.decode_latents(image.latent), model.decode_latents(latent))


def _edited(
    method: FlowEdit | UniEdit,
    source: Denoise,
    target: Denoise,
    latent: Tensor,
    sigmas: Tensor,
    model: LatentDiffusion,
    on_stage: OnStage | None,
) -> Tensor:
    schedule, reporter = model.backbone.schedule, stage_reporter(on_stage, "sampling")
    if isinstance(method, FlowEdit):
        return flow_edit(source, target, latent, sigmas, schedule, method, reporter)
    return uni_edit(source, target, latent, sigmas, schedule, method, reporter)
