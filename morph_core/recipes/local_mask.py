"""Where a morph takes place: a soft mask of its pictures, for everything that a morph is made of."""

import torch
from torch import Tensor

from ..attention.token_grid import TokenMask
from ..crop import free_cells, mask_seen_by_vae, soft_cells
from ..errors import InvalidInput
from ..morphing.alphas import Alphas
from ..sampling.ddim import Correction
from ..sampling.direct_inversion import DirectInversion
from ..sampling.trajectory import Trajectory


class LocalMask:
    """cells: (1, 1, h, w), each latent cell's share of alpha. tokens: of attention layers, the same.

    Cells with no white at all are held to the first picture in every frame; those that are white wholly may be held to
    the second in the last frame.
    """

    def __init__(self, mask: Tensor, latent: Tensor) -> None:
        """mask: (1, 1, H, W) in 0..1, of the pictures that the latent (1, C, h, w) is of one of.

        Raises `InvalidInput` for other shapes, sizes and values.
        """
        if mask.ndim != 4 or mask.shape[:2] != (1, 1):
            raise InvalidInput(f"mask must be of shape (1, 1, H, W), got {tuple(mask.shape)}")
        height, width = latent.shape[-2:]
        self._pixels = mask_seen_by_vae(mask[0], (width, height), "the images' latent").to(latent)
        self._free = free_cells(self._pixels, (height, width))
        self.cells = soft_cells(self._pixels, (height, width)).to(latent)
        self.tokens = TokenMask(self.cells)

    def corrections(self, alphas: Alphas, start: Trajectory, end: Trajectory, exact_ends: bool) -> list[Correction]:
        """What holds frames at these alphas outside of the mask, and with `exact_ends` the ends inside of it, too."""
        held: list[Correction] = [DirectInversion(dict.fromkeys(range(len(alphas)), start), self._free)]
        if exact_ends and 0.0 in alphas:
            held.append(DirectInversion({alphas.index(0.0): start}))
        if exact_ends and 1.0 in alphas:
            held.append(DirectInversion({alphas.index(1.0): end}, self.cells[0, 0] < 1))
        return held

    def pasted(self, pictures: Tensor, first: Tensor) -> Tensor:
        """Frames (F, 3, H, W) over the first picture (1, 3, H, W), which a decoder shows changed beyond the mask."""
        return pictures if bool((self._pixels == 1).all()) else torch.lerp(first, pictures, self._pixels)
