"""LoRAs (Hu et al. 2021) as files name them: one low-rank update a layer.

A LoRA is a dict of tensors under kohya's names, `lora_unet_<module with _ for .>.lora_down.weight`, `.lora_up.weight`
and `.alpha`: the names that ComfyUI, diffusers and kohya's own loaders all read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InvalidInput

LoraWeights = dict[str, Tensor]
PREFIX = "lora_unet_"
LAYER_PARTS = ("lora_down.weight", "lora_up.weight", "alpha")  # the last may be absent: then it is the rank


@dataclass(frozen=True)
class LowRank:
    """One layer's update: scale·up·down. down: (r, in, ...), up: (out, r, ...); 1×1 trailing axes for a Linear's."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The number of directions, r."""
        return self.down.shape[0]


def read_lora(weights: Mapping[str, Tensor], unet: nn.Module) -> dict[nn.Module, LowRank]:
    """The layers of a diffusers UNet that a LoRA updates.

    Raises `InvalidInput` when nothing in `weights` fits the UNet, or something does not.
    """
    modules = {PREFIX + name.replace(".", "_"): module for name, module in unet.named_modules()}
    named = sorted({key.split(".", 1)[0] for key in weights})
    if not named:
        raise InvalidInput("the LoRA is empty")
    strangers = [name for name in named if name not in modules]
    if strangers:
        raise InvalidInput(
            f"{len(strangers)} of {len(named)} layers in the LoRA are not in this model, the first is "
            f"{strangers[0]!r}; use a LoRA that was fitted on this model"
        )
    expected = {f"{name}.{part}" for name in named for part in LAYER_PARTS}
    odd = sorted({key for key in expected ^ set(weights) if not key.endswith(".alpha")})
    if odd:
        raise InvalidInput(f"{odd[0]!r} is {'missing' if odd[0] in expected else 'unknown'}; use a plain, whole LoRA")
    layers = {}
    for name in named:
        down, up = weights[f"{name}.lora_down.weight"], weights[f"{name}.lora_up.weight"]
        layers[modules[name]] = low_rank(down, up, weights.get(f"{name}.alpha"))
    return layers


def low_rank(down: Tensor, up: Tensor, alpha: Tensor | float | None) -> LowRank:
    """A layer's update from the parts that a file has of it. alpha: one number; None is the rank."""
    rank = len(down) if down.ndim else 0
    if not rank:
        raise InvalidInput("a LoRA layer has rank 0; use a whole LoRA")
    if isinstance(alpha, Tensor) and alpha.numel() != 1:
        raise InvalidInput(f"a LoRA layer's alpha has {alpha.numel()} values and must have one; use a whole LoRA")
    return LowRank(down, up, 1.0 if alpha is None else float(alpha) / rank)


def of_part(update: LowRank, first: int, outputs: int) -> LowRank:
    """An update of a layer that is one part of a fused layer, as one of the whole.

    first: the part's first output; outputs: the fused layer's. What lies outside the part is not changed.
    """
    if update.up.ndim != 2 or not 0 <= first <= outputs - len(update.up):
        raise InvalidInput(f"a LoRA layer of {len(update.up)} outputs does not fit into {outputs} from {first} on")
    up = update.up.new_zeros(outputs, update.rank)
    up[first : first + len(update.up)] = update.up
    return LowRank(update.down, up, update.scale)


def joined(first: LowRank, second: LowRank) -> LowRank:
    """Two updates of one layer as one, whose rank is the sum of theirs."""
    ups = [update.up * update.scale for update in (first, second)]
    return LowRank(torch.cat([first.down, second.down]), torch.cat(ups, dim=1), 1.0)


def check_shapes(layer: nn.Module, update: LowRank) -> None:
    """Raise `InvalidInput` when an update's shapes are not those of the layer."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    out, *inner = weight.shape
    down, up = list(update.down.shape), list(update.up.shape)
    fitting = [([update.rank, *inner], [out, update.rank] + [1, 1] * (len(inner) > 1))]
    if len(inner) == 1:  # a Linear's matrices may also be written as 1×1 convolutions
        fitting.append(([update.rank, *inner, 1, 1], [out, update.rank, 1, 1]))
    if (down, up) not in fitting:
        raise InvalidInput(
            f"a LoRA layer of shapes {tuple(update.up.shape)} and {tuple(update.down.shape)} does not fit a weight of "
            f"shape {tuple(weight.shape)}; use a LoRA that was fitted on this model"
        )
