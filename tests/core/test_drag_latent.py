"""Drags in a model in which the truth is known: the latent's first two channels say how far the picture is moved.

`Warp` draws a fixed pattern, each place of it carried away by `GAIN` cells a unit of the variance-preserving latent. So
what a handle's place shows can be found in the result without any tracking: it came from where the flow says.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from morph_pack.morph_core.dragging.latent import PUBLISHED, DragLatent, drag_latent, published
from morph_pack.morph_core.dragging.points import DragPoints, from_grid, to_grid
from morph_pack.morph_core.dragging.tracking import motion_loss, sample_bilinear, track_points
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.schedule import VariancePreserving

CELLS = 32  # of the map, a side; the latent has 8
GAIN = 20.0
SIGMAS = torch.linspace(8, 4, 21)
SCHEDULE = VariancePreserving(SIGMAS.flip(0))
ONE_HANDLE = (((10, 12), (18, 16)),)
FIVE_HANDLES = (((6, 6), (9, 9)), ((25, 6), (25, 11)), ((16, 16), (13, 16)), ((6, 25), (6, 22)), ((25, 25), (22, 25)))
NEVER = replace(DragLatent(), learning_rate=1e-6, iterations=3)  # too slow to get anywhere


def at_cells(*pairs):
    """Points whose handles and targets are these cells (x, y) of the map."""
    ends = torch.tensor(pairs, dtype=torch.float32)
    return DragPoints(*(from_grid(ends[:, i], (CELLS, CELLS)) for i in (0, 1)))


def grid():
    rows, columns = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
    return torch.stack([columns, rows], dim=-1).float()


def pattern(depth=16):
    """Waves of many directions, each longer than what is dragged in a step: (1, depth, CELLS, CELLS)."""
    generator = torch.Generator().manual_seed(1)
    angles, phases = 2 * math.pi * torch.rand(2, depth, generator=generator)
    lengths = 10 + 20 * torch.rand(depth, generator=generator)
    waves = torch.stack([angles.cos(), angles.sin()], dim=-1) * 2 * math.pi / lengths[:, None]
    return (grid() @ waves.T + phases).sin().movedim(-1, 0)[None]


def latent(seed=1):
    """A latent that moves nothing by much, at SIGMAS[0]."""
    z = 0.01 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return z * (SIGMAS[0] ** 2 + 1) ** 0.5


class Warp:
    """A model's `read`. Its z0 is that of unit Gaussian data, so that sampling leaves the picture where it is."""

    def __init__(self):
        self.pattern, self.wants = pattern(), []

    def flow(self, x, sigma):
        """(CELLS, CELLS, 2): from where each place's content is, to the place."""
        z = x[:, :2] / (sigma**2 + 1) ** 0.5
        return GAIN * interpolate(z, (CELLS, CELLS), mode="bilinear")[0].movedim(0, -1)

    def __call__(self, x, sigma, wants_x0):
        self.wants.append(wants_x0)
        drawn = sample_at(self.pattern, grid() - self.flow(x, sigma))
        return drawn.movedim(-1, 0)[None], self.denoise(x, sigma) if wants_x0 else None

    def denoise(self, x, sigma):
        return x / (sigma**2 + 1)

    def origin(self, x, sigma, places):
        """Where what is at `places` (N, 2) was in the pattern."""
        return places - sample_bilinear(self.flow(x, sigma).movedim(-1, 0)[None], places)


def sample_at(values, places):
    """As `sample_bilinear`, but with a gradient for the places."""
    normal = 2 * places / (CELLS - 1) - 1
    sampled = torch.nn.functional.grid_sample(values, normal[None], padding_mode="border", align_corners=True)
    return sampled[0].movedim(0, -1)


@pytest.fixture
def read():
    return Warp()


def distances(result, points, row=-1):
    """From each handle of a row of the tracks to its target, in cells."""
    return (to_grid(result.tracks[row], (CELLS, CELLS)) - to_grid(points.targets, (CELLS, CELLS))).norm(dim=1)


def misplaced(read, x, result, points):
    """From what each handle showed to what its place now shows, in cells of the pattern."""
    now, then = (to_grid(places, (CELLS, CELLS)) for places in (result.tracks[-1], points.handles))
    return (read.origin(result.dragged, SIGMAS[result.level], now) - read.origin(x, SIGMAS[0], then)).norm(dim=1)


OBJECTIVES = {
    "DragDiffusion": DragLatent(),
    "GoodDrag": replace(published("GoodDrag"), motion_radius=2, tracking_radius=6, drag_distance=2.0, levels=5),
}
BOTH = pytest.mark.parametrize("config", OBJECTIVES.values(), ids=OBJECTIVES.keys())


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
    assert torch.equal(result.original, ddim.sample(read.denoise, x, SIGMAS[:levels]))
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


