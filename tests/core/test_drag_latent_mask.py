"""What a mask keeps of the image while the rest is dragged."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.dragging.latent import DragLatent, drag_latent
from morph_tests.core.warps import (
    BOTH,
    CELLS,
    NEVER,
    ONE_HANDLE,
    SCHEDULE,
    SIGMAS,
    Warp,
    at_cells,
    by_hand,
    latent,
)


@pytest.fixture
def read():
    return Warp()


INTO_WHAT_IS_KEPT = ((17, 12), (28, 12))


def half_mask(columns=slice(0, 20)):
    """(1, 1, 64, 64), may change in these of the map's columns: 2 pixels a cell."""
    mask = torch.zeros(1, 1, 2 * CELLS, 2 * CELLS)
    mask[..., 2 * columns.start : 2 * columns.stop] = 1
    return mask


def test_the_mask_term_is_that_of_the_paper(read):
    config = replace(DragLatent(), iterations=6, mask_weight=0.3)
    points = at_cells(INTO_WHAT_IS_KEPT)
    kept = torch.ones(1, 1, 8, 8)
    kept[..., :5] = 0  # columns of four cells
    result = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config, half_mask())
    dragged, losses, _ = by_hand(read, latent(), SIGMAS, points, config, kept)
    torch.testing.assert_close(result.dragged, dragged, rtol=0, atol=1e-4)
    assert result.losses == pytest.approx(losses, rel=1e-4)
    without = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config).losses
    assert result.losses[0] == pytest.approx(without[0], rel=1e-6)  # nothing has changed yet
    assert result.losses[2] > without[2] + 0.01


@pytest.mark.parametrize("columns", [slice(0, 17), slice(0, 18), slice(0, 20)])
def test_a_latent_cell_of_which_any_pixel_may_change_may_change(read, columns):
    config, points = replace(DragLatent(), iterations=6, mask_weight=10.0), at_cells(((15, 12), (28, 12)))
    masks = half_mask(slice(0, 20)), 0.01 * half_mask(columns), half_mask(slice(0, 16))
    whole, part, less = (drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config, mask).dragged for mask in masks)
    assert torch.equal(part, whole)
    assert (less - whole).abs().max() > 0.1


EVERYWHERE = [None, torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64), torch.full((1, 1, 512, 512), 0.2)]


@pytest.mark.parametrize("mask", EVERYWHERE, ids=["none", "black", "white", "grey"])
def test_without_a_mask_z0_is_never_asked_for_and_results_are_the_same(read, mask):
    config, points = replace(DragLatent(), iterations=5, mask_weight=1e3), at_cells(*ONE_HANDLE)
    result = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config, mask)
    assert read.wants and not any(read.wants)
    expected = drag_latent(Warp(), SCHEDULE, latent(), SIGMAS, points, config)
    assert torch.equal(result.dragged, expected.dragged) and result.losses == expected.losses


def test_between_levels_alone_z0_is_asked_for_without_a_mask(read):
    drag_latent(read, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), replace(NEVER, levels=4))
    assert sum(read.wants) == 2 * 3  # both rows, between four levels


@BOTH
def test_under_a_heavy_mask_nothing_outside_changes(read, config):
    points = at_cells(INTO_WHAT_IS_KEPT)
    config = replace(config, iterations=40, levels=1, mask_weight=1e4)
    held = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config, half_mask())
    free = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config)
    scale = (SIGMAS[0] ** 2 + 1) ** 0.5
    moved, moved_freely = (((result.dragged - latent()) / scale)[..., 5:].abs().max() for result in (held, free))
    assert moved < 2.5 * config.learning_rate  # Adam steps to and fro about where it began
    assert moved_freely > 10 * config.learning_rate
    inside = ((held.dragged - latent()) / scale)[..., :5].abs().max()
    assert inside > 5 * config.learning_rate


def test_a_mask_of_no_weight_is_no_mask(read):
    config, points = replace(DragLatent(), iterations=5, mask_weight=0.0), at_cells(*ONE_HANDLE)
    masked, plain = (
        drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config, mask) for mask in (half_mask(), None)
    )
    torch.testing.assert_close(masked.dragged, plain.dragged)
