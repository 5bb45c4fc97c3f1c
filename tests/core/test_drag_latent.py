"""Drags in a model in which the truth is known (`warps.py`)."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.dragging.latent import DragLatent, drag_latent
from morph_pack.morph_core.dragging.points import to_grid
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_tests.core.warps import (
    BOTH,
    CELLS,
    FIVE_HANDLES,
    NEVER,
    OBJECTIVES,
    ONE_HANDLE,
    SCHEDULE,
    SIGMAS,
    Warp,
    at_cells,
    by_hand,
    distances,
    latent,
    misplaced,
)


@pytest.fixture
def read():
    return Warp()


@BOTH
@pytest.mark.parametrize("pairs", [ONE_HANDLE, FIVE_HANDLES], ids=["one", "five"])
def test_what_the_handles_showed_is_at_their_targets(read, config, pairs):
    points, x = at_cells(*pairs), latent()
    result = drag_latent(read, SCHEDULE, x, SIGMAS, points, config)
    assert distances(result, points).max() < config.reach
    assert misplaced(read, x, result, points).max() < 1  # half a diagonal is what searching at whole cells may miss


@BOTH
def test_the_track_begins_at_the_handles_and_ends_within_reach(read, config):
    points = at_cells(*FIVE_HANDLES)
    result = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config)
    torch.testing.assert_close(result.tracks[0], points.handles)
    assert (distances(result, points, 0) >= config.reach).any()
    assert (distances(result, points) < config.reach).all()
    torch.testing.assert_close(result.remaining, distances(result, points), rtol=0, atol=1e-4)


def test_the_tracks_are_what_was_told_before_every_update_and_at_the_end(read):
    told, points = [], at_cells(*FIVE_HANDLES)
    result = drag_latent(
        read, SCHEDULE, latent(), SIGMAS, points, DragLatent(), on_drag=lambda *call: told.append(call)
    )
    assert [done for done, _, _ in told] == list(range(len(result.losses) + 1))
    assert {total for _, total, _ in told} == {80}
    assert torch.equal(torch.stack([places for _, _, places in told]), result.tracks)
    assert 5 < len(result.losses) < 80


def test_a_handle_without_a_target_ahead_is_left_alone(read):
    near, far = ((20, 20), (21, 20)), ((6, 6), (12, 6))
    both, alone = at_cells(near, far), at_cells(far)
    config = replace(NEVER, iterations=1)
    losses = [drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config).losses for points in (both, alone)]
    assert losses[0] == losses[1] and losses[0][0] > 0.1


def test_a_drag_shorter_than_its_reach_is_refused(read):
    """It would do nothing, and say nothing."""
    with pytest.raises(InvalidInput, match=r"every handle is within reach of its target already \(100 cells\)"):
        drag_latent(
            read, SCHEDULE, latent(), SIGMAS, at_cells(*FIVE_HANDLES), replace(DragLatent(), reach=100.0, levels=3)
        )


@pytest.mark.parametrize(("iterations", "levels"), [(1, 1), (4, 1), (3, 4), (1, 20)])
def test_updates_are_as_many_as_allowed_until_every_handle_has_arrived(read, iterations, levels):
    config = replace(NEVER, iterations=iterations, levels=levels)
    points = at_cells(((20, 20), (21, 20)), *ONE_HANDLE)  # the first is there already
    result = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config)
    assert len(result.losses) == iterations * levels and result.level == levels - 1
    assert (result.remaining < config.reach).tolist() == [True, False]


@pytest.mark.parametrize(("objective", "iterations"), [("DragDiffusion", 12), ("GoodDrag", 5)])
def test_a_drag_ends_at_the_level_where_the_handles_arrive(read, objective, iterations):
    config, points = replace(OBJECTIVES[objective], iterations=iterations, levels=9), at_cells(*ONE_HANDLE)
    result = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config)
    assert 0 < result.level < 8
    assert iterations * result.level < len(result.losses) <= iterations * (result.level + 1)
    assert misplaced(read, latent(), result, points) < 1
    before = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, replace(config, levels=result.level))
    assert before.remaining.min() >= config.reach  # a level fewer is not enough
    assert result.losses[: len(before.losses)] == before.losses


class Fading(Warp):
    """Sees nothing behind the noise: sampling takes the flow back with the noise."""

    def denoise(self, x, sigma):
        return torch.zeros_like(x)


def test_at_every_level_the_handles_are_looked_for_before_they_are_moved():
    sigmas = torch.tensor([2.0, 0.5, 0.4])  # of the flow half is left after the first step
    config = DragLatent(iterations=30, levels=2, tracking_radius=6, drags_per_tracking=30)
    points = at_cells(((8, 16), (24, 16)))
    x = latent() * ((sigmas[0] ** 2 + 1) / (SIGMAS[0] ** 2 + 1)) ** 0.5
    tracks = to_grid(drag_latent(Fading(), SCHEDULE, x, sigmas, points, config).tracks, (CELLS, CELLS))[:, 0, 0]
    before, after = tracks[30].item() - 8, tracks[31].item() - 8  # the end of a level, the beginning of the next
    assert tracks[:30].tolist() == [8] * 30 and before >= 4
    assert after == pytest.approx(before / 2, abs=1)


def test_at_one_level_the_original_is_what_was_given(read):
    x = latent()
    before = x.clone()
    result = drag_latent(read, SCHEDULE, x, SIGMAS, at_cells(*ONE_HANDLE))
    assert torch.equal(result.original, before) and torch.equal(x, before)
    assert x.grad is None and not x.requires_grad
    assert not (result.original.requires_grad or result.dragged.requires_grad or result.tracks.requires_grad)
    assert (result.dragged - x).abs().max() > 0.1


@pytest.mark.parametrize("levels", [2, 7, 20])
def test_the_original_is_denoised_as_ddim_does(read, levels):
    x = latent()
    result = drag_latent(
        read, SCHEDULE, x, SIGMAS, at_cells(*ONE_HANDLE), replace(NEVER, levels=levels, objective="GoodDrag")
    )
    torch.testing.assert_close(result.original, ddim.sample(read.denoise, x, SIGMAS[:levels]), rtol=1e-5, atol=1e-7)
    assert (result.original - x).abs().max() > 1e-3


def test_an_untouched_row_is_denoised_as_the_original_is(read):
    config = replace(NEVER, learning_rate=1e-12, levels=5)
    result = drag_latent(read, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), config)
    torch.testing.assert_close(result.dragged, result.original)


@pytest.mark.parametrize("call", [0, 1, 5, 9])
def test_an_exception_from_on_drag_passes_through(read, call):
    x, told = latent(), []

    def cancel(*now):
        told.append(now)
        if len(told) > call:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drag_latent(read, SCHEDULE, x, SIGMAS, at_cells(*ONE_HANDLE), replace(NEVER, levels=4), on_drag=cancel)
    assert len(told) == call + 1
    assert torch.equal(x, latent())


@pytest.mark.parametrize("drags_per_tracking", [1, 3])
@BOTH
def test_scaling_the_loss_changes_nothing_in_float32(read, config, drags_per_tracking):
    config = replace(config, iterations=7, levels=1, drags_per_tracking=drags_per_tracking)
    points = at_cells(*FIVE_HANDLES)
    result = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config)
    dragged, losses, tracks = by_hand(read, latent(), SIGMAS, points, config)
    torch.testing.assert_close(result.dragged, dragged, rtol=0, atol=1e-5)
    assert result.losses == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(result.tracks, tracks)
    assert (result.dragged - latent()).abs().max() > 0.3  # of 8 a unit
