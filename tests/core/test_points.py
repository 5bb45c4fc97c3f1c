import json
import re

import pytest
import torch

from morph_pack.morph_core.crop import CentreCrop, seen_by_vae
from morph_pack.morph_core.dragging.points import (
    LONGEST_TEXT,
    MOST_POINTS,
    DragPoints,
    from_grid,
    parse_points,
    points_in_crop,
    to_grid,
)
from morph_pack.morph_core.errors import InvalidInput

SIZE = (640, 480)
SIXTY_FOUR_CELLS = (64, 64)


def shares(*pairs):
    """Pairs ((x, y), (x, y)) in the form with shares of the image."""
    return json.dumps({"v": 1, "points": [{"handle": handle, "target": target} for handle, target in pairs]})


def pixels(*places):
    return json.dumps([{"x": x, "y": y} for x, y in places])


def pair(handle="[0.1, 0.2]", target="[0.3, 0.4]"):
    """One pair with anything, also what is no JSON, as its ends."""
    return f'{{"v": 1, "points": [{{"handle": {handle}, "target": {target}}}]}}'


def refusal(text, size=SIZE):
    with pytest.raises(InvalidInput) as refused:
        parse_points(text, size)
    return str(refused.value)


def places(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_shares_are_read_as_they_are():
    points = parse_points(shares(([0.25, 0.5], [0.75, 1]), ([0, 0.125], [1.0, 0.5])), SIZE)
    assert points.handles.tolist() == [[0.25, 0.5], [0, 0.125]]
    assert points.targets.tolist() == [[0.75, 1], [1, 0.5]]


def test_pixels_are_read_as_handle_and_target_by_turns():
    points = parse_points(pixels((160, 120), (320, 240), (0, 0), (640, 480)), SIZE)
    assert points.handles.tolist() == [[0.25, 0.25], [0, 0]]
    assert points.targets.tolist() == [[0.5, 0.5], [1, 1]]


def test_both_forms_of_the_same_points_are_the_same():
    in_shares = parse_points(shares(([0.3, 0.7], [0.9, 0.2])), SIZE)
    in_pixels = parse_points(pixels((0.3 * 640, 0.7 * 480), (0.9 * 640, 0.2 * 480)), SIZE)
    assert torch.equal(in_shares.handles, in_pixels.handles) and torch.equal(in_shares.targets, in_pixels.targets)


def test_shares_do_not_depend_on_the_size_of_the_image():
    text = shares(([0.3, 0.7], [0.9, 0.2]))
    assert torch.equal(parse_points(text, (1, 1)).handles, parse_points(text, (4096, 16)).handles)


def test_other_keys_and_white_space_do_not_matter():
    text = pair().replace('"v": 1', '"v": 1, "colour": "\\u20ac", "image": null')
    assert parse_points(f"\n\t {text} \r\n", SIZE).handles.tolist() == parse_points(pair(), SIZE).handles.tolist()


def test_as_many_pairs_as_are_allowed_are_read():
    text = shares(*[([0.0, i / MOST_POINTS], [1.0, 0.5]) for i in range(MOST_POINTS)])
    points = parse_points(text, SIZE)
    torch.testing.assert_close(points.handles[:, 1], torch.arange(MOST_POINTS) / MOST_POINTS)
    more = shares(*[([0.0, 0.0], [1.0, 0.5])] * (MOST_POINTS + 1))
    assert f"{MOST_POINTS + 1} pairs" in refusal(more) and str(MOST_POINTS) in refusal(more)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", '{"v": 1, "points": []}', "[]"])
def test_no_points_are_told_from_wrong_ones(text):
    assert "points is empty" in refusal(text)


NOT_JSON = {
    "a word": "nose",
    "half a text": pair()[:-3],
    "two texts": pair() + pair(),
    "a list that does not end": "[" * 100_000,
    "100k nested lists": "[" * 100_000 + "]" * 100_000,
    "100k nested objects": '{"points": ' * 80_000 + "1" + "}" * 80_000,
    "nested where a number belongs": pair("[" * 100_000 + "]" * 100_000),
    "a number of very many digits": pair("[" + "1" * 100_000 + ", 0]"),
    "a byte order mark": "\ufeff" + pair(),
    "a zero byte": pair() + "\0",
    "half a surrogate pair": "\ud800",
    "python": "[{'x': 1, 'y': 2}, {'x': 3, 'y': 4}]",
}


@pytest.mark.parametrize("text", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_no_json_is_refused_and_the_way_out_told(text):
    message = refusal(text)
    assert message.startswith("points is not JSON") and "pick the points anew" in message
    assert len(message) < 300


def test_a_text_of_a_million_characters_is_not_even_read():
    assert f"{LONGEST_TEXT + 1} characters" in refusal("[" * (LONGEST_TEXT + 1))
    padded = pair() + " " * (LONGEST_TEXT - len(pair()))
    assert len(parse_points(padded, SIZE).handles) == 1


@pytest.mark.parametrize("text", ["3", "null", "true", '"points"', "{}", '{"v": 1}', '{"points": {}}', '{"points": 5}'])
def test_another_kind_of_json_is_refused_and_the_form_shown(text):
    message = refusal(text)
    assert message.startswith("points must be JSON like")
    example = message.split("like ")[1]
    assert len(parse_points(example, SIZE).handles) == 1


@pytest.mark.parametrize("text", [None, 3, ["[]"], b"[]"])
def test_what_is_no_text_is_refused(text):
    assert type(text).__name__ in refusal(text) and "points must be text" in refusal(text)


@pytest.mark.parametrize("version", ["3", "0", '"1"', "null", "[1]", "1.5"])
def test_other_versions_are_refused(version):
    text = pair().replace('"v": 1', f'"v": {version}')
    assert "points has version" in refusal(text) and "versions 1 and 2" in refusal(text)


def test_a_text_without_a_version_is_of_the_first():
    assert len(parse_points(pair().replace('"v": 1, ', ""), SIZE).handles) == 1


BAD_PLACES = [
    "[NaN, 0.5]",
    "[0.5, NaN]",
    "[Infinity, 0.5]",
    "[-Infinity, 0.5]",
    "[1e999, 0.5]",
    "[0.5, -1e999]",
    f"[{'9' * 400}, 0.5]",
    '["0.5", 0.5]',
    "[true, 0.5]",
    "[0.5, false]",
    "[null, 0.5]",
    "[0.5]",
    "[0.5, 0.5, 0.5]",
    "[]",
    "[[0.5, 0.5]]",
    "0.5",
    '"0.5, 0.5"',
    '{"x": 0.5, "y": 0.5}',
    '"' + "x" * 100_000 + '"',
    '"\\ud83d\\ude00 \\ud800"',
    "[" * 300 + "]" * 300,
]


@pytest.mark.parametrize("end", ["handle", "target"])
@pytest.mark.parametrize("place", BAD_PLACES, ids=lambda place: place[:20])
def test_a_place_that_is_not_two_numbers_is_refused_by_name(place, end):
    message = refusal(pair(**{end: place}))
    assert message.startswith(f"points: the {end} of pair 1 must be two numbers [x, y], got ")
    assert len(message) < 150


def test_the_pair_that_is_wrong_is_numbered():
    text = shares(([0, 0], [1, 1]), ([0, 0], [1, 1]), ([0, 0], [1, "1"]))
    assert "the target of pair 3 " in refusal(text)


@pytest.mark.parametrize("wrong", ["null", "[0.1, 0.2]", '"nose"', "5"])
def test_a_pair_that_is_none_is_refused(wrong):
    assert "points: pair 1 must have a handle and a target" in refusal(f'{{"v": 1, "points": [{wrong}]}}')


def test_a_missing_end_is_refused():
    no_target = '{"v": 1, "points": [{"handle": [0.1, 0.2]}]}'
    for text in (no_target, pair(target="null")):
        assert "points: the handle of pair 1 has no target" in refusal(text)
    assert "points: the handle of pair 1" in refusal('{"v": 1, "points": [{"target": [0.1, 0.2]}]}')


@pytest.mark.parametrize(
    "point", ['{"x": 1}', '{"y": 1}', '{"x": "1", "y": 2}', '{"x": NaN, "y": 2}', '{"x": true, "y": 2}', "[1, 2]", "1"]
)
def test_a_pixel_without_two_numbers_is_refused_by_number(point):
    assert refusal(f'[{{"x": 1, "y": 2}}, {point}]').startswith("points: point 2 must have numbers x and y, got ")


@pytest.mark.parametrize("count", [1, 3, 7])
def test_an_odd_number_of_pixels_is_refused(count):
    message = refusal(pixels(*[(10 * i, 5) for i in range(count)]))
    assert f"points has {count} points, an odd number" in message


OUTSIDE = [[-1e-5, 0.5], [1.00001, 0.5], [0.5, -1e-5], [0.5, 1.00001], [7, 0.5], [0.5, -1e300], [999_999_999, 0]]


@pytest.mark.parametrize("place", OUTSIDE, ids=str)
def test_a_place_outside_the_image_is_refused_even_a_little(place):
    good = [0.5, 0.4]
    for ends, name in (((place, good), "handle"), ((good, place), "target")):
        message = refusal(shares((good, [0, 0]), ends))
        assert f"points: the {name} of pair 2 is outside the image, at (" in message


def test_a_pixel_outside_the_image_is_refused():
    assert "points: the target of pair 1 is outside" in refusal(pixels((10, 10), (640.01, 10)))
    assert "points: the handle of pair 1 is outside" in refusal(pixels((10, 480.01), (10, 10)))


def test_a_handle_that_is_its_own_target_is_refused():
    message = refusal(shares(([0.1, 0.1], [0.2, 0.2]), ([0.3, 0.4], [0.3, 0.4])))
    assert "points: handle and target of pair 2 are the same place" in message
    assert len(parse_points(shares(([0.3, 0.4], [0.3, 0.401])), SIZE).handles) == 1


@pytest.mark.parametrize(
    ("handles", "targets"),
    [((2,), (2,)), ((3, 2), (2, 2)), ((2, 3), (2, 3)), ((1, 2, 2), (1, 2, 2)), ((2, 2), (2, 3))],
)
def test_other_shapes_are_refused_and_shown(handles, targets):
    with pytest.raises(InvalidInput, match="points must be") as refused:
        DragPoints(torch.zeros(handles), torch.ones(targets))
    assert str(tuple(handles)) in str(refused.value) and str(tuple(targets)) in str(refused.value)


def test_tensors_are_checked_as_texts_are():
    inside = torch.tensor([[0.5, 0.5]])
    with pytest.raises(InvalidInput, match="points is empty"):
        DragPoints(torch.zeros(0, 2), torch.zeros(0, 2))
    with pytest.raises(InvalidInput, match="points: the handle of pair 1 is outside"):
        DragPoints(torch.tensor([[0.5, float("nan")]]), inside)
    with pytest.raises(InvalidInput, match="points: handle and target of pair 1"):
        DragPoints(inside, inside.clone())


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (256, 128)])
def test_a_cells_middle_is_at_the_cells_index(size):
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    middles = torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=-1).double()
    on_grid = to_grid(middles, size)
    torch.testing.assert_close(on_grid, torch.stack([columns, rows], dim=-1).double())