def by_hand(read, x, sigmas, points, config, kept=None):
    """DragDiffusion's loop, written out with a plain Adam and without scaling of the loss: z, losses, tracks."""
    scale = (sigmas[0] ** 2 + 1) ** 0.5
    original, x0 = read(x, sigmas[0], True)
    following = z_after(x, x0, sigmas)
    origins, targets = (to_grid(end, (CELLS, CELLS)) for end in (points.handles, points.targets))
    z, handles, tracks, losses = (x / scale).requires_grad_(), origins, [], []
    optimiser = torch.optim.Adam([z], lr=config.learning_rate)
    for update in range(config.iterations):
        features, x0 = read(z * scale, sigmas[0], True)
        if update and update % config.drags_per_tracking == 0:
            handles = track_points(original, features, handles, origins, config.tracking_radius)
        tracks.append(handles)
        ways = [(target - handle, (target - handle).norm()) for handle, target in zip(handles, targets, strict=True)]
        steps = torch.stack([way * min(1, config.drag_distance / max(length.item(), 1e-9)) for way, length in ways])
        reference = (features, handles) if config.objective == "DragDiffusion" else (original, origins)
        per_point = motion_loss(features, handles, steps, *reference, config.motion_radius)
        loss = torch.stack([one for one, way in zip(per_point, ways, strict=True) if way[1] >= config.reach]).sum()
        if kept is not None:
            loss = loss + config.mask_weight * ((z_after(z * scale, x0, sigmas) - following).abs() * kept).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    features, _ = read(z * scale, sigmas[0], False)
    tracks.append(track_points(original, features, handles, origins, config.tracking_radius))
    return (z * scale).detach(), losses, from_grid(torch.stack(tracks), (CELLS, CELLS))


def z_after(x, x0, sigmas):
    """The variance-preserving latent a DDIM step later, by eq. 12 of the paper."""
    (alpha, alpha_next), noise = (1 / (sigmas[:2] ** 2 + 1)), (x - x0) / sigmas[0]
    assert alpha < alpha_next
    return alpha_next.sqrt() * x0 + (1 - alpha_next).sqrt() * noise


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


def halved(read):
    """`read` through a network that computes in half precision: values and gradients pass through float16."""
    return lambda x, sigma, wants_x0: read(x.half().float(), sigma, wants_x0)


def test_in_half_precision_the_handle_arrives_too(read):
    points = at_cells(*ONE_HANDLE)
    result = drag_latent(halved(read), SCHEDULE, latent(), SIGMAS, points)
    assert distances(result, points) < 2
    assert misplaced(read, latent(), result, points) < 1


def test_gradients_too_small_for_half_precision_still_move_the_handle(read):
    def faint(x, sigma, wants_x0):
        features, x0 = halved(read)(x, sigma, wants_x0)
        return 2**-26 * features, x0

    points, x = at_cells(*ONE_HANDLE), latent().requires_grad_()
    features, _ = faint(x, SIGMAS[0], False)
    place = to_grid(points.handles, (CELLS, CELLS))
    step = torch.tensor([[1.0, 0.0]])
    motion_loss(features, place, step, features, place, 1).sum().backward()
    assert x.grad.abs().max() == 0  # what a plain backward pass would give
    result = drag_latent(faint, SCHEDULE, latent(), SIGMAS, points)
    assert distances(result, points) < 2


def test_features_of_another_shape_than_the_image_have_their_own_cells():
    class Wide(Warp):
        def __call__(self, x, sigma, wants_x0):
            features, x0 = super().__call__(x, sigma, wants_x0)
            return interpolate(features, (CELLS, 2 * CELLS), mode="bilinear"), x0

    points = at_cells(*ONE_HANDLE)
    result = drag_latent(Wide(), SCHEDULE, latent(), SIGMAS, points, replace(NEVER, iterations=1))
    assert result.remaining.tolist() == pytest.approx([(16**2 + 4**2) ** 0.5], abs=1e-3)


@pytest.mark.parametrize("batch", [0, 2])
def test_a_batch_is_refused(read, batch):
    with pytest.raises(InvalidInput, match=f"one image, got a batch of {batch}"):
        drag_latent(
            read, SCHEDULE, latent().expand(batch, -1, -1, -1) if batch else latent()[:0], SIGMAS, at_cells(*ONE_HANDLE)
        )


@pytest.mark.parametrize(("levels", "sigmas"), [(21, 21), (1, 1), (30, 21)])
def test_more_levels_than_steps_are_refused(read, levels, sigmas):
    with pytest.raises(InvalidInput, match=f"levels is {levels} but only {sigmas - 1} sampling steps remain"):
        drag_latent(
            read, SCHEDULE, latent(), SIGMAS[:sigmas], at_cells(*ONE_HANDLE), replace(DragLatent(), levels=levels)
        )


