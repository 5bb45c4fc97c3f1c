"""diffusers' Flux transformers as backbones."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from ..sampling.schedule import FlowMatching
from .layers import AttentionLayer, joint_layers
from .transformer import PATCH, TransformerBackbone

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


class FluxBackbone(TransformerBackbone):
    """A `FluxTransformer2DModel` as an `EditableBackbone`.

    guidance: what a guidance-distilled transformer (Flux.1 dev) is told, 1 or above; others take none. At 1 an
    inversion leads back best (Wang et al. 2025, RF-Solver). Raises `UnsupportedModel` for diffusers before 0.35.
    """

    def __init__(self, transformer: "FluxTransformer2DModel", schedule: FlowMatching, guidance: float = 1.0) -> None:
        for block in transformer.single_transformer_blocks:
            if "encoder_hidden_states" not in inspect.signature(block.forward).parameters:
                raise UnsupportedModel("Flux transformers need diffusers 0.35 or newer")
        super().__init__(transformer, schedule)
        self.guidance = guidance

    def _call(self, x: Tensor, sigmas: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        places = places_of(x)
        told = {"guidance": x.new_full((len(x),), self.guidance)} if self.network.config.guidance_embeds else {}
        tokens = self.network(
            hidden_states=tokens_of(x),
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=sigmas,
            img_ids=places,
            txt_ids=places.new_zeros(context.shape[1], places.shape[1]),
            **told,
        ).sample
        return latents_of(tokens, x.shape[-2:])

    def attention_layers(self) -> Sequence[AttentionLayer]:
        """Of the double blocks, then of the single ones, which are fused."""
        double, single = self.network.transformer_blocks, self.network.single_transformer_blocks
        return joint_layers(
            [
                *((f"transformer_blocks.{i}.attn", block.attn, None) for i, block in enumerate(double)),
                *((f"single_transformer_blocks.{i}.attn", block.attn, block) for i, block in enumerate(single)),
            ]
        )


def tokens_of(latents: Tensor) -> Tensor:
    """(B, C, h, w) to patches as tokens, (B, h·w/4, 4·C), row by row; each is ordered channel, row, column."""
    patches = latents.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))  # (B, C, h/2, 2, w/2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def latents_of(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """The inverse of `tokens_of`. size: (h, w)."""
    rows, columns = (side // PATCH for side in size)
    patches = tokens.unflatten(1, (rows, columns)).unflatten(-1, (-1, PATCH, PATCH))  # (B, h/2, w/2, C, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(-2)


def places_of(latents: Tensor) -> Tensor:
    """What rotary embedding is told of each token: (h·w/4, 3), an index that is 0, its row and its column."""
    rows, columns = (torch.arange(side // PATCH, device=latents.device) for side in latents.shape[-2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)
    return nn.functional.pad(grid, (1, 0)).to(latents)
