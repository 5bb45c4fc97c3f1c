import itertools
import math

import numpy as np
import pytest
import torch

from morph_pack.morph_core.pictures.handle_tracks import LEAST_SIDE, as_image, colour_of, draw_paths

GREY = 0.5


def ground(height, width):
    return torch.full((height, width, 3), GREY)


def way(*places):
    """Tracks of one handle: (I, 1, 2)."""
    return torch.tensor(places, dtype=torch.float32)[:, None]


def target(*place):
    return torch.tensor([place], dtype=torch.float32)


def colour_at(picture, x, y):
    return picture.getpixel((round(x), round(y)))


def changed(picture):
    """(x, y) of every pixel that is not the ground's."""
    rows, columns = (np.asarray(picture) != round(255 * GREY)).any(-1).nonzero()
    return np.stack([columns, rows], axis=1)


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((64, 64), (512, 512)),
        ((64, 32), (512, 256)),
        ((48, 96), (256, 512)),
        ((512, 400), (512, 400)),
        ((1000, 700), (1000, 700)),
        ((1, 1), (512, 512)),
    ],
)
def test_small_pictures_are_enlarged_and_others_are_not(size, drawn):
    picture = draw_paths(ground(*size), way([0.5, 0.5]), target(0.9, 0.9))
    assert (picture.height, picture.width) == drawn
    assert max(picture.size) >= LEAST_SIDE == 512


@pytest.mark.parametrize(("size", "scale"), [((64, 64), 8), ((512, 512), 1), ((1024, 1024), 1)])
def test_handle_and_target_have_the_pairs_colour(size, scale):
    side = size[0]
    places = torch.tensor([[[0.2, 0.3], [0.7, 0.2]]]) * side
    targets = torch.tensor([[0.4, 0.8], [0.8, 0.7]]) * side
    picture = draw_paths(ground(*size), places, targets)
    for number in (0, 1):
        for x, y in (places[0, number].tolist(), targets[number].tolist()):
            assert colour_at(picture, scale * x, scale * y) == colour_of(number)


def test_the_way_is_drawn_from_place_to_place():
    picture = draw_paths(ground(512, 512), way([50, 50], [250, 50], [250, 300]), target(400, 400))
    for x, y in ((50, 50), (150, 50), (250, 50), (250, 200), (250, 300), (400, 400)):
        assert colour_at(picture, x, y) == colour_of(0)
    for x, y in ((150, 175), (325, 350)):  # a straight line from first to last place, and what is still to go
        assert colour_at(picture, x, y) == (128, 128, 128)


def test_the_handle_now_is_a_greater_disc_than_the_one_it_began_at():
    picture = draw_paths(ground(512, 512), way([100, 100], [300, 100]), target(450, 450))
    for below in (0, 2, 4):
        assert colour_at(picture, 300, 100 + below) == colour_of(0)
    assert colour_at(picture, 100, 102) == colour_of(0)
    assert colour_at(picture, 300, 105) != (128, 128, 128) == colour_at(picture, 100, 105)


def test_the_target_is_a_cross():
    picture = draw_paths(ground(512, 512), way([100, 100]), target(300, 300))
    for dx, dy in ((5, 5), (5, -5), (-5, 5), (-5, -5)):
        assert colour_at(picture, 300 + dx, 300 + dy) == colour_of(0)
    for dx, dy in ((7, 0), (-7, 0), (0, 7), (0, -7)):
        assert colour_at(picture, 300 + dx, 300 + dy) != colour_of(0)


def test_a_way_of_one_place_is_its_marks_and_nothing_else():
    picture = draw_paths(ground(512, 512), way([100, 200]), target(300, 400))
    places = changed(picture)
    at_handle, at_target = (np.abs(places - np.array(mark)).max(1) <= 12 for mark in ((100, 200), (300, 400)))
    assert (at_handle | at_target).all()
    assert at_handle.sum() > 50 and at_target.sum() > 50


def test_marks_have_a_white_rim():
    picture = draw_paths(ground(512, 512), way([100, 100], [300, 100]), target(450, 450))
    column = [colour_at(picture, 200, y) for y in range(90, 111)]
    inked = [i for i, colour in enumerate(column) if colour == colour_of(0)]
    assert column[inked[0] - 1] == column[inked[-1] + 1] == (255, 255, 255)


