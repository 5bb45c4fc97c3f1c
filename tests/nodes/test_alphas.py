"""Alpha Schedule and Reschedule Alphas."""

from typing import Any

import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
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


def test_two_passes_find_a_steep_change_and_show_it_evenly() -> None:
    """A tenth of the way holds nine tenths of the change, in one step of the first pass."""

    def places(alphas: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(0.1 * alpha + 0.9 * min(1, max(0, (alpha - 0.64) / 0.1)) for alpha in alphas)

    first = alpha_schedule(9)
    settings = {"frames": 0, "metric": "laplacian pyramid"}
    second, _ = run("RescheduleAlphas", images=crossfade(places(first)), alphas=first, method="long steps", **settings)
    assert len(second) == 9 and (second[0], second[-1]) == (0, 1)
    passes = {"images": crossfade(places(second)), "first_pass": crossfade(places(first)), "first_alphas": first}
    images, alphas = run("EvenFrames", **passes, alphas=second, **settings)
    assert torch.equal(images, crossfade(places(alphas))) and set(alphas) <= {*first, *second}
    before, after = (torch.tensor(places(shown)).diff() for shown in (first, alphas))
    assert len(alphas) == 9 and (alphas[0], alphas[-1]) == (0, 1)
    assert before.max() / before.mean() > 6 and after.max() / after.mean() < 2


def test_frames_that_do_not_fit_their_alphas_are_refused() -> None:
    known = {"images": crossfade((0.0, 0.4, 1.0)), "alphas": (0.0, 0.4, 1.0), "metric": "laplacian pyramid"}
    first = {"first_pass": crossfade((0.0, 0.5, 1.0)), "first_alphas": (0.0, 0.5, 1.0)}
    with pytest.raises(InvalidInput, match="^Even Frames: first_pass has 2 frames but its alphas are 3"):
        run("EvenFrames", **known, **{**first, "first_pass": first["first_pass"][:2]}, frames=0)
    with pytest.raises(InvalidInput, match="^Even Frames: frames must be at most the 4 that both passes have, got 5"):
        run("EvenFrames", **known, **first, frames=5)
    with pytest.raises(InvalidInput, match="^Even Frames: images and first_pass must be of one size"):
        run("EvenFrames", **known, **{**first, "first_pass": torch.zeros(3, 8, 8, 3)}, frames=0)
