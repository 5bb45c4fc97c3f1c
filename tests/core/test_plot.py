import pytest
import torch

from morph_pack.morph_core.morphing.alphas import alpha_schedule, reschedule_alphas
from morph_pack.morph_core.pictures.perceptual_curve import AFTER, BEFORE, MARGIN, SIZE, plot_paths

LEFT, TOP, RIGHT, BOTTOM = MARGIN[0], MARGIN[1], SIZE[0] - MARGIN[2], SIZE[1] - MARGIN[3]


def place(share_of_frames, share_of_way):
    """The pixel (x, y) of a point of the chart."""
    return round(LEFT + share_of_frames * (RIGHT - LEFT)), round(BOTTOM - share_of_way * (BOTTOM - TOP))


def has_colour(picture, pixel, colour):
    x, y = pixel
    return torch.equal((picture[0, y, x] * 255).round().int(), torch.tensor(colour, dtype=torch.int32))


def coloured(picture, colour):
    """Shares (frames, way) of every pixel inside the chart that has the colour: (N, 2)."""
    mask = ((picture[0] * 255).round().int() == torch.tensor(colour)).all(-1)
    mask[: TOP - 5] = False  # the legend
    y, x = mask.nonzero().T
    return torch.stack([(x - LEFT) / (RIGHT - LEFT), (BOTTOM - y) / (BOTTOM - TOP)], dim=1)


def test_it_is_one_picture_as_comfyui_has_them():
    picture = plot_paths((0, 0.5, 1), (1, 3), (0, 2 / 3, 1))
    assert picture.shape == (1, SIZE[1], SIZE[0], 3)
    assert picture.dtype == torch.float32
    assert picture.min() >= 0 and picture.max() == 1


def test_the_measured_path_goes_through_its_points():
    picture = plot_paths((0, 0.5, 1), (1, 3), (0, 2 / 3, 1))
    assert has_colour(picture, place(0.5, 0.25), BEFORE)
    assert has_colour(picture, place(0.25, 0.125), BEFORE)
    assert not has_colour(picture, place(0.5, 0.5), BEFORE)


@pytest.mark.parametrize("distances", [(1, 3, 2, 6), (0.01, 0.01, 5, 0.2)])
@pytest.mark.parametrize("frames", [5, 9])
def test_rescheduled_frames_lie_on_the_diagonal(distances, frames):
    alphas = alpha_schedule(5)
    picture = plot_paths(alphas, distances, reschedule_alphas(alphas, distances, frames))
    points = coloured(picture, AFTER)
    assert (points[:, 0] - points[:, 1]).abs().max() < 0.02
    for i in range(frames):
        assert has_colour(picture, place(i / (frames - 1), i / (frames - 1)), AFTER)


def test_alphas_that_are_not_even_leave_the_diagonal():
    points = coloured(plot_paths(alpha_schedule(5), (1, 3, 2, 6), alpha_schedule(5)), AFTER)
    assert (points[:, 0] - points[:, 1]).abs().max() > 0.15


def test_both_paths_go_from_corner_to_corner():
    picture = plot_paths(alpha_schedule(5), (1, 3, 2, 6), (0, 0.3, 1))
    for points in (coloured(picture, AFTER), coloured(picture, BEFORE)):
        assert points.min() > -0.02 and points.max() < 1.02
    points = coloured(picture, AFTER)
    assert points[points[:, 0].argmin()].abs().max() < 0.02
    assert (points[points[:, 0].argmax()] - 1).abs().max() < 0.02


def test_a_path_of_no_length_is_a_flat_line():
    points = coloured(plot_paths(alpha_schedule(4), (0, 0, 0), alpha_schedule(4)), AFTER)
    assert len(points) > 100
    assert points[:, 1].abs().max() < 0.02
