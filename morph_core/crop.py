"""Pixels and latent cells: the part of an image that a VAE encodes, and the cells that a mask covers."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from .errors import InvalidInput


@dataclass(frozen=True)
class CentreCrop:
    """The middle of an image that a VAE encodes when the image's sides are no multiples of a latent cell's.

    image, crop: (width, height) in pixels.
    """

    image: tuple[int, int]
    crop: tuple[int, int]

    def cut(self, masks: Tensor) -> Tensor:
        """The crop of masks (..., H, W) of the image's size."""
        left, top = self._corner()
        width, height = self.crop
        return masks[..., top : top + height, left : left + width]

    def pixels(self, places: Tensor) -> Tensor:
        """Places in the crop, (..., 2) shares, as pixels of the image."""
        return places * torch.tensor(self.crop).to(places) + self._offset(places)

    def places(self, places: Tensor) -> Tensor:
        """Places in the image, (..., 2) shares, as shares of the crop; outside 0..1 where they were cut off."""
        pixels = places * torch.tensor(self.image).to(places)
        return (pixels - self._offset(places)) / torch.tensor(self.crop).to(places)

    def _offset(self, like: Tensor) -> Tensor:
        return torch.tensor(self._corner()).to(like)

    def _corner(self) -> tuple[int, int]:
        return (self.image[0] - self.crop[0]) // 2, (self.image[1] - self.crop[1]) // 2


def seen_by_vae(image: tuple[int, int], latent: tuple[int, int]) -> CentreCrop:
    """The crop of an image that a latent is of. image, latent: (width, height).

    Raises `InvalidInput` when the latent cannot be that image's.
    """
    cell = min(whole // cells for whole, cells in zip(image, latent, strict=True))  # its side in pixels
    crop = (cell * latent[0], cell * latent[1])
    if not cell or max(image[0] - crop[0], image[1] - crop[1]) >= cell:
        raise InvalidInput(
            f"image is {image[0]}x{image[1]} pixels but latent is {latent[0]}x{latent[1]} cells, which is no "
            "image of that size and shape; connect the image that was encoded"
        )
    return CentreCrop(image, crop)


def free_cells(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w), True for the latent cells that may change: those with a pixel of the mask above 0.

    mask: (1, 1, H, W), of the part of the image that the VAE has seen. size: (h, w) of the latent.
    """
    if mask.ndim != 4 or mask.shape[:2] != (1, 1):
        raise InvalidInput(f"mask must be of shape (1, 1, H, W), got {tuple(mask.shape)}")
    return adaptive_max_pool2d((mask > 0).float(), size)[0, 0] > 0


def soft_cells(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 1, h, w) in 0..1, the mean of each latent cell's pixels. mask, size: as of `free_cells`.

    Raises `InvalidInput` for a mask with values outside 0..1.
    """
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise InvalidInput(f"mask must have values from 0 to 1, got {mask.min():g} to {mask.max():g}; clamp it first")
    return adaptive_avg_pool2d(mask.float(), size)


def checked_cells(cells: Tensor, latents: Tensor) -> Tensor:
    """Soft cells (1, 1, h, w) with as many axes as latents (B, C, ..., h, w) have.

    Raises `InvalidInput` when they are of another size.
    """
    if cells.ndim != 4 or cells.shape != (1, 1, *latents.shape[-2:]):
        raise InvalidInput(
            f"mask must be of shape (1, 1, {latents.shape[-2]}, {latents.shape[-1]}), one number a latent cell, got "
            f"{tuple(cells.shape)}"
        )
    return cells.reshape(*[1] * (latents.ndim - 2), *cells.shape[-2:])


def mask_seen_by_vae(mask: Tensor, latent: tuple[int, int], of: str) -> Tensor:
    """A mask (H, W) or (1, H, W) of the image that a latent is of, as (1, 1, H, W) of the part that the VAE has seen.

    latent: (width, height). of: what the latent is, for errors. Raises `InvalidInput` for several masks, for one that
    is of no image of that latent, and for one that has nothing but black inside that part though it has outside.
    """
    if mask.ndim not in (2, 3) or len(mask.reshape(-1, *mask.shape[-2:])) != 1:
        raise InvalidInput(f"mask must be one mask (H, W), got shape {tuple(mask.shape)}")
    width, height = mask.shape[-1], mask.shape[-2]
    try:
        crop = seen_by_vae((width, height), latent)
    except InvalidInput as error:
        raise InvalidInput(
            f"mask is {width}x{height}, which is no size of an image that {of} of {latent[0]}x{latent[1]} cells is "
            "of; connect a mask of that image's size"
        ) from error
    cropped = masked_crop(mask, crop)
    return crop.cut(mask.reshape(1, 1, height, width)) if cropped is None else cropped


def masked_crop(mask: Tensor, crop: CentreCrop) -> Tensor | None:
    """A mask (H, W) or (1, H, W) of the image, as (1, 1, H, W) of the crop; None for one that is 0 everywhere.

    Raises `InvalidInput` for a mask of another size, for several, and for one that has nothing inside the crop.
    """
    if not mask.any():
        return None
    width, height = crop.image
    if mask.shape not in ((height, width), (1, height, width)):
        size = f"{mask.shape[-1]}x{mask.shape[-2]}" if mask.ndim > 1 else f"of shape {tuple(mask.shape)}"
        batch = f" in a batch of {len(mask)}" if mask.ndim > 2 else ""
        raise InvalidInput(f"mask is {size}{batch}, image is {width}x{height}; connect one mask of the image's size")
    cropped = crop.cut(mask.reshape(1, 1, height, width))
    if not cropped.any():
        raise InvalidInput("mask is white only in the border that VAE Encode cuts off; paint it further inside")
    return cropped
