"""diffusers' text-to-image pipelines as a `LatentDiffusion`."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import UnsupportedModel
from ..sampling.schedule import FlowMatching, VariancePreserving, flow_train_sigmas, sigmas_of
from .flux import FluxBackbone
from .sd3 import Sd3Backbone
from .text import Text
from .unet import UnetBackbone

if TYPE_CHECKING:
    from diffusers import (
        FluxPipeline,
        StableDiffusion3Pipeline,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
    )

KNOWN = "use a text-to-image pipeline of SD 1.x, 2.x, XL, 3.x or Flux.1"


class DiffusersPipeline:
    """A `StableDiffusionPipeline` (SD 1.x, 2.x), `…XLPipeline`, `StableDiffusion3Pipeline` or `FluxPipeline`.

    guidance: what a guidance-distilled Flux is told, see `FluxBackbone`. Raises `UnsupportedModel` for other pipelines:
    whose network takes more than a noisy latent (inpainting, upscaling), or other things beside the prompt, or that was
    trained with other noise than DDPM's or flow matching's.
    """

    def __init__(
        self,
        pipeline: "StableDiffusionPipeline | StableDiffusionXLPipeline | StableDiffusion3Pipeline | FluxPipeline",
        guidance: float = 1.0,
    ) -> None:
        self._pipeline: Any = pipeline
        self.backbone = _backbone_of(pipeline, guidance)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str], size: tuple[int, int] | None = None) -> Text:
        """One row a caption, with what the network takes beside it. size: (height, width) in pixels, for SDXL."""
        pipeline, prompts, device = self._pipeline, list(captions), self.backbone.network.device
        if isinstance(self.backbone, FluxBackbone):
            context, pooled, _ = pipeline.encode_prompt(prompts, None, device)
            return Text(context, pooled)
        if isinstance(self.backbone, Sd3Backbone):
            context, _, pooled, _ = pipeline.encode_prompt(
                prompts, None, None, device, do_classifier_free_guidance=False
            )
            return Text(context, pooled)
        if self.backbone.network.config.addition_embed_type is None:
            return Text(pipeline.encode_prompt(prompts, device, 1, False)[0])
        context, _, pooled, _ = pipeline.encode_prompt(
            prompt=prompts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
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
        """(B, 3, H, W) in 0..1 to scaled latents (B, C, H/8, W/8)."""
        with _whole_precision(self._pipeline.vae) as vae:
            pixels = (images * 2 - 1).to(vae.device, vae.dtype)
            latents = vae.encode(pixels).latent_dist.mode().float()
        mean, deviation = self._statistics(latents)
        return (latents - mean) / deviation

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to (B, 3, 8h, 8w) in 0..1."""
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
            return getattr(config, "shift_factor", None) or 0.0, 1 / config.scaling_factor
        means, deviations = (torch.tensor(values).to(latents)[:, None, None] for values in (mean, deviation))
        return means, deviations / config.scaling_factor


def _backbone_of(pipeline: Any, guidance: float) -> UnetBackbone | FluxBackbone | Sd3Backbone:
    name = type(pipeline).__name__
    transformer, unet = getattr(pipeline, "transformer", None), getattr(pipeline, "unet", None)
    if name == "FluxPipeline":
        return FluxBackbone(transformer, _flow(pipeline), guidance)
    if name == "StableDiffusion3Pipeline":
        return Sd3Backbone(transformer, _flow(pipeline))
    if unet is None:
        raise UnsupportedModel(f"{name} has no UNet; {KNOWN}")
    channels, added = unet.config.in_channels, unet.config.addition_embed_type
    if channels != unet.config.out_channels or added not in (None, "text_time"):
        raise UnsupportedModel(
            f"{name}'s UNet takes {channels} channels and {added or 'nothing'} beside the prompt; {KNOWN}"
        )
    alphas = getattr(pipeline.scheduler, "alphas_cumprod", None)
    if alphas is None:
        raise UnsupportedModel(f"{name}'s scheduler, {type(pipeline.scheduler).__name__}, is not of DDPM's noise")
    return UnetBackbone(unet, VariancePreserving(sigmas_of(alphas), pipeline.scheduler.config.prediction_type))


def _flow(pipeline: Any) -> FlowMatching:
    """The schedule of a pipeline's `FlowMatchEulerDiscreteScheduler`; a shift by size is that of its own size."""
    config = pipeline.scheduler.config
    shift = config.shift
    if config.use_dynamic_shifting:  # linear in the number of tokens
        tokens = (pipeline.default_sample_size // 2) ** 2
        share = (tokens - config.base_image_seq_len) / (config.max_image_seq_len - config.base_image_seq_len)
        shift = math.exp(config.base_shift + share * (config.max_shift - config.base_shift))
    return FlowMatching(flow_train_sigmas(), shift)


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
