"""diffusers' Stable Diffusion 3 transformers as backbones."""

from collections.abc import Sequence

from torch import Tensor

from ..sampling.schedule import TRAIN_STEPS
from .layers import AttentionLayer, joint_layers
from .transformer import TransformerBackbone


class Sd3Backbone(TransformerBackbone):
    """An `SD3Transformer2DModel` (Stable Diffusion 3, 3.5) as an `EditableBackbone`."""

    def _call(self, x: Tensor, sigmas: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        return self.network(  # type: ignore[no-any-return]
            hidden_states=x,
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=TRAIN_STEPS * sigmas,
        ).sample

    def attention_layers(self) -> Sequence[AttentionLayer]:
        """Of each block the joint one, then, where 3.5 medium has one, the image's own."""
        return joint_layers(
            [
                (f"transformer_blocks.{i}.{name}", attention, None)
                for i, block in enumerate(self.network.transformer_blocks)
                for name in ("attn", "attn2")
                if (attention := getattr(block, name, None)) is not None
            ]
        )
