"""The fields that a drag by warping follows: exact where they are exact, and as published where they are published."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from morph_pack.morph_core.dragging.backward import PARTS, Matter, after_another, backward_fields, pixel_middles
from morph_pack.morph_core.dragging.moves import Warp, moves_of
from morph_pack.morph_core.dragging.moving_least_squares import moving_least_squares
from morph_pack.morph_core.dragging.points import DragPoints
from morph_pack.morph_core.dragging.published_fields import fading_moves, inverse_distance_moves, nearest_moves
from morph_pack.morph_core.errors import InvalidInput

PLACES = pixel_middles((20, 30)).reshape(-1, 2)
CONTROLS = torch.tensor([[4.0, 5.0], [20.0, 6.0], [11.0, 15.0]], dtype=torch.float64)
EXACT = {"rtol": 0, "atol": 1e-9}


def backward_field(*given):
    return after_another(backward_fields(*given))


def turned(places, angle, size=1.0, about=(7.0, 3.0)):
    cosine, sine = size * math.cos(angle), size * math.sin(angle)
    middle = torch.tensor(about, dtype=places.dtype)
    matrix = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=places.dtype)
    return (places - middle) @ matrix.T + middle + torch.tensor([2.0, -1.0], dtype=places.dtype)


@pytest.fixture(scope="module")
def golden():
    return load_file(Path(__file__).parent / "golden" / "warps.safetensors")


def test_one_point_moves_everything_as_it_moves():
    moved = moving_least_squares(PLACES, CONTROLS[:1], CONTROLS[:1] + torch.tensor([3.25, -1.5]))
    torch.testing.assert_close(moved, PLACES + torch.tensor([3.25, -1.5], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("similar", [False, True])
def test_points_that_turn_together_turn_everything(count, similar):
    controls = CONTROLS[:count]
    moved = moving_least_squares(PLACES, controls, turned(controls, 0.7), similar)
    torch.testing.assert_close(moved, turned(PLACES, 0.7), **EXACT)


def test_only_a_similarity_grows():
    grown = turned(CONTROLS, -0.4, size=1.5)
    torch.testing.assert_close(moving_least_squares(PLACES, CONTROLS, grown, True), turned(PLACES, -0.4, 1.5), **EXACT)
    rigid = moving_least_squares(PLACES, CONTROLS, grown)
    assert (rigid - turned(PLACES, -0.4, 1.5)).norm(dim=1).max() > 1


@pytest.mark.parametrize("field", ["rigid", "similarity", "inverse distance", "fading", "nearest"])
def test_a_target_comes_from_its_handle_and_a_pin_from_itself(field):
    before = CONTROLS
    after = CONTROLS + torch.tensor([[1.5, 0.5], [0.5, -1.0], [0.0, 0.0]], dtype=torch.float64)
    back = backward_field(before, after, field, Matter(PLACES))
    torch.testing.assert_close(back(after), before, rtol=0, atol=1e-4)


def test_of_many_parts_a_target_comes_from_its_handle_still():
    after = CONTROLS + torch.tensor([[1.5, 0.5], [6.5, -1.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(backward_field(CONTROLS, after, "rigid", Matter(PLACES), 8)(after), CONTROLS, **EXACT)


def test_the_inverse_of_a_published_field_leads_back():
    moves = torch.tensor([[1.5, 0.5], [0.5, -1.0], [0.0, 0.0]], dtype=torch.float64)
    back = backward_field(CONTROLS, CONTROLS + moves, "fading", Matter(PLACES))
    forward = PLACES + fading_moves(PLACES, CONTROLS, moves, PLACES)
    torch.testing.assert_close(back(forward), PLACES, rtol=0, atol=1e-5)


def test_fading_ends_on_the_circle_around_the_region():
    corners = torch.tensor([[0.5, 0.5], [29.5, 19.5]], dtype=torch.float64)
    moves = fading_moves(corners, CONTROLS, torch.ones(3, 2, dtype=torch.float64), PLACES)
    assert moves.abs().max() < 1e-6


@pytest.mark.parametrize("case", ["one_pair_between_cells", "one_pair_on_a_cell", "two_pairs", "out_of_the_latent"])
def test_fading_is_fast_drags(golden, case):
    cells, handles, targets, moves = (
        golden[f"fastdrag.{case}.{name}_row_col"].double() for name in ("cells", "handles", "targets", "move")
    )
    found = fading_moves(cells, handles, targets - handles, cells)
    known = moves.isfinite().all(-1)  # at the handle itself the published code divides 0 by 0
    torch.testing.assert_close(found[known], moves[known], rtol=0, atol=5e-6)


@pytest.mark.parametrize("case", ["one_pair_plane", "two_pairs_plane"])
def test_nearest_is_geo_drags(golden, case):
    torch.testing.assert_close(geo_drag(golden, case, None), golden[f"geodrag.{case}.flow_x_y"].double(), **ROUNDED)


@pytest.mark.parametrize("case", ["one_pair_depth", "two_pairs_depth", "handle_outside_the_mask"])
def test_nearest_with_a_depth_is_geo_drags(golden, case):
    depth = golden["geodrag.depth"].double()
    depth = (depth - depth.min()) / (depth.max() - depth.min())
    torch.testing.assert_close(geo_drag(golden, case, depth), golden[f"geodrag.{case}.flow_x_y"].double(), **ROUNDED)


ROUNDED = {"rtol": 0, "atol": 5e-6}  # theirs is in single precision


def geo_drag(golden, case, depth):
    cells = golden[f"geodrag.{case}.cells_row_col"].double().flip(1)
    handles, targets = (golden[f"geodrag.{case}.{name}_x_y"].double() for name in ("handles", "targets"))
    at = Matter(cells, depth).depth_at
    depths = None if depth is None else (at(cells), at(handles))
    return nearest_moves(cells, handles, targets - handles, cells, depths)


def test_inverse_distance_is_inpaint4drags_at_a_thousandth_of_a_pixel(golden):
    name = "inpaint4drag.thousandths"
    points, handles, targets, moved = (
        golden[f"{name}.{what}_x_y"].double() for what in ("points", "handles", "targets", "moved")
    )
    assert torch.equal((points + inverse_distance_moves(points, handles, targets - handles)).round(), moved)


@pytest.mark.parametrize("case", ["three_pairs", "six_pairs"])
def test_inverse_distance_is_inpaint4drags_to_the_pixel(golden, case):
    region, handles, targets, moved = (
        golden[f"inpaint4drag.{case}.{what}_x_y"].double() for what in ("region", "handles", "targets", "region_moved")
    )
    known = golden[f"inpaint4drag.{case}.region_moved_unambiguous"].bool()
    found = (region + inverse_distance_moves(region, handles, targets - handles)).round()
    assert torch.equal(found[known], moved[known])


def points_of(pairs, pins=()):
    handles, targets = torch.tensor(pairs, dtype=torch.float64).movedim(1, 0)
    return DragPoints(handles, targets, torch.tensor(pins, dtype=torch.float64).reshape(-1, 2))


def test_near_an_arrow_all_moves_and_far_away_nothing():
    points = points_of([[[0.4, 0.5], [0.5, 0.5]]])
    (move,) = moves_of(points, None, (100, 100), Warp(radius=0.1))
    places = pixel_middles((100, 100))
    gone = places - move.came
    assert torch.equal(gone[50, 50], torch.tensor([10.0, 0.0], dtype=torch.float64))  # at the target
    torch.testing.assert_close(gone[41, 45], torch.tensor([10.0, 0.0], dtype=torch.float64), **EXACT)
    assert (gone[:, :9] == 0).all() and (gone[:19] == 0).all()  # 10 + 2 · 10 pixels from the arrow, and beyond


def test_a_drag_that_would_fold_is_gone_in_parts():
    pairs = torch.tensor([[[28.0, 19.0], [46.0, 27.0]], [[23.0, 13.0], [18.0, 38.0]]]) / 64
    points = points_of(pairs.tolist())
    mask = torch.ones(64, 64, dtype=torch.bool)
    mask[0, 0] = False
    (move,) = moves_of(points, mask, (64, 64), Warp())
    before, after = (torch.cat([ends, points.pins]) * 64 for ends in (points.handles, points.targets))
    fields = [
        backward_field(before, after, "rigid", Matter(PLACES), parts)(pixel_middles((64, 64)).reshape(-1, 2))
        for parts in PARTS
    ]
    assert folds(fields[0].reshape(64, 64, 2)) > 0.02
    assert folds(move.came) < 0.005
    assert any(torch.equal(move.came.reshape(-1, 2), field) for field in fields[1:])


def folds(came):
    across, down = came[:-1, 1:] - came[:-1, :-1], came[1:, :-1] - came[:-1, :-1]
    return (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0] <= 0).double().mean()


def test_points_that_change_places_are_refused():
    points = points_of([[[0.3, 0.5], [0.7, 0.5]], [[0.7, 0.5], [0.3, 0.5]]], [[0.5, 0.52]])
    with pytest.raises(InvalidInput, match="fold the picture over itself"):
        moves_of(points, None, (64, 64), Warp())


@pytest.mark.parametrize(
    ("pairs", "pins", "message"),
    [
        ([[[0.2, 0.2], [0.4, 0.4]], [[0.2, 0.2], [0.4, 0.5]]], [], "pair 1 and pair 2 start at the same place"),
        ([[[0.2, 0.2], [0.4, 0.4]], [[0.3, 0.2], [0.4, 0.4]]], [], "pair 1 and pair 2 end at the same place"),
        ([[[0.2, 0.2], [0.4, 0.4]]], [[0.4, 0.4]], "pair 1 and pin 1 end at the same place"),
        ([[[0.2, 0.2], [0.4, 0.4]]], [[0.5, 0.5], [0.2, 0.2]], "pair 1 and pin 2 start at the same place"),
    ],
)
def test_points_that_contradict_each_other_are_named(pairs, pins, message):
    with pytest.raises(InvalidInput, match=message):
        moves_of(points_of(pairs, pins), None, (64, 64), Warp())


def test_a_depth_is_refused_where_it_means_nothing():
    with pytest.raises(InvalidInput, match="\"nearest\" alone, not for 'rigid'"):
        moves_of(points_of([[[0.4, 0.5], [0.5, 0.5]]]), None, (8, 8), Warp(), torch.ones(8, 8))


@pytest.mark.parametrize("settings", [{"field": "affine"}, {"radius": 0}, {"radius": 1.5}, {"radius": math.nan}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InvalidInput, match=next(iter(settings))):
        Warp(**settings)
