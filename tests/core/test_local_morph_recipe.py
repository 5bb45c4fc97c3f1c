"""The recipe with a mask and with a middle text: what is outside is the first picture, white everywhere is no mask."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.crop import soft_cells
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.recipes.morph import morph, morph_prepared
from morph_tests.core.morphs import CAPTIONS, FULL, PLAIN, picture, small_model, two_ends

SIDE = 16  # pixels; a cell of the latent is two
WHITE, BLACK = torch.ones(1, 1, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
SOFT = torch.linspace(-1, 2, SIDE).clamp(0, 1).expand(1, 1, SIDE, SIDE).contiguous()
HARD = (SOFT > 0.5).float()
MIXED = replace(FULL, reschedule=False, attention=0.6)


@pytest.fixture
def model(make_unet):
    return small_model(make_unet)


@pytest.fixture
def ends(model, random_lora):
    return two_ends(model, random_lora)


def cells(mask):
    return soft_cells(mask, (8, 8))[0, 0]


@pytest.mark.parametrize("config", [FULL, replace(FULL, exact_ends=True)], ids=["free", "exact ends"])
def test_white_everywhere_is_no_mask_to_the_bit(model, ends, config):
    local, whole = (morph_prepared(model, *ends, config, mask=mask) for mask in (WHITE, None))
    assert torch.equal(local.latents, whole.latents) and torch.equal(local.frames, whole.frames)
    assert local.alphas == whole.alphas


def test_black_everywhere_is_the_first_picture_in_every_frame(model, ends):
    frames = morph_prepared(model, *ends, MIXED, mask=BLACK).frames
    first = model.decode_latents(ends[0].latent)
    torch.testing.assert_close(frames, first.expand_as(frames), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mask", [SOFT, HARD], ids=["soft", "hard"])
@pytest.mark.parametrize("exact", [False, True])
def test_outside_is_the_first_picture_and_inside_moves(model, ends, mask, exact):
    result = morph_prepared(model, *ends, replace(MIXED, exact_ends=exact), mask=mask)
    away = (result.latents - ends[0].latent).abs().amax(1)
    assert away[:, cells(mask) == 0].max() < 1e-5
    assert away[1:, cells(mask) == 1].amax(1).min() > 0.1
    first = model.decode_latents(ends[0].latent)
    outside = (mask == 0).expand(4, 3, -1, -1)
    assert torch.equal(result.frames[outside], first.expand_as(result.frames)[outside])
    if exact:
        inside = cells(mask) == 1
        torch.testing.assert_close(result.latents[:1], ends[0].latent, rtol=0, atol=1e-5)
        torch.testing.assert_close(result.latents[-1][:, inside], ends[1].latent[0][:, inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("reschedule", [False, True])
def test_in_parts_and_from_pass_to_pass_it_is_the_same(model, ends, size, reschedule):
    config = replace(MIXED, reschedule=reschedule, metric="laplacian pyramid")
    whole, parts = (
        morph_prepared(model, *ends, each, mask=SOFT).latents
        for each in (config, replace(config, frames_per_batch=size))
    )
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", [{"attention": 0.0}, {"adain": False}], ids=str)
def test_what_is_left_out_was_at_work(model, ends, changes):
    whole, without = (
        morph_prepared(model, *ends, each, mask=SOFT).latents for each in (MIXED, replace(MIXED, **changes))
    )
    assert (whole - without).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        (torch.ones(1, SIDE, SIDE), r"mask must be of shape \(1, 1, H, W\), got \(1, 16, 16\)"),
        (torch.ones(2, 1, SIDE, SIDE), r"mask must be of shape \(1, 1, H, W\), got \(2, 1, 16, 16\)"),
        (torch.ones(1, 1, 32, 16), "mask is 16x32, which is no size of an image that the images' latent of 8x8 cells"),
        (2 * WHITE, "mask must have values from 0 to 1, got 2 to 2"),
    ],
)
def test_other_masks_are_refused(model, ends, mask, complaint):
    with pytest.raises(InvalidInput, match=complaint):
        morph_prepared(model, *ends, PLAIN, mask=mask)


def test_a_middle_text_without_weight_is_none_and_with_it_only_the_ends_stay(model, ends):
    middle = model.encode_text(["a calm green bear on sand"])
    plain = morph_prepared(model, *ends, PLAIN).latents
    without = morph_prepared(model, *ends, replace(PLAIN, middle_weight=0.0), middle=middle).latents
    assert torch.equal(plain, without)
    leaning = morph_prepared(model, *ends, PLAIN, middle=middle).latents
    torch.testing.assert_close(leaning[[0, 3]], plain[[0, 3]], rtol=0, atol=1e-6)
    assert (leaning - plain)[1:3].abs().amax((1, 2, 3)).min() > 1e-3


def test_from_pictures_and_captions(model):
    images = picture(1), picture(2)
    result = morph(model, images, CAPTIONS, PLAIN, mask=HARD, middle="a calm green bear on sand")
    first = model.decode_latents(model.encode_images(images[0]))
    outside = (HARD == 0).expand(4, 3, -1, -1)
    assert torch.equal(result.frames[outside], first.expand_as(result.frames)[outside])
    assert not torch.equal(result.latents, morph(model, images, CAPTIONS, PLAIN, mask=HARD).latents)


def test_a_weight_that_is_no_share_is_refused():
    with pytest.raises(InvalidInput, match="weight of the middle text must be between 0 and 1, got 2"):
        replace(PLAIN, middle_weight=2.0)
