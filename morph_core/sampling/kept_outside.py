"""Sampling that paints only inside a mask, as ComfyUI's noise masks do."""

import torch
from torch import Tensor

from ..crop import free_cells


class KeptOutside:
    """A `ddim.Correction`: outside of the mask the estimate of x0 is the latent itself, so that it comes out as it is.

    latent: (B, C, h, w). mask: (1, 1, H, W), of its picture, above 0 where it may change; see `free_cells`.
    """

    def __init__(self, latent: Tensor, mask: Tensor) -> None:
        self._latent = latent
        self._free = free_cells(mask, (latent.shape[2], latent.shape[3]))

    def __call__(self, x0: Tensor, x: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
        return torch.where(self._free, x0, self._latent)
