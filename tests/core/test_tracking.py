import pytest
import torch

from morph_pack.morph_core.dragging import tracking
from morph_pack.morph_core.dragging.tracking import window
from morph_pack.morph_core.models.feature_map import FeatureMap

HEIGHT, WIDTH = 12, 16


def points(*values):
    return torch.tensor(values, dtype=torch.float32)


def features(height=HEIGHT, width=WIDTH, depth=8, seed=1):
    return torch.randn(1, depth, height, width, generator=torch.Generator().manual_seed(seed))


def as_map(values):
    """Each value a cell."""
    return FeatureMap(values, tuple(values.shape[-2:]))


def track_points(before, after, handles, origins, radius):
    return tracking.track_points(as_map(before).at(origins), as_map(after), handles, radius)


def motion_loss(values, handles, steps, reference, origins, radius):
    return tracking.motion_loss(as_map(values), handles + steps, as_map(reference).around(origins, radius), radius)


def x_y(row_col):
    return row_col.flip(-1)


def published_steps(published):
    """Handles and one unit step towards each target, as (x, y)."""
    handles, targets = (x_y(published[f"drag.{name}_row_col"]) for name in ("handles", "targets"))
    return handles, torch.nn.functional.normalize(targets - handles, dim=1)


def test_published_tracking(published):
    handles = x_y(published["drag.handles_row_col"])
    before, after = published["drag.features_0"], published["drag.features_1"]
    tracked = track_points(before, after, handles, handles, radius=3)
    torch.testing.assert_close(tracked, x_y(published["drag.tracked_row_col"]), rtol=0, atol=1e-4)


def test_published_motion_losses(published):
    handles, steps = published_steps(published)
    after = published["drag.features_1"]
    losses = motion_loss(after, handles, steps, after, handles, radius=1)
    torch.testing.assert_close(losses, published["drag.motion_loss_per_point"], rtol=0, atol=1e-4)


def test_a_window_is_a_square_row_by_row():
    assert window(0).tolist() == [[0, 0]]
    assert window(1).tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 0], [0, 0], [1, 0], [-1, 1], [0, 1], [1, 1]]
    assert len(window(12)) == 25**2


@pytest.mark.parametrize("shift", [(0, 0), (2, -3), (-3, 3), (1, 0)])
@pytest.mark.parametrize("place", [(7, 5), (8.25, 6.5), (7.9, 5.1)])
def test_a_shift_of_the_map_is_found_exactly(place, shift):
    before, handle = features(), points(place)
    after = before.roll((shift[1], shift[0]), dims=(2, 3))
    tracked = track_points(before, after, handle, handle, radius=3)
    torch.testing.assert_close(tracked, handle + points(shift))


def test_a_shift_is_followed_step_by_step_from_where_the_point_was_last_seen():
    before, origin = features(), points([3.5, 4])
    handle = origin
    for step in range(1, 4):
        handle = track_points(before, before.roll(2 * step, dims=3), handle, origin, radius=2)
    torch.testing.assert_close(handle, origin + points([6, 0]))


def test_a_shift_farther_than_the_radius_is_not_found():
    before, handle = features(), points([7, 5])
    tracked = track_points(before, before.roll(4, dims=3), handle, handle, radius=3)
    assert (tracked - handle).abs().max() <= 3 and not torch.equal(tracked, handle + points([4, 0]))


def test_nearness_is_of_sums_of_absolute_differences():
    before, after = torch.zeros(1, 3, 1, 5), torch.zeros(1, 3, 1, 5)
    after[0, :, 0, 1] = points(1, 1, 1)  # nearer in squares
    after[0, :, 0, 3] = points(2, 0, 0)  # nearer in absolute differences
    after[0, :, 0, [0, 2, 4]] = 9
    handle = points([2, 0])
    assert track_points(before, after, handle, handle, radius=2).tolist() == [[3, 0]]


@pytest.mark.parametrize("place", [(0, 0), (15, 0), (0, 11), (15, 11), (0, 5), (15, 5), (7, 0), (7, 11)])
def test_at_the_border_only_the_map_is_searched(place):
    before, handle = features(), points(place)
    after = torch.full_like(before, 100.0)
    inward = (points([7, 5]) - handle).sign() * 2
    x, y = (handle + inward)[0].int().tolist()
    after[0, :, y, x] = before[0, :, place[1], place[0]] + 50  # the best there is, though far from equal
    assert track_points(before, after, handle, handle, radius=3).tolist() == [[x, y]]


def test_a_place_off_the_map_is_never_taken_although_the_borders_value_would_fit():
    before, after = torch.zeros(1, 1, 1, 5), torch.full((1, 1, 1, 5), 9.0)
    after[..., 0] = 1.0  # a sample off the left border has this value, too
    handle = points([0.5, 0])
    tracked = track_points(before, after, handle, handle, radius=2)
    assert tracked.tolist() == [[0.5, 0]]  # whose value is 5


def test_radius_0_leaves_the_point_where_it_is():
    handles = points([7, 5], [3.3, 2.2], [0, 11])
    tracked = track_points(features(), features(seed=2), handles, handles, radius=0)
    assert torch.equal(tracked, handles)


def test_200_points_are_tracked_each_by_itself():
    generator = torch.Generator().manual_seed(3)
    before, after = features(40, 48), features(40, 48).roll((1, -2), dims=(2, 3))
    handles = 5 + torch.rand(200, 2, generator=generator) * torch.tensor([37.0, 29.0])
    tracked = track_points(before, after, handles, handles, radius=3)
    torch.testing.assert_close(tracked, handles + points([-2, 1]))


