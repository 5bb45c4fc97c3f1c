"""The toy transformer: a network in Flux's shape that makes the same drawings by flow matching.

It is trained by `scripts/train_toy.py` over the toy model's own autoencoder and text encoder. The same weights load
into ComfyUI's class for Flux.
"""

from typing import TYPE_CHECKING

from ..models.transformer import PATCH
from ..packages import needed

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

LATENT_CHANNELS = 4
HEADS, HEAD_WIDTH = 4, 32
ROTARY_WIDTHS = (8, 12, 12)  # of a head's HEAD_WIDTH: how many tell the index, the row and the column
DOUBLE_BLOCKS, SINGLE_BLOCKS = 2, 6


def new_transformer(text_width: int) -> "FluxTransformer2DModel":
    """The toy transformer with random weights, without guidance distillation, as Flux.1 schnell."""
    with needed("diffusers"):
        from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1,  # patches are made by its caller
        in_channels=LATENT_CHANNELS * PATCH**2,
        num_layers=DOUBLE_BLOCKS,
        num_single_layers=SINGLE_BLOCKS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=text_width,
        pooled_projection_dim=text_width,
        guidance_embeds=False,
        axes_dims_rope=ROTARY_WIDTHS,
    )
