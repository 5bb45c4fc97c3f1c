"""diffusers' UNets as backbones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..denoise import Denoise
from ..errors import InvalidInput
from ..sampling.schedule import VariancePreserving
from .layers import AttentionLayer
from .text import Text

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

ATTENTION_PROJECTIONS = (".to_q", ".to_k", ".to_v", ".to_out.0")
KINDS = {"attn1": "self", "attn2": "cross"}


class UnetBackbone:
    """A `UNet2DConditionModel` as an `EditableBackbone`."""

    def __init__(self, unet: "UNet2DConditionModel", schedule: VariancePreserving) -> None:
        self.network = unet
        self.schedule = VariancePreserving(schedule.sigmas.to(unet.device), schedule.prediction)

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype  # type: ignore[no-any-return]

    def denoiser(self, text: Text) -> Denoise:
        return unet_denoiser(self.network, text, self.schedule)

    def attention_projections(self) -> dict[str, nn.Linear]:
        if getattr(self.network, "peft_config", None):
            raise InvalidInput("the UNet carries an adapter already; fuse or unload it before fitting a LoRA")
        return {path: layer for path, layer in self.network.named_modules() if path.endswith(ATTENTION_PROJECTIONS)}

    def attention_layers(self) -> Sequence[AttentionLayer]:
        return attention_layers(self.network)

    def up_blocks(self) -> Sequence[nn.Module]:
        return list(self.network.up_blocks)

    def enable_gradient_checkpointing(self) -> None:
        self.network.train().enable_gradient_checkpointing()  # training mode, which changes nothing else: no dropout


def unet_denoiser(unet: "UNet2DConditionModel", text: Text, schedule: VariancePreserving) -> Denoise:
    """A UNet as a `Denoise`. added: keyword arguments that the UNet is called with.

    The scalings are those of Karras et al. (2022), table 1, column "VP", for the network's own discrete timesteps.
    """
    dtype = unet.dtype  # asked for once: diffusers looks through all modules for it

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        rows = len(x)
        context = text.context.expand(rows, -1, -1).to(dtype)
        scaled = (x / schedule.scale(sigma)).to(dtype)
        output = unet(scaled, schedule.timestep(sigma), context, **_conditions(text, rows, dtype)).sample
        return schedule.to_x0(x, output.to(x.dtype), sigma)

    return denoise


def _conditions(text: Text, rows: int, dtype: torch.dtype) -> dict[str, Any]:
    """Pooled text and sizes under the names by which SDXL's UNet takes them."""
    if text.pooled is None or text.sizes is None:
        return dict(text.added)
    pooled, sizes = (part.expand(rows, -1).to(dtype) for part in (text.pooled, text.sizes))
    return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}, **text.added}


def attention_layers(unet: "UNet2DConditionModel") -> list[AttentionLayer]:
    """A UNet's self- and cross-attention layers, in its own order."""
    blocks = {"down": len(unet.down_blocks), "mid": 1, "up": len(unet.up_blocks)}
    layers = []
    for path, module in unet.named_modules():
        kind = KINDS.get(path.rpartition(".")[2])
        if kind:
            stage, _, rest = path.partition("_block")  # "up_blocks.1.attentions..." or "mid_block.attentions..."
            block = 0 if stage == "mid" else int(rest.split(".")[1])
            layers.append(AttentionLayer(path, module, kind, stage, block, blocks[stage]))  # type: ignore[arg-type]
    return layers