def test_a_grids_places_are_those_of_a_finer_grid():
    # the cell's index on a map half as fine lies between those of the two pixels it covers
    pixel = to_grid(places([10.5 / 64, 21.5 / 48]), (48, 64))
    assert pixel.tolist() == [[10, 21]]
    assert to_grid(places([11 / 64, 22 / 48]), (24, 32)).tolist() == [[5, 10.5]]


@pytest.mark.parametrize("size", [(2, 2), (7, 13), (256, 128)])
def test_from_grid_is_the_inverse(size):
    height, width = size
    generator = torch.Generator().manual_seed(1)
    on_grid = torch.rand(5, 20, 2, generator=generator).double() * torch.tensor([width - 1, height - 1])
    torch.testing.assert_close(to_grid(from_grid(on_grid, size), size), on_grid)
    inside = from_grid(on_grid, size)
    torch.testing.assert_close(from_grid(to_grid(inside, size), size), inside)


def test_the_border_is_clamped_to_its_cells_middles():
    corners = places([0, 0], [1, 0], [0, 1], [1, 1])
    assert to_grid(corners, (4, 8)).tolist() == [[0, 0], [7, 0], [0, 3], [7, 3]]
    assert to_grid(corners, (1, 1)).tolist() == [[0, 0]] * 4


