"""Drags with pins, and drags that begin at a latent in which the handles have moved already."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.dragging.latent import DragLatent, drag_latent, published
from morph_pack.morph_core.dragging.points import DragPoints, from_grid
from morph_pack.morph_core.errors import InvalidInput
from morph_tests.core.warps import CELLS, FIVE_HANDLES, ONE_HANDLE, SCHEDULE, SIGMAS, Warp, at_cells, latent, misplaced

PIN = (22, 24)


def with_pin(points):
    return DragPoints(
        points.handles, points.targets, from_grid(torch.tensor([PIN], dtype=torch.float32), (CELLS, CELLS))
    )


def moved_at_the_pin(read, result):
    """How far the flow at the pin has come from the original's there, in cells."""
    flows = [read.flow(x, SIGMAS[result.level]) for x in (result.original, result.dragged)]
    return (flows[1] - flows[0])[PIN[1], PIN[0]].norm()


@pytest.mark.parametrize("config", [DragLatent(), replace(published("GoodDrag"), levels=1, iterations=60)])
def test_a_pin_stays_where_it_would_have_gone_along(config):
    read, points = Warp(), at_cells(((24, 22), (28, 20)))
    free = drag_latent(read, SCHEDULE, latent(), SIGMAS, points, config)
    held = drag_latent(read, SCHEDULE, latent(), SIGMAS, with_pin(points), config)
    assert moved_at_the_pin(read, held) < 0.6 * moved_at_the_pin(read, free)


def test_without_pins_a_drag_is_what_it_was():
    points = at_cells(*FIVE_HANDLES)
    results = [
        drag_latent(Warp(), SCHEDULE, latent(), SIGMAS, given, DragLatent())
        for given in (points, DragPoints(points.handles, points.targets, torch.zeros(0, 2)))
    ]
    assert torch.equal(results[0].dragged, results[1].dragged) and results[0].losses == results[1].losses


def test_a_drag_that_starts_at_its_end_needs_no_update():
    read, points, x = Warp(), at_cells(*ONE_HANDLE), latent()
    done = drag_latent(read, SCHEDULE, x, SIGMAS, points, DragLatent())
    again = drag_latent(read, SCHEDULE, x, SIGMAS, points, DragLatent(), start=done.dragged)
    assert again.losses == [] and torch.equal(again.dragged, done.dragged)
    assert torch.equal(again.original, x)


def test_a_drag_that_starts_half_way_needs_fewer_updates_and_arrives():
    read, points, x = Warp(), at_cells(*ONE_HANDLE), latent()
    half_way = DragPoints(points.handles, (points.handles + points.targets) / 2)
    start = drag_latent(read, SCHEDULE, x, SIGMAS, half_way, replace(DragLatent(), reach=0.5)).dragged
    config = replace(DragLatent(), tracking_radius=8)
    whole = drag_latent(read, SCHEDULE, x, SIGMAS, points, config)
    rest = drag_latent(read, SCHEDULE, x, SIGMAS, points, config, start=start)
    assert 0 < len(rest.losses) < len(whole.losses)
    assert misplaced(read, x, rest, points).max() < 2.5


def test_a_start_of_another_shape_is_refused():
    with pytest.raises(InvalidInput, match=r"start must be of the latent's shape \(1, 4, 8, 8\), got \(1, 4, 8, 6\)"):
        drag_latent(Warp(), SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), DragLatent(), start=latent()[..., :6])
