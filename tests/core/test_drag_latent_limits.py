"""Drags at the edge: half precision, shapes and numbers that are refused, drags that diverge."""

import math
from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.dragging.latent import PUBLISHED, DragLatent, drag_latent, published
from morph_pack.morph_core.dragging.points import to_grid
from morph_pack.morph_core.dragging.tracking import motion_loss
from morph_pack.morph_core.errors import InvalidInput
from morph_tests.core.warps import (
    CELLS,
    NEVER,
    ONE_HANDLE,
    SCHEDULE,
    SIGMAS,
    Warp,
    at_cells,
    distances,
    latent,
    misplaced,
)


@pytest.fixture
def read():
    return Warp()


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
        return replace(features, values=2**-26 * features.values), x0

    points, x = at_cells(*ONE_HANDLE), latent().requires_grad_()
    features, _ = faint(x, SIGMAS[0], False)
    place = to_grid(points.handles, (CELLS, CELLS))
    step = torch.tensor([[1.0, 0.0]])
    motion_loss(features, place + step, features.around(place, 1), 1).sum().backward()
    assert x.grad.abs().max() == 0  # what a plain backward pass would give
    result = drag_latent(faint, SCHEDULE, latent(), SIGMAS, points)
    assert distances(result, points) < 2


def test_features_of_another_shape_than_the_image_have_their_own_cells():
    class Wide(Warp):
        def __call__(self, x, sigma, wants_x0):
            features, x0 = super().__call__(x, sigma, wants_x0)
            return replace(features, size=(CELLS, 2 * CELLS)), x0

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
        return replace(features, values=features.values * float("nan")), x0

    with pytest.raises(InvalidInput, match="features are not finite before the first update: check the model, its pro"):
        drag_latent(broken, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE))


def test_a_drag_that_diverges_is_refused_and_a_lower_learning_rate_is_advised():
    warp, calls = Warp(), []

    def overflowing(x, sigma, wants_x0):
        calls.append(x)
        features, x0 = warp(x, sigma, wants_x0)
        return replace(features, values=features.values * (float("inf") if len(calls) > 2 else 1)), x0

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
        return replace(features, values=(256 * features.values.half()).float()), x0

    config = replace(NEVER, learning_rate=1e-3, iterations=4, levels=2, reach=0.1)
    result = drag_latent(steep, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), config)
    assert len(result.losses) == 8
    assert len({x.sum().item() for x in seen}) >= 8


def test_gradients_that_no_scale_makes_finite_are_refused():
    warp = Warp()

    def broken(x, sigma, wants_x0):
        features, x0 = warp(x, sigma, wants_x0)
        if features.values.requires_grad:
            features.values.register_hook(lambda gradient: gradient * float("inf"))
        return features, x0

    with pytest.raises(InvalidInput, match="gradients are not finite"):
        drag_latent(broken, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE))
