"""A UNet's decoder features, with gradients, at the cost of no more of the network than is asked for."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ..denoise import Denoise
from ..errors import InvalidInput
from .feature_map import FeatureMap

ReadFeatures = Callable[[Tensor, Tensor, bool], tuple[FeatureMap, Tensor | None]]
"""From x (1, C, h, w) at a sigma, the sigma and whether x0 is wanted to features in float32 and x0."""

CELLS_PER_LATENT_CELL = 4  # of the map: half the image's resolution where a latent cell is 8 pixels wide, as published
DEFAULT_BLOCK = "second to last up block"
FEATURE_BLOCKS = {DEFAULT_BLOCK: -2, "last up block": -1, "third to last up block": -3}


class _BlockReached(Exception):
    """Ends a forward pass whose remainder nobody needs."""


def check_block(block: str) -> None:
    """Raise `InvalidInput` unless `block` is a key of `FEATURE_BLOCKS`."""
    if block not in FEATURE_BLOCKS:
        raise InvalidInput(f"feature_block must be one of {', '.join(FEATURE_BLOCKS)}; got {block!r}")


def up_block_features(up_blocks: Sequence[nn.Module], denoise: Denoise, block: str = DEFAULT_BLOCK) -> ReadFeatures:
    """The output of one of a UNet's up blocks, as a map of `CELLS_PER_LATENT_CELL` times the latent's sides.

    denoise: runs the UNet once. block: a key of `FEATURE_BLOCKS`; DragDiffusion reads the second to last of four. When
    x0 is not wanted the forward pass ends with the block. Raises `InvalidInput` for a block that there is not.
    """
    check_block(block)
    if len(up_blocks) < -FEATURE_BLOCKS[block]:
        raise InvalidInput(f"feature_block is the {block} but the model has {len(up_blocks)} up blocks")
    layer = up_blocks[FEATURE_BLOCKS[block]]

    def read(x: Tensor, sigma: Tensor, wants_x0: bool) -> tuple[FeatureMap, Tensor | None]:
        seen: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            seen.append(output)
            if not wants_x0:
                raise _BlockReached

        handle = layer.register_forward_hook(keep)
        try:
            x0 = denoise(x, sigma)
        except _BlockReached:
            x0 = None
        finally:
            handle.remove()
        height, width = x.shape[-2:]
        return FeatureMap(seen[0].float(), (CELLS_PER_LATENT_CELL * height, CELLS_PER_LATENT_CELL * width)), x0

    return read
