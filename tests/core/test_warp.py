"""A drag by warping, of pictures and of latents: what it must leave alone, and what it must do exactly."""

import pytest
import torch

from morph_pack.morph_core.dragging.fill import filled
from morph_pack.morph_core.dragging.moves import Warp, moves_of
from morph_pack.morph_core.dragging.points import DragPoints
from morph_pack.morph_core.dragging.warp import warp_image, warp_latent
from morph_pack.morph_core.errors import InvalidInput

SIDE = 64


def points_of(*pairs, pins=()):
    """Pairs and pins in pixels of a picture of SIDE."""
    handles, targets = (torch.tensor(pairs, dtype=torch.float64) / SIDE).movedim(1, 0)
    return DragPoints(handles, targets, torch.tensor(pins, dtype=torch.float64).reshape(-1, 2) / SIDE)


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def box(top, left, height, width):
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., top : top + height, left : left + width] = 1
    return mask


@pytest.fixture
def image():
    return noise(1, 3, SIDE, SIDE)


def test_one_handle_moves_its_region_by_whole_pixels_to_the_bit(image):
    warped = warp_image(image, points_of(((20, 20), (31, 15))), box(10, 10, 20, 20))
    assert torch.equal(warped.values[..., 5:25, 21:41], image[..., 10:30, 10:30])
    assert torch.equal(warped.moved, box(5, 21, 20, 20) > 0)
    assert torch.equal(warped.uncovered, (box(10, 10, 20, 20) > 0) & ~warped.moved)
    assert torch.equal(warped.pieces, box(10, 10, 20, 20) > 0)


def test_nothing_outside_of_where_it_was_and_where_it_came_to_changes(image):
    points = points_of(((20, 20), (26, 17)), ((14, 26), (16, 30)), pins=((12, 12),))
    warped = warp_image(image, points, box(10, 10, 20, 20))
    elsewhere = ~(warped.pieces | warped.moved).expand_as(image)
    assert torch.equal(warped.values[elsewhere], image[elsewhere])
    assert (warped.values != image).any()


def test_a_quarter_turn_of_a_square_is_exact(image):
    points = points_of(((20, 14), (26, 20)), ((20, 26), (14, 20)))  # about (20, 20), clockwise
    warped = warp_image(image, points, box(12, 12, 16, 16))
    expected = image[..., 12:28, 12:28].rot90(-1, (2, 3))
    torch.testing.assert_close(warped.values[..., 12:28, 12:28], expected, rtol=0, atol=1e-6)
    assert not warped.uncovered.any() and not warped.to_repaint(0).any()
    assert 0 < warped.to_repaint(1).sum() < warped.moved.sum()


def test_half_precision_is_taken_and_given_back(image):
    points, mask = points_of(((20, 20), (31, 15))), box(10, 10, 20, 20)
    half = warp_image(image.half(), points, mask)
    assert half.values.dtype == torch.float16
    assert torch.equal(half.values[..., 5:25, 21:41], image.half()[..., 10:30, 10:30])
    latent = torch.randn(1, 4, SIDE, SIDE).half()
    assert torch.equal(warp_latent(latent, points, mask).values[..., 5:25, 21:41], latent[..., 10:30, 10:30])


def test_regions_do_not_touch_each_other(image):
    first, second = ((12, 12), (15, 14)), ((44, 44), (40, 47))
    masks = box(8, 8, 10, 10), box(38, 38, 12, 12)
    both = warp_image(image, points_of(first, second), masks[0] + masks[1]).values
    alone = [warp_image(image, points_of(pair), mask).values for pair, mask in zip((first, second), masks, strict=True)]
    assert torch.equal(both[..., :32, :32], alone[0][..., :32, :32])
    assert torch.equal(both[..., 32:, 32:], alone[1][..., 32:, 32:])


def test_a_region_without_a_handle_stays(image):
    warped = warp_image(image, points_of(((12, 12), (15, 14))), box(8, 8, 10, 10) + box(38, 38, 12, 12))
    assert torch.equal(warped.values[..., 32:, 32:], image[..., 32:, 32:])


def test_without_a_mask_what_is_far_away_stays_to_the_bit_and_nothing_is_uncovered(image):
    warped = warp_image(image, points_of(((30, 30), (34, 30))), None, Warp(radius=0.1))
    assert not warped.uncovered.any()
    torch.testing.assert_close(warped.values[..., 30, 34], image[..., 30, 30], rtol=0, atol=1e-6)
    assert torch.equal(warped.values[..., :14, :], image[..., :14, :])
    assert torch.equal(warp_image(image, points_of(((30, 30), (34, 30))), torch.zeros(1, 1, SIDE, SIDE)).values,
                       warp_image(image, points_of(((30, 30), (34, 30)))).values)  # fmt: skip


def test_frames_move_alike(image):
    frames = noise(3, 3, SIDE, SIDE, seed=1)
    points, mask = points_of(((20, 20), (26, 17)), pins=((12, 12),)), box(10, 10, 20, 20)
    together = warp_image(frames, points, mask).values
    for frame, warped in zip(frames, together, strict=True):
        assert torch.equal(warp_image(frame[None], points, mask).values[0], warped)


