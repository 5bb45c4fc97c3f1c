"""What the recipes need of a latent diffusion model, and diffusers' Stable Diffusion pipelines in that form."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, get_args

import torch
from torch import Tensor

from ..denoise import Prediction
from ..errors import UnsupportedModel

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel


class LatentDiffusion(Protocol):
    """A text-to-image latent diffusion model; `toy.ToyModel` is one."""

    @property
    def unet(self) -> "UNet2DConditionModel": ...

    @property
    def train_alphas(self) -> Tensor:
        """(T,) ᾱ of the training schedule, see `schedule.alphas_cumprod`."""

    @property
    def prediction(self) -> Prediction: ...

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """(B, T, D)"""

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 to scaled latents (B, C, h, w)."""

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to (B, 3, H, W) in 0..1."""


class DiffusersPipeline:
    """A diffusers `StableDiffusionPipeline` (SD 1.x, 2.x) as a `LatentDiffusion`.

    Raises `UnsupportedModel` for pipelines whose UNet takes more than a latent and a prompt (SDXL, inpainting).
    """

    def __init__(self, pipeline: "StableDiffusionPipeline") -> None:
        unet = getattr(pipeline, "unet", None)
        if unet is None or unet.config.addition_embed_type or unet.config.in_channels != unet.config.out_channels:
            raise UnsupportedModel(f"{type(pipeline).__name__} is not a text-to-image SD 1.x or 2.x pipeline")
        self._pipeline = pipeline
        self.unet: UNet2DConditionModel = unet
        self.train_alphas: Tensor = pipeline.scheduler.alphas_cumprod
        self.prediction: Prediction = pipeline.scheduler.config.prediction_type
        if self.prediction not in get_args(Prediction):
            raise UnsupportedModel(f"the pipeline predicts {self.prediction!r}; epsilon and v_prediction are supported")

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """(B, T, D)"""
        return self._pipeline.encode_prompt(list(captions), self.unet.device, 1, False)[0]

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 to scaled latents (B, 4, H/8, W/8)."""
        vae = self._pipeline.vae
        pixels = (images * 2 - 1).to(vae.device, vae.dtype)
        return vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) to (B, 3, 8h, 8w) in 0..1."""
        vae = self._pipeline.vae
        scaled = (latents / vae.config.scaling_factor).to(vae.device, vae.dtype)
        images = [vae.decode(x).sample for x in scaled.split(1)]
        return (torch.cat(images).float() / 2 + 0.5).clamp(0, 1)
