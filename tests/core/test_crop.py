"""Which latent cells a mask frees: written out cell by cell."""

import pytest
import torch

from morph_pack.morph_core.crop import free_cells, masked_crop, seen_by_vae
from morph_pack.morph_core.errors import InvalidInput


def column(width, x, height=512):
    mask = torch.zeros(height, width)
    mask[:, x] = 1
    return mask


def freed_columns(mask, image, latent=(64, 64)):
    cropped = masked_crop(mask, seen_by_vae(image, latent))
    return free_cells(cropped, latent[::-1]).any(0).nonzero()[:, 0].tolist()


@pytest.mark.parametrize(("x", "cell"), [(3, 0), (10, 0), (11, 1), (258, 31), (259, 32), (514, 63)])
def test_a_pixel_frees_the_cell_that_the_vae_makes_of_it(x, cell):
    """Of an image 518 wide the VAE sees pixels 3 to 514."""
    assert freed_columns(column(518, x), (518, 512)) == [cell]


def test_a_cell_is_free_if_any_of_its_pixels_is():
    mask = torch.zeros(1, 1, 64, 64)
    mask[0, 0, 8, 16] = 0.01
    free = free_cells(mask, (8, 8))
    assert free.nonzero().tolist() == [[1, 2]]


def test_a_mask_of_nothing_is_no_mask():
    assert masked_crop(torch.zeros(512, 512), seen_by_vae((512, 512), (64, 64))) is None


@pytest.mark.parametrize("shape", [(512, 520), (2, 512, 512), (64, 64)])
def test_masks_of_another_size_are_refused(shape):
    with pytest.raises(InvalidInput, match="mask is .*image is 512x512; connect one mask of the image's size"):
        masked_crop(torch.ones(shape), seen_by_vae((512, 512), (64, 64)))


def test_a_mask_that_the_vae_does_not_see_is_refused():
    with pytest.raises(InvalidInput, match="only in the border that VAE Encode cuts off"):
        masked_crop(column(518, 1), seen_by_vae((518, 512), (64, 64)))