def test_tracking_needs_and_gives_no_gradient():
    before, after = features().requires_grad_(), features().requires_grad_()
    handles = points([7, 5]).requires_grad_()
    assert not track_points(before, after, handles, handles, radius=1).requires_grad


@pytest.mark.parametrize(("height", "width"), [(9, 1), (1, 9)])
def test_on_a_map_one_cell_wide_points_move_along_it(height, width):
    before = features(height, width)
    along = points(0, 1) if width == 1 else points(1, 0)
    after = before.roll(2, dims=2 if width == 1 else 3)
    handle = 4 * along
    assert torch.equal(track_points(before, after, handle[None], handle[None], radius=3)[0], 6 * along)
    after.requires_grad_()
    moved, not_moved = (motion_loss(after, handle[None], n * along[None], before, handle[None], 1) for n in (2, 3))
    assert moved.item() < 1e-5 and not_moved.item() > 0.5
    not_moved.backward()
    assert torch.isfinite(after.grad).all()
    assert (after.grad.abs().amax(1).flatten() > 0.01).tolist() == [6 <= i <= 8 for i in range(9)]


@pytest.mark.parametrize("radius", [0, 1, 3])
@pytest.mark.parametrize("step", [(1, 0), (-2, 3)])
def test_the_loss_of_a_patch_that_has_moved_is_0(step, radius):
    reference, handles = features(), points([7, 5], [8.5, 6.25])
    moved = reference.roll((step[1], step[0]), dims=(2, 3))
    steps = points(step, step)
    assert motion_loss(moved, handles, steps, reference, handles, radius).abs().max() < 1e-4
    assert motion_loss(reference, handles, steps, reference, handles, radius).min() > 0.1


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_the_loss_of_an_even_change_is_the_patches_cells_times_the_change(radius):
    reference = features()
    losses = motion_loss(reference + 0.5, points([7, 5]), points([0, 0]), reference, points([7, 5]), radius)
    assert losses.tolist() == pytest.approx([0.5 * (2 * radius + 1) ** 2], rel=1e-5)


@pytest.mark.parametrize("place", [(0, 0), (15, 11), (0, 5), (7, 11)])
def test_at_the_border_the_loss_is_of_the_cells_on_the_map(place):
    reference = features()
    losses = motion_loss(reference + 0.5, points(place), points([0, 0]), reference, points(place), 1)
    assert losses.tolist() == pytest.approx([0.5 * 9], rel=1e-5)


@pytest.mark.parametrize(("from_x", "to_x"), [(1, 0), (0, 1), (15, 14), (14, 15)])
def test_cells_off_the_map_in_either_place_do_not_count(from_x, to_x):
    reference, current = features(), features(seed=2)
    kept = [dx for dx in (-1, 0, 1) if 0 <= from_x + dx < WIDTH and 0 <= to_x + dx < WIDTH]
    wanted = reference[0, :, 4:7, [from_x + dx for dx in kept]]
    found = current[0, :, 4:7, [to_x + dx for dx in kept]]
    loss = motion_loss(current, points([from_x, 5]), points([to_x - from_x, 0]), reference, points([from_x, 5]), 1)
    assert len(kept) == 2
    torch.testing.assert_close(loss[0], 9 * (wanted - found).abs().mean())


def test_points_losses_do_not_depend_on_each_other():
    reference, current = features(), features(seed=2)
    generator = torch.Generator().manual_seed(4)
    handles = torch.rand(200, 2, generator=generator) * torch.tensor([WIDTH - 1, HEIGHT - 1])
    steps = torch.randn(200, 2, generator=generator)
    together = motion_loss(current, handles, steps, reference, handles, 2)
    alone = [
        motion_loss(current, handles[i : i + 1], steps[i : i + 1], reference, handles[i : i + 1], 2)
        for i in (0, 9, 199)
    ]
    torch.testing.assert_close(together[[0, 9, 199]], torch.cat(alone))


def gradient_of(change, reference):
    """Gradients of a loss of a patch at (7, 5) that is to move by (2, 1), for both maps."""
    maps = [values.clone().requires_grad_() for values in (change, reference)]
    motion_loss(maps[0], points([7, 5]), points([2, 1]), maps[1], points([7, 5]), 1).sum().backward()
    return [values.grad for values in maps]


def test_the_gradient_is_where_the_patch_should_be_and_nowhere_else():
    current, reference = gradient_of(features(), features(seed=2))
    patch = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    patch[5:8, 8:11] = True
    assert (current.abs().amax((0, 1))[patch] > 0).all()
    assert current[:, :, ~patch].abs().max() < 1e-5  # what rounding of places gives to neighbours
    assert reference is None


def test_no_gradient_flows_into_the_patch_at_the_handle_of_one_map():
    values = features().requires_grad_()
    handles = points([7, 5])
    motion_loss(values, handles, points([4, 0]), values, handles, 1).sum().backward()
    assert values.grad[0, :, 4:7, 6:9].abs().max() < 1e-5
    assert (values.grad[0, :, 4:7, 10:13].abs() > 0.1).all()


def test_following_the_gradient_moves_the_patch():
    reference, handles, steps = features(), points([7, 5]), points([2, 1])
    values = reference.clone().requires_grad_()
    optimiser = torch.optim.SGD([values], lr=0.2)
    for _ in range(200):
        optimiser.zero_grad()
        motion_loss(values, handles, steps, reference, handles, 1).sum().backward()
        optimiser.step()
    moved = values.detach()[0, :, 5:8, 8:11]
    torch.testing.assert_close(moved, reference[0, :, 4:7, 6:9], rtol=0, atol=0.06)