@pytest.mark.parametrize("image", [(519, 515), (512, 512), (512, 519), (518, 513)])
def test_a_crop_is_of_the_middle(image):
    seen = seen_by_vae(image, SIXTY_FOUR_CELLS)
    left, top = ((side - 512) // 2 for side in image)
    assert (seen.image, seen.crop) == (image, (512, 512))
    corners = seen.pixels(places([0, 0], [1, 1], [0.5, 0.25]))
    assert corners.tolist() == [[left, top], [left + 512, top + 512], [left + 256, top + 128]]


def test_a_place_keeps_its_pixel_in_the_crop():
    seen = CentreCrop((519, 515), (512, 512))
    points = parse_points(pixels((3, 1), (515, 513), (259, 257), (100, 200)), seen.image)
    cropped = points_in_crop(points, seen)
    torch.testing.assert_close(cropped.handles, torch.tensor([[0.0, 0.0], [0.5, 0.5]]))
    torch.testing.assert_close(seen.pixels(cropped.targets), torch.tensor([[515.0, 513.0], [100.0, 200.0]]))


def test_a_crop_sees_what_the_cut_out_image_shows():
    image = torch.rand(515, 519, generator=torch.Generator().manual_seed(1))
    cut = image[1:513, 3:515]
    inside = points_in_crop(
        parse_points(pixels((40.5, 7.5), (9.5, 99.5)), (519, 515)), CentreCrop((519, 515), (512, 512))
    )
    for place, (x, y) in ((inside.handles, (40, 7)), (inside.targets, (9, 99))):
        column, row = to_grid(place, (512, 512))[0].round().int().tolist()
        assert cut[row, column] == image[y, x]


def test_points_on_the_part_that_is_cut_off_are_refused():
    seen = seen_by_vae((519, 515), SIXTY_FOUR_CELLS)
    for place in ((2, 100), (516, 100), (100, 0), (100, 514)):
        with pytest.raises(InvalidInput, match="points: pair 1 reaches into the border"):
            points_in_crop(parse_points(pixels(place, (50, 50)), seen.image), seen)


@pytest.mark.parametrize(("image", "latent"), [((768, 512), (96, 64)), ((64, 64), (16, 16)), ((67, 66), (16, 16))])
def test_an_image_and_its_latent_go_together(image, latent):
    cell = 8 if max(image) > 100 else 4
    assert seen_by_vae(image, latent).crop == (cell * latent[0], cell * latent[1])


@pytest.mark.parametrize(
    ("image", "latent"),
    [
        ((512, 768), (96, 64)),  # turned
        ((512, 512), (64, 32)),  # another shape
        ((1024, 512), (64, 64)),
        ((527, 527), (62, 62)),  # more than a cell would be cut off
        ((32, 32), (64, 64)),  # larger than the image
    ],
)
def test_an_image_of_another_latent_is_refused_and_both_are_shown(image, latent):
    told = rf"image is {image[0]}x{image[1]} pixels but latent is {latent[0]}x{latent[1]} cells"
    with pytest.raises(InvalidInput, match=re.escape(told)):
        seen_by_vae(image, latent)