def test_marks_look_alike_on_pictures_of_any_size():
    small, large = (draw_paths(ground(n, n), way([n / 4, n / 4]), target(n / 2, n / 2)) for n in (512, 1024))
    counts = [len(changed(picture)) for picture in (small, large)]
    assert counts[1] / counts[0] == pytest.approx(4, rel=0.15)
    tiny = draw_paths(ground(32, 32), way([8, 8]), target(16, 16))
    assert (np.asarray(tiny) == np.asarray(small)).all()


def test_away_from_the_marks_the_picture_is_the_image():
    image = torch.rand(512, 600, 3, generator=torch.Generator().manual_seed(1))
    picture = draw_paths(image, way([50, 50], [80, 60]), target(100, 50))
    shown = torch.from_numpy(np.asarray(picture).copy())
    expected = (image * 255).round().byte()
    assert torch.equal(shown[100:], expected[100:]) and torch.equal(shown[:, 150:], expected[:, 150:])
    assert not torch.equal(shown, expected)


def test_values_out_of_range_are_black_and_white():
    image = torch.tensor([-3.0, 7.0])[:, None, None].expand(2, 2, 3).repeat_interleave(300, 0).repeat_interleave(300, 1)
    picture = draw_paths(image, way([300, 300]), target(320, 300))
    assert (colour_at(picture, 10, 10), colour_at(picture, 10, 590)) == ((0, 0, 0), (255, 255, 255))


def test_marks_over_the_edge_are_cut_off():
    picture = draw_paths(ground(512, 512), way([0, 0], [512, 512]), target(512, 0))
    assert picture.size == (512, 512)
    assert colour_at(picture, 0, 0) == colour_at(picture, 511, 511) == colour_at(picture, 511, 0) == colour_of(0)


def oklch(colour):
    """Lightness, chroma and hue (degrees) of 0..255 sRGB, after Ottosson (2020)."""
    encoded = np.array(colour) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_lms = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.68069955, 0.10739696],
        [0.08830246, 0.28171884, 0.6299787],
    ]
    to_lab = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.9779985, -2.4285922, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    lightness, a, b = np.array(to_lab) @ np.cbrt(np.array(to_lms) @ linear)
    return lightness, math.hypot(a, b), math.degrees(math.atan2(b, a)) % 360


def apart(hue, other):
    """The angle between two hues, in degrees."""
    return abs((hue - other + 180) % 360 - 180)


def test_the_first_eight_pairs_are_told_apart():
    hues = [oklch(colour_of(i))[2] for i in range(8)]
    assert min(apart(a, b) for a, b in itertools.combinations(hues, 2)) > 20
    assert min(apart(a, b) for a, b in itertools.pairwise(hues)) > 80  # neighbours above all


def test_colours_are_equally_light_and_of_the_pickers_hues():
    for number in range(30):
        lightness, chroma, hue = oklch(colour_of(number))
        assert lightness == pytest.approx(0.8, abs=0.04) and 0.1 < chroma < 0.17  # a screen shows no more of some hues
        assert apart(hue, 215 + 137.508 * number) < 13


def test_a_colour_that_screens_show_is_exactly_as_told():
    for number in (2, 6):
        *light_and_full, hue = oklch(colour_of(number))
        assert light_and_full == pytest.approx((0.8, 0.16), abs=0.003)
        assert apart(hue, 215 + 137.508 * number) < 1


def test_later_pairs_have_colours_too():
    assert len({colour_of(i) for i in range(50)}) == 50
    assert len(set(map(colour_of, range(999, 1010)))) == 11


def test_nothing_given_is_changed():
    image, tracks, targets = ground(64, 64), way([10, 10], [20, 20]), target(30, 30)
    before = [value.clone() for value in (image, tracks, targets)]
    draw_paths(image, tracks, targets)
    assert all(torch.equal(a, b) for a, b in zip((image, tracks, targets), before, strict=True))


def test_as_an_image_the_picture_keeps_its_pixels():
    picture = draw_paths(ground(64, 32), way([10, 10]), target(20, 20))
    image = as_image(picture)
    assert image.shape == (1, 512, 256, 3) and image.dtype == torch.float32
    assert torch.equal((image[0] * 255).round().byte(), torch.from_numpy(np.asarray(picture).copy()))
