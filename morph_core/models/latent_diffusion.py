"""What the recipes need of a latent diffusion model; `toy.ToyModel` and `DiffusersPipeline` are two."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from .backbone import EditableBackbone
from .text import Text


class LatentDiffusion(Protocol):
    """A text-to-image latent diffusion model."""

    @property
    def backbone(self) -> EditableBackbone:
        """Its denoising network."""

    def encode_text(self, captions: Sequence[str], size: tuple[int, int] | None = None) -> Text:
        """One row a caption. size: (height, width) of the picture in pixels; None: the model's own."""

    def tokenize(self, captions: Sequence[str]) -> Sequence[Sequence[int]]:
        """Each caption's tokens as `encode_text` reads them: start, end and padding included, all of one length."""

    def word_tokens(self, word: str) -> Sequence[int]:
        """A word's tokens, without start and end."""

    def encode_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 to scaled latents (B, C, h, w)."""

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to (B, 3, H, W) in 0..1."""
