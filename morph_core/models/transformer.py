"""What diffusers' flow-matching transformers have in common as backbones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..denoise import Denoise
from ..errors import InvalidInput, UnsupportedModel
from ..sampling.schedule import FlowMatching
from .layers import AttentionLayer
from .text import Text

PATCH = 2  # latent cells a side that are one token
ATTENTION_PROJECTIONS = (
    *(".to_q", ".to_k", ".to_v", ".to_out.0"),
    *(".add_q_proj", ".add_k_proj", ".add_v_proj", ".to_add_out"),
)


class TransformerBackbone:
    """A transformer of text and image as an `EditableBackbone`; a subclass says how it is called."""

    def __init__(self, transformer: Any, schedule: FlowMatching) -> None:
        self.network = transformer
        self.schedule = FlowMatching(schedule.sigmas.to(transformer.device), schedule.shift)

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype  # type: ignore[no-any-return]

    def denoiser(self, text: Text) -> Denoise:
        """text: with `pooled`."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return self.schedule.to_x0(x, self.velocity(x, sigma.expand(len(x)), text).to(x.dtype), sigma)

        return denoise

    def velocity(self, x: Tensor, sigmas: Tensor, text: Text) -> Tensor:
        """What the transformer predicts: noise − x0, in its own dtype.

        x: (B, C, h, w), noised. sigmas: (B,). text: of B rows or one, with `pooled`. Raises `InvalidInput` without it,
        and for an odd height or width.
        """
        if text.pooled is None:
            raise InvalidInput("a flow-matching transformer needs pooled text beside the embeddings")
        height, width = x.shape[-2:]
        if height % PATCH or width % PATCH:
            raise InvalidInput(f"latents must have an even height and width, got {height} and {width}")
        context, pooled = (part.expand(len(x), *part.shape[1:]).to(self.dtype) for part in (text.context, text.pooled))
        return self._call(x.to(self.dtype), sigmas.to(x.device, self.dtype), context, pooled)

    def _call(self, x: Tensor, sigmas: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        raise NotImplementedError

    def attention_layers(self) -> Sequence[AttentionLayer]:
        raise NotImplementedError

    def attention_projections(self) -> dict[str, nn.Linear]:
        if getattr(self.network, "peft_config", None):
            raise InvalidInput("the transformer carries an adapter already; fuse or unload it before fitting a LoRA")
        return {path: layer for path, layer in self.network.named_modules() if path.endswith(ATTENTION_PROJECTIONS)}

    def up_blocks(self) -> Sequence[nn.Module]:
        raise UnsupportedModel(
            "a transformer has no up blocks whose features a drag could follow; use a UNet, or a warp (WarpDrag)"
        )

    def enable_gradient_checkpointing(self) -> None:
        self.network.train().enable_gradient_checkpointing()  # training mode, which changes nothing else: no dropout
