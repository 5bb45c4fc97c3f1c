"""How often a drag runs its network, and how far: no more than the loss, the tracking and the next level need."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.dragging.latent import drag_latent
from morph_tests.core.warps import BOTH, NEVER, ONE_HANDLE, SCHEDULE, SIGMAS, Warp, at_cells, latent

UPDATES = NEVER.iterations
MASK = torch.zeros(1, 1, 64, 64)
MASK[..., :32] = 1


@pytest.fixture
def read():
    return Warp()


@pytest.mark.parametrize("levels", [1, 2, 7])
@pytest.mark.parametrize("objective", ["DragDiffusion", "GoodDrag"])
def test_a_level_runs_it_for_its_original_its_updates_and_its_end(read, objective, levels):
    config = replace(NEVER, levels=levels, objective=objective)
    drag_latent(read, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), config)
    level = [True, *[False] * UPDATES, True]  # both rows go on to the next level from the forwards that are made anyway
    assert read.wants == (levels - 1) * level + [False] * (UPDATES + 2)


@pytest.mark.parametrize("levels", [1, 2, 7])
def test_with_a_mask_every_forward_is_whole_but_that_of_the_end(read, levels):
    drag_latent(read, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), replace(NEVER, levels=levels), MASK)
    assert read.wants == [True] * (levels * (UPDATES + 2) - 1) + [False]


@BOTH
def test_when_the_handles_have_arrived_nothing_runs_after_the_forward_that_found_them(read, config):
    result = drag_latent(read, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), config)
    assert (result.remaining < config.reach).all()
    assert len(read.wants) == len(result.losses) + 2 * (result.level + 1)


def test_gradients_are_asked_of_the_updates_alone(read):
    seen = []

    def watched(x, sigma, wants_x0):
        seen.append(x.requires_grad and torch.is_grad_enabled())
        return read(x, sigma, wants_x0)

    drag_latent(watched, SCHEDULE, latent(), SIGMAS, at_cells(*ONE_HANDLE), replace(NEVER, levels=2))
    assert seen == 2 * [False, *[True] * UPDATES, False]
