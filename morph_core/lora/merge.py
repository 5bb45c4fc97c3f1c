"""One LoRA, whole, for the length of a run: in the weights, where that is exact to rounding."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from .blend import blended_loras
from .low_rank import LowRank, check_shapes

MERGED = (torch.float32, torch.float64)  # in half precision a small update is less than a weight's last digit


@contextmanager
def whole_lora(layers: Mapping[nn.Module, LowRank]) -> Iterator[None]:
    """Within this context every row sees all of a LoRA, and gradients go through.

    Weights of single precision are replaced meanwhile by W + scale·up·down, which costs the network nothing; beside
    others, and those that are elsewhere until their layer runs, the update is computed as `blended_loras` does. Raises
    `InvalidInput` when a shape does not fit.
    """
    beside = {layer: update for layer, update in layers.items() if not _can_merge(layer)}
    with ExitStack() as undo:
        undo.enter_context(blended_loras(beside, {}, (0.0,)))
        for layer, update in layers.items():
            if layer not in beside:
                undo.enter_context(_merged(layer, update))
        yield


def _can_merge(layer: nn.Module) -> bool:
    weight = layer.weight
    return type(weight) is nn.Parameter and weight.dtype in MERGED and weight.device.type != "meta"


@contextmanager
def _merged(layer: nn.Module, update: LowRank) -> Iterator[None]:
    check_shapes(layer, update)
    own: Tensor = layer.weight  # type: ignore[assignment]
    with torch.no_grad():
        up, down = (part.to(own).flatten(1) for part in (update.up, update.down))
        change = (up * update.scale) @ down
        merged = nn.Parameter(own + change.reshape(own.shape), requires_grad=False)
    layer.weight = merged
    try:
        yield
    finally:
        layer.weight = own
