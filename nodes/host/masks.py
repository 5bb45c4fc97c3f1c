"""MASKs of a picture, as latents and their tokens see them."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...morph_core.attention.token_grid import TokenMask
from ...morph_core.crop import mask_seen_by_vae, soft_cells


def mask_cells(mask: Tensor | None, latent: Tensor, of: str) -> Tensor | None:
    """The value of an input `mask` as soft cells (1, 1, h, w) of its picture's latent (B, C, ..., h, w).

    of: what the latent is, for errors. None: no mask is connected. Raises `InvalidInput` for another picture's mask.
    """
    if mask is None:
        return None
    height, width = latent.shape[-2:]
    return soft_cells(mask_seen_by_vae(mask, (width, height), of), (height, width))


@dataclass(frozen=True)
class PictureMask:
    """A MASK of which it is not known yet what latents it meets."""

    picture: Tensor
    _made: dict[Any, TokenMask] = field(default_factory=dict)

    def on(self, x: Tensor) -> TokenMask:
        """On the sampled latents (B, C, ..., h, w). Raises `InvalidInput` when it is of another picture's size."""
        key = (x.shape[-2:], x.device)
        if key not in self._made:
            cells = mask_cells(self.picture, x, "the sampled latent")
            assert cells is not None
            self._made[key] = TokenMask(cells.to(x.device))
        return self._made[key]