@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan])
@pytest.mark.parametrize(
    "name",
    ["iterations", "learning_rate", "drag_distance", "tracking_radius", "drags_per_tracking", "levels", "reach"],
)
def test_numbers_that_must_be_above_0_are_refused_by_name(name, value):
    with pytest.raises(InvalidInput, match=f"{name} must be above 0, got {value}"):
        DragLatent(**{name: value})


@pytest.mark.parametrize("name", ["motion_radius", "mask_weight"])
def test_numbers_that_may_be_0_are_refused_below_it(name):
    assert getattr(DragLatent(**{name: 0}), name) == 0
    for value in (-1, math.nan):
        with pytest.raises(InvalidInput, match=f"{name} must not be negative, got {value}"):
            DragLatent(**{name: value})


@pytest.mark.parametrize("objective", ["", "gooddrag", "DragGAN"])
def test_an_unknown_objective_is_refused_and_the_known_are_told(objective):
    for refused in (DragLatent, published):
        with pytest.raises(InvalidInput, match="objective must be one of GoodDrag, DragDiffusion; got"):
            refused(objective=objective)


def test_dragdiffusions_published_numbers():
    config = published("DragDiffusion")
    assert config == DragLatent() and config.objective == "DragDiffusion"
    assert (config.learning_rate, config.iterations, config.levels) == (0.01, 80, 1)
    assert (config.motion_radius, config.tracking_radius, config.mask_weight) == (1, 3, 0.1)
    assert (config.drag_distance, config.drags_per_tracking, config.reach) == (1, 1, 2)  # a unit step at a time


def test_gooddrags_published_numbers():
    config = published("GoodDrag")
    assert config.objective == "GoodDrag" and set(PUBLISHED) == {"DragDiffusion", "GoodDrag"}
    assert (config.learning_rate, config.motion_radius, config.tracking_radius) == (0.02, 4, 12)
    assert (config.drag_distance, config.drags_per_tracking, config.levels) == (4, 3, 7)
    assert config.iterations / config.drags_per_tracking == 10  # trackings a step


def test_features_that_are_not_finite_are_refused():
    warp = Warp()

    def broken(x, sigma, wants_x0):
        features, x0 = warp(x, sigma, wants_x0)
        return features * float("nan"), x0

    with pytest.raises(InvalidInput, match="features are not finite before the first update: check the model, its pro"):
        drag_latent(broken, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE))


def test_a_drag_that_diverges_is_refused_and_a_lower_learning_rate_is_advised():
    warp, calls = Warp(), []

    def overflowing(x, sigma, wants_x0):
        calls.append(x)
        features, x0 = warp(x, sigma, wants_x0)
        return features * (float("inf") if len(calls) > 2 else 1), x0

    with pytest.raises(InvalidInput, match=r"not finite after \d updates: lower learning_rate, or use float32"):
        drag_latent(overflowing, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), NEVER)


@pytest.mark.parametrize("shape", [(8, 8), (2, 1, 8, 8), (1, 3, 8, 8)])
def test_a_mask_of_another_shape_is_refused(shape):
    with pytest.raises(InvalidInput, match=r"mask must be of shape \(1, 1, H, W\)"):
        drag_latent(Warp(), SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), mask=torch.ones(shape))


def test_it_works_where_gradients_are_off():
    expected = drag_latent(Warp(), SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE))
    with torch.no_grad():
        found = drag_latent(Warp(), SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE))
    assert torch.equal(found.dragged, expected.dragged)


def test_an_update_whose_gradient_overflows_half_precision_is_made_again_at_a_smaller_scale():
    """Every update that is counted has changed the latent, however steep the features are."""
    warp, seen = Warp(), []

    def steep(x, sigma, wants_x0):
        seen.append(x.detach().clone())
        features, x0 = warp(x, sigma, wants_x0)
        return (256 * features.half()).float(), x0

    config = replace(NEVER, learning_rate=1e-3, iterations=4, levels=2, reach=0.1)
    result = drag_latent(steep, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), config)
    assert len(result.losses) == 8
    assert len({x.sum().item() for x in seen}) >= 8


def test_gradients_that_no_scale_makes_finite_are_refused():
    warp = Warp()

    def broken(x, sigma, wants_x0):
        features, x0 = warp(x, sigma, wants_x0)
        features.register_hook(lambda gradient: gradient * float("inf")) if features.requires_grad else None
        return features, x0

    with pytest.raises(InvalidInput, match="gradients are not finite"):
        drag_latent(broken, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE))
