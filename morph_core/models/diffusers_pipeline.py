"""diffusers' Stable Diffusion pipelines as a `LatentDiffusion`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from ..sampling.schedule import VariancePreserving, sigmas_of
from .text import Text
from .unet import UnetBackbone

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline


class DiffusersPipeline:
    """A `StableDiffusionPipeline` (SD 1.x, 2.x) or `StableDiffusionXLPipeline` as a `LatentDiffusion`.

    Raises `UnsupportedModel` for pipelines without a UNet, whose UNet takes more than a noisy latent (inpainting,
    upscaling) or other things beside the prompt than SDXL's, or that was trained with another noise than DDPM's.
    """

    def __init__(self, pipeline: "StableDiffusionPipeline | StableDiffusionXLPipeline") -> None:
        unet, name = getattr(pipeline, "unet", None), type(pipeline).__name__
        if unet is None:
            raise UnsupportedModel(f"{name} has no UNet; use a text-to-image SD 1.x, 2.x or XL pipeline")
        channels, added = unet.config.in_channels, unet.config.addition_embed_type
        if channels != unet.config.out_channels or added not in (None, "text_time"):
            raise UnsupportedModel(
                f"{name} is not a text-to-image SD 1.x, 2.x or XL pipeline: its UNet takes {channels} channels and "
                f"{added or 'nothing'} beside the prompt"
            )
        alphas = getattr(pipeline.scheduler, "alphas_cumprod", None)
        if alphas is None:
            raise UnsupportedModel(f"{name}'s scheduler, {type(pipeline.scheduler).__name__}, is not of DDPM's noise")
        self._pipeline: Any = pipeline
        self._takes_sizes = added is not None
        schedule = VariancePreserving(sigmas_of(alphas), pipeline.scheduler.config.prediction_type)
        self.backbone = UnetBackbone(unet, schedule)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str], size: tuple[int, int] | None = None) -> Text:
        """One row a caption; of SDXL with pooled text and sizes, uncropped. size: (height, width) in pixels."""
        device = self._pipeline.unet.device
        if not self._takes_sizes:
            return Text(self._pipeline.encode_prompt(list(captions), device, 1, False)[0])
        context, _, pooled, _ = self._pipeline.encode_prompt(
            prompt=list(captions), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        side = self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor
        height, width = size or (side, side)
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=device)
        return Text(context, pooled, sizes.expand(len(captions), -1))

    def tokenize(self, captions: Sequence[str]) -> list[list[int]]:
        """As the pipeline does: cut or padded to the text encoder's length."""
        tokenizer = self._pipeline.tokenizer
        length = tokenizer.model_max_length
        return tokenizer(list(captions), padding="max_length", max_length=length, truncation=True).input_ids  # type: ignore[no-any-return]

    def word_tokens(self, word: str) -> list[int]:
        """Without start and end."""
        return self._pipeline.tokenizer(word, add_special_tokens=False).input_ids  # type: ignore[no-any-return]

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 to scaled latents (B, 4, H/8, W/8)."""
        with _whole_precision(self._pipeline.vae) as vae:
            pixels = (images * 2 - 1).to(vae.device, vae.dtype)
            latents = vae.encode(pixels).latent_dist.mode().float()
        mean, deviation = self._statistics(latents)
        return (latents - mean) / deviation

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, 4, h, w) to (B, 3, 8h, 8w) in 0..1."""
        mean, deviation = self._statistics(latents)
        with _whole_precision(self._pipeline.vae) as vae:
            scaled = (latents * deviation + mean).to(vae.device, vae.dtype)
            images = [vae.decode(x).sample for x in scaled.split(1)]
        return (torch.cat(images).float() / 2 + 0.5).clamp(0, 1)

    def _statistics(self, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Of the VAE's own latents: what scaled latents have 0 and 1 for."""
        config = self._pipeline.vae.config
        mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or deviation is None:
            return 0.0, 1 / config.scaling_factor
        means, deviations = (torch.tensor(values).to(latents)[:, None, None] for values in (mean, deviation))
        return means, deviations / config.scaling_factor


@contextmanager
def _whole_precision(vae: Any) -> Iterator[Any]:
    """The VAE; within this context in float32 where its own configuration says that float16 overflows."""
    dtype = vae.dtype
    upcasts = dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    try:
        yield vae.to(torch.float32) if upcasts else vae
    finally:
        if upcasts:
            vae.to(dtype)
