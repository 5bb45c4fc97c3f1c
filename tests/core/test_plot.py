"""The plot shows what was measured: every frame of every pass is where its own distances put it."""

import numpy as np
import pytest
import torch

from morph_pack.morph_core.morphing.alphas import alpha_schedule, reschedule_alphas
from morph_pack.morph_core.morphing.report import Report
from morph_pack.morph_core.pictures.perceptual_curve import (
    BOTTOM,
    COLOURS,
    JUMP,
    LEFT,
    LINE_HEIGHT,
    RIGHT,
    SIZE,
    TOP,
    plot_passes,
)


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


def shares(distances):
    """Where each frame is on its own way, 0..1."""
    return (np.concatenate([[0], np.cumsum(distances)]) / sum(distances)).tolist()


def assert_drawn(picture, distances, colour):
    for i, way in enumerate(shares(distances)):
        assert has_colour(picture, place(i / len(distances), way), colour), i


def test_it_is_one_picture_as_comfyui_has_them():
    picture = plot_passes({"images": Report((1, 3))})
    assert picture.shape == (1, SIZE[1], SIZE[0], 3)
    assert picture.dtype == torch.float32
    assert picture.min() >= 0 and picture.max() == 1


def test_the_measured_path_goes_through_its_points():
    picture = plot_passes({"images": Report((1, 3))})
    assert has_colour(picture, place(0.5, 0.25), COLOURS[0])
    assert has_colour(picture, place(0.25, 0.125), COLOURS[0])
    assert not has_colour(picture, place(0.5, 0.5), COLOURS[0])


def test_a_second_pass_that_came_out_uneven_is_not_drawn_straight():
    """What the first pass's distances predict of new alphas is even; what the second measures is what is drawn."""
    alphas, first = alpha_schedule(5), (1.0, 3.0, 2.0, 6.0)
    even = reschedule_alphas(alphas, first, 5)
    second = (0.5, 0.5, 7.0, 1.0)  # as over a change at once, that no spacing parts
    picture = plot_passes({"second pass": Report(second, even), "first pass": Report(first, alphas)})
    assert_drawn(picture, second, COLOURS[0])
    points = coloured(picture, COLOURS[0])
    furthest = max(abs(i / 4 - way) for i, way in enumerate(shares(second)))
    assert (points[:, 0] - points[:, 1]).abs().max() == pytest.approx(furthest, abs=0.02)
    assert furthest > 0.35


@pytest.mark.parametrize("number", range(len(COLOURS)))
def test_each_pass_is_drawn_by_its_own_distances_alone(number):
    passes = [(1, 1, 1, 1), (1, 2, 3), (5, 1, 1, 1, 1), (1, 9)]
    alone = plot_passes({str(i): Report(passes[number] if i == number else (1,)) for i in range(len(passes))})
    ways = np.interp(
        coloured(alone, COLOURS[number])[:, 0], np.linspace(0, 1, len(passes[number]) + 1), shares(passes[number])
    )
    assert np.abs(ways - coloured(alone, COLOURS[number])[:, 1].numpy()).max() < 0.05


def test_an_even_pass_is_straight():
    points = coloured(plot_passes({"images": Report((2.0,) * 8)}), COLOURS[0])
    assert (points[:, 0] - points[:, 1]).abs().max() < 0.02


def test_a_path_goes_from_corner_to_corner():
    points = coloured(plot_passes({"images": Report((1, 3, 2, 6))}), COLOURS[0])
    assert points.min() > -0.02 and points.max() < 1.02
    assert points[points[:, 0].argmin()].abs().max() < 0.02
    assert (points[points[:, 0].argmax()] - 1).abs().max() < 0.02


def test_a_path_of_no_length_is_a_flat_line():
    points = coloured(plot_passes({"images": Report((0, 0, 0), alpha_schedule(4))}), COLOURS[0])
    assert len(points) > 100
    assert points[:, 1].abs().max() < 0.02


def test_a_jump_is_marked_where_it_is_and_nothing_else():
    distances, alphas = (1.0, 1.0, 6.0, 1.0, 1.0), (0.0, 0.2, 0.4, 0.401, 0.8, 1.0)
    picture = plot_passes({"images": Report(distances, alphas)})
    assert has_colour(picture, place(0.5, 0.5), JUMP)
    line = coloured(picture, JUMP)[:, 0]
    assert line.min() > 0.37  # its share is written to the right of it
    assert_drawn(picture, distances, COLOURS[0])
    assert not len(coloured(plot_passes({"images": Report(distances)}), JUMP))


def test_a_jump_at_either_end_stays_within_the_picture():
    for alphas in ((0.0, 0.001, 0.5, 1.0), (0.0, 0.5, 0.999, 1.0)):
        distances = (8.0, 1.0, 1.0) if alphas[1] < 0.5 else (1.0, 1.0, 8.0)
        marked = coloured(plot_passes({"images": Report(distances, alphas)}), JUMP)
        assert marked[:, 0].min() >= -0.01 and marked[:, 0].max() < 1.02


def test_text_stands_below_and_leaves_the_chart_as_it_is():
    plain = plot_passes({"images": Report((1, 3))})
    with_text = plot_passes({"images": Report((1, 3))}, "one line\nanother, " + "long " * 30)
    assert torch.equal(with_text[:, : SIZE[1]], plain)
    assert with_text.shape[1] - SIZE[1] >= 3 * LINE_HEIGHT
    assert (with_text[:, SIZE[1] :] < 0.5).any() and (with_text[:, :, -4:] == 1).all()
