"""Alpha Schedule and Reschedule Alphas."""

from typing import Any

import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.morphing.alphas import EASINGS, alpha_schedule
from morph_tests.nodes.graph import run


def reschedule(images: Tensor, alphas: Any, frames: int = 0) -> Any:
    return run("RescheduleAlphas", images=images, alphas=alphas, frames=frames, metric="laplacian pyramid")


def crossfade(places: tuple[float, ...]) -> Tensor:
    """Images (F, H, W, 3) that go from black to grey, so that they differ as their places do."""
    return 0.5 * torch.tensor(places)[:, None, None, None].expand(-1, 32, 24, 3)


@pytest.mark.parametrize("easing", EASINGS)
@pytest.mark.parametrize("frames", [2, 7])
def test_alpha_schedule_is_the_cores(easing: str, frames: int) -> None:
    (alphas,) = run("AlphaSchedule", frames=frames, easing=easing)
    assert alphas == alpha_schedule(frames, easing)
    assert (alphas[0], alphas[-1]) == (0, 1)


@pytest.mark.parametrize("frames", [0, 5, 9])
def test_reschedule_alphas_evens_out_an_uneven_way(frames: int) -> None:
    """The images have gone alpha squared of the way, so even steps are the roots of even numbers."""
    alphas = tuple(i / 40 for i in range(41))
    even, _ = reschedule(crossfade(tuple(alpha**2 for alpha in alphas)), alphas, frames)
    assert even == pytest.approx([(i / (len(even) - 1)) ** 0.5 for i in range(len(even))], abs=0.03)
    assert len(even) == (frames or 41)


def test_reschedule_alphas_takes_what_alpha_schedule_and_other_nodes_give() -> None:
    images = crossfade((0.0, 0.1, 1.0))
    expected = reschedule(images, (0.0, 0.5, 1.0))[0]
    assert reschedule(images, [0.0, 0.5, 1.0])[0] == expected
    assert reschedule(images, torch.tensor([0.0, 0.5, 1.0]))[0] == expected


def test_the_fourth_channel_of_an_image_is_no_colour() -> None:
    images = crossfade((0.0, 0.1, 1.0))
    with_mask = torch.cat([images, torch.rand(3, 32, 24, 1)], -1)
    assert reschedule(with_mask, (0.0, 0.5, 1.0))[0] == reschedule(images, (0.0, 0.5, 1.0))[0]


def test_frames_that_are_all_the_same_are_spaced_evenly() -> None:
    even, plot = reschedule(crossfade((0.3,) * 5), (0.0, 0.1, 0.2, 0.9, 1.0))
    assert even == pytest.approx((0, 0.25, 0.5, 0.75, 1))
    assert plot.ndim == 4 and plot.shape[-1] == 3 and torch.isfinite(plot).all()


def test_frames_that_differ_by_rounding_only_are_spaced_evenly() -> None:
    """As the frames of an image's morph to itself do."""
    generator = torch.Generator().manual_seed(0)
    images = crossfade((0.3,) * 5) + 1e-6 * torch.rand(5, 32, 24, 3, generator=generator)
    images[3] += 1e-6
    even, _ = reschedule(images, alpha_schedule(5))
    assert even == pytest.approx((0, 0.25, 0.5, 0.75, 1), abs=1e-3)