def test_a_latent_moves_as_its_picture_does():
    points, cells = points_of(((20, 20), (31, 15)), ((12, 26), (14, 30)), pins=((16, 12),)), 8
    fine = moves_of(points, box(8, 8, 24, 24)[0, 0] > 0, (SIDE, SIDE), Warp())[0].came
    coarse_mask = box(8, 8, 24, 24)[0, 0, ::cells, ::cells] > 0
    coarse = moves_of(points, coarse_mask, (SIDE // cells, SIDE // cells), Warp())[0].came
    middles = fine.unflatten(0, (-1, cells)).unflatten(2, (-1, cells))[:, 3:5, :, 3:5].mean((1, 3))
    torch.testing.assert_close(coarse * cells, middles, rtol=0, atol=0.1)  # the mean of four places around the middle
    exact = moves_of(points, box(8, 8, 24, 24)[0, 0] > 0, (SIDE, SIDE), Warp())[0]
    half = moves_of(points, exact.piece.repeat_interleave(3, 0).repeat_interleave(3, 1), (3 * SIDE, 3 * SIDE), Warp())[
        0
    ]
    torch.testing.assert_close(half.came[1::3, 1::3] / 3, exact.came, rtol=0, atol=1e-6)


def test_a_latents_values_are_copied_and_its_variance_stays():
    latent = torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    points, mask = points_of(((20, 20), (36.3, 25.8)), ((12, 26), (25, 30))), box(8, 8, 28, 28)
    warped = warp_latent(latent, points, mask)
    moved = warped.moved.expand_as(latent)
    known = set(latent[0, 0].flatten().tolist())
    assert set(warped.values[0, 0][warped.moved[0, 0]].tolist()) <= known
    for where in (moved, warped.uncovered.expand_as(latent)):
        assert abs(warped.values[where].std().item() - 1) < 0.1
    again = warp_latent(latent, points, mask)
    assert torch.equal(again.values, warped.values)
    assert not torch.equal(warp_latent(latent, points, mask, seed=1).values, warped.values)


def test_a_latent_of_frames_moves_as_each_of_them():
    latent = torch.randn(1, 4, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    points, mask = points_of(((20, 20), (31, 15))), box(10, 10, 20, 20)
    warped = warp_latent(latent, points, mask)
    for frame in range(2):
        expected = warp_latent(latent[:, :, frame], points, mask).values
        moved = warped.moved[:, :, None].expand_as(latent)[:, :, frame]
        assert torch.equal(warped.values[:, :, frame][moved], expected[moved])


def test_a_hole_in_a_slope_is_filled_by_the_slope():
    x, y = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 80), indexing="xy")
    slope = torch.stack([x, y, 0.3 * x + 0.5 * y])[None]
    hole = torch.zeros(1, 1, 80, 96, dtype=torch.bool)
    hole[..., 20:61, 13:70] = True
    torn = torch.where(hole, torch.full_like(slope, torch.nan), slope).nan_to_num(7.0)
    restored = filled(torn, hole)
    assert torch.equal(restored[~hole.expand_as(slope)], slope[~hole.expand_as(slope)])
    torch.testing.assert_close(restored, slope, rtol=0, atol=0.01)


def test_a_hole_without_a_border_stays():
    assert torch.equal(filled(torch.ones(1, 3, 5, 7), torch.ones(1, 1, 5, 7, dtype=torch.bool)), torch.ones(1, 3, 5, 7))


def test_what_is_to_be_repainted(image):
    warped = warp_image(image, points_of(((20, 20), (31, 20))), box(10, 10, 20, 20))
    assert torch.equal(warped.to_repaint(0), warped.uncovered)
    rim = warped.to_repaint(2)
    assert rim[0, 0, 8, 30] and rim[0, 0, 11, 30] and not rim[0, 0, 7, 30] and not rim[0, 0, 12, 30]
    assert torch.equal(warped.to_repaint(0, whole=True), warped.uncovered | warped.moved)
    near = warp_image(image, points_of(((30, 30), (34, 30))))
    assert torch.equal(near.to_repaint(0), near.moved)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 1, SIDE, SIDE), "white everywhere"),
        (box(40, 40, 10, 10), "handle of pair 1 is outside of the mask"),
        (torch.ones(1, 1, 8, 8), r"mask must be of shape \(1, 1, 64, 64\), got \(1, 1, 8, 8\)"),
    ],
)
def test_masks_that_say_nothing_are_refused(image, mask, message):
    with pytest.raises(InvalidInput, match=message):
        warp_image(image, points_of(((20, 20), (31, 20))), mask)


def test_a_handle_may_miss_its_region_by_a_little(image):
    warped = warp_image(image, points_of(((9, 20), (19, 20))), box(10, 10, 20, 20))
    assert torch.equal(warped.values[..., 10:30, 20:40], image[..., 10:30, 10:30])
