import pytest
import torch
from torch.nn.functional import grid_sample

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.toy.drawing import (
    BACKGROUNDS,
    COLOUR_JITTER,
    DARK,
    FACTORS,
    FUR_COLOURS,
    KINDS,
    MOODS,
    RANGES,
    WHITE,
    Drawings,
    describe,
    draw,
    landmarks,
    one_drawing,
    sample_drawings,
)

MIDDLE = {
    "x": 0.5,
    "y": 0.6,
    "size": 0.26,
    "tilt": 0.0,
    "ear_size": 1.0,
    "eye_spacing": 0.42,
    "eye_size": 0.2,
    "gaze_x": 0.0,
    "gaze_y": 0.0,
    "brow": 0.3,
    "mouth_curve": 0.0,
    "mouth_open": 0.0,
    "fur_r": 0.84,
    "fur_g": 0.2,
    "fur_b": 0.18,
    "back_r": 0.72,
    "back_g": 0.93,
    "back_b": 0.82,
}
POSES = [(0.5, 0.6, 0.26, 0.0), (0.44, 0.55, 0.23, 0.25), (0.57, 0.64, 0.29, -0.25), (0.5, 0.6, 0.26, 3.0)]


def face(kind="cat", dtype=torch.float32, **changes):
    values = {**MIDDLE, **changes}
    return Drawings(torch.tensor([KINDS.index(kind)]), torch.tensor([[values[name] for name in FACTORS]], dtype=dtype))


def posed(pose, kind="cat", **changes):
    return face(kind, **dict(zip(("x", "y", "size", "tilt"), pose, strict=True)), **changes)


def colour_at(picture, point):
    """The picture's colour at an (x, y) in shares of its side."""
    grid = (2 * point - 1).reshape(1, 1, 1, 2)
    return grid_sample(picture, grid, mode="bilinear", align_corners=False)[0, :, 0, 0]


def centre_of(mask):
    """Centre of a mask (H, W), as (x, y) shares of its side."""
    rows, columns = mask.nonzero(as_tuple=True)
    return (torch.stack([columns.float().mean(), rows.float().mean()]) + 0.5) / mask.shape[0]


def near(size, point, radius):
    steps = (torch.arange(size) + 0.5) / size
    return ((steps - point[0]) ** 2 + (steps[:, None] - point[1]) ** 2).sqrt() < radius


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("name", ["nose", "left eye", "right eye"])
def test_noses_and_pupils_are_drawn_where_their_landmarks_are(pose, name):
    drawing = posed(pose)
    picture = drawing.render(256)
    point = landmarks(drawing.kinds, drawing.factors)[name][0]
    dark = (picture[0] - torch.tensor(DARK)[:, None, None]).abs().amax(0) < 0.02
    dark &= near(256, point, 0.16 * pose[2])
    assert dark.sum() > 50
    assert (centre_of(dark) - point).abs().max() < 0.5 / 256


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mood", [{}, {"mouth_open": 1.0, "brow": 1.0}, {"mouth_curve": 1.0}])
def test_landmarks_move_with_the_face(kind, mood):
    """What is under a landmark is the same in every pose."""
    points = landmarks(face().kinds, face().factors).keys()
    colours = []
    for pose in POSES:
        drawing = posed(pose, kind, back_r=0.0, back_g=0.0, back_b=1.0, **mood)
        picture = drawing.render(384)
        places = landmarks(drawing.kinds, drawing.factors)
        shown = [name for name in points if "brow" not in name and ((places[name] > 0) & (places[name] < 1)).all()]
        assert len(shown) >= 6  # a rabbit upside down has its ears' tips outside the picture
        colours.append({name: colour_at(picture, places[name][0]) for name in shown})
    for other in colours[1:]:
        for name, colour in other.items():
            torch.testing.assert_close(colour, colours[0][name], rtol=0, atol=0.06)


@pytest.mark.parametrize(
    ("kind", "ear_size"),
    [(kind, size) for kind in KINDS for size in RANGES["ear_size"]],
)
def test_the_ears_landmarks_are_on_the_ears_and_outside_the_head(kind, ear_size):
    drawing = face(kind, ear_size=ear_size, back_r=0.0, back_g=0.0, back_b=1.0)
    picture = drawing.render(256)
    for name in ("left ear", "right ear", "left ear tip", "right ear tip"):
        point = landmarks(drawing.kinds, drawing.factors)[name][0]
        assert (colour_at(picture, point) - torch.tensor([0.0, 0.0, 1.0])).abs().max() > 0.3  # not the background
        from_centre = (point - torch.tensor([0.5, 0.6])) / 0.26
        assert (from_centre[0] ** 2 + (from_centre[1] / 0.92) ** 2) > 1  # outside the head's ellipse


@pytest.mark.parametrize(("mouth_open", "colour"), [(0.0, DARK), (1.0, (0.45, 0.10, 0.13))])
def test_the_mouths_landmark_is_on_a_straight_or_open_mouth(mouth_open, colour):
    drawing = face(mouth_open=mouth_open)
    point = landmarks(drawing.kinds, drawing.factors)["mouth"][0]
    torch.testing.assert_close(colour_at(drawing.render(256), point), torch.tensor(colour), rtol=0, atol=0.02)


@pytest.mark.parametrize("mouth_curve", [0.8, -0.8])
def test_the_mouths_landmark_is_on_a_curved_mouth(mouth_curve):
    drawing = face(mouth_curve=mouth_curve)
    point = landmarks(drawing.kinds, drawing.factors)["mouth"][0]
    torch.testing.assert_close(colour_at(drawing.render(256), point), torch.tensor(DARK), rtol=0, atol=0.02)


@pytest.mark.parametrize("brow", [0.0, 0.5, 1.0])
def test_the_brows_landmarks_are_on_the_strokes(brow):
    drawing = face(brow=brow)
    picture = drawing.render(512)
    for name in ("left brow", "right brow"):
        point = landmarks(drawing.kinds, drawing.factors)[name][0]
        inside = point - torch.tensor([0.0, 0.02 * 0.26])
        torch.testing.assert_close(colour_at(picture, inside), torch.tensor(DARK), rtol=0, atol=0.02)


def test_left_is_left_and_up_is_up():
    points = {name: place[0].tolist() for name, place in landmarks(face().kinds, face().factors).items()}
    for part in ("eye", "brow", "ear"):
        (left_x, left_y), (right_x, right_y) = points[f"left {part}"], points[f"right {part}"]
        assert left_x < 0.5 < right_x
        assert (left_x + right_x) / 2 == pytest.approx(0.5) and left_y == pytest.approx(right_y)
    heights = [points[name][1] for name in ("left ear", "left brow", "left eye", "nose", "mouth")]
    assert heights == sorted(heights)


@pytest.mark.parametrize("kind", KINDS)
def test_an_upright_face_that_looks_ahead_is_symmetric(kind):
    picture = face(kind).render(64)
    torch.testing.assert_close(picture, picture.flip(-1), rtol=0, atol=1e-4)


def test_a_moved_face_is_the_picture_moved():
    dark = {"back_r": 0.0, "back_g": 0.0, "back_b": 0.0}  # no shading that depends on the place
    still, moved = face(**dark).render(64), face(x=0.5 + 3 / 64, y=0.6 - 2 / 64, **dark).render(64)
    torch.testing.assert_close(moved, still.roll((-2, 3), dims=(-2, -1)), rtol=0, atol=1e-3)


def test_a_face_of_twice_the_resolution_averages_to_the_same_picture():
    small, large = face().render(64), face().render(128)
    averaged = torch.nn.functional.avg_pool2d(large, 2)
    assert (small - averaged).abs().mean() < 0.01


@pytest.mark.parametrize("times", [2, 8, pytest.param(16, marks=pytest.mark.slow)])
def test_a_larger_drawing_is_the_small_one_with_sharper_edges(times):
    """Averaged it is the small drawing, but for edge pixels: their ink is told by the distance to the edge, not by the
    covered area, and the two differ where edges meet. The worst of these drawings differs by 0.0013 in the mean.
    """
    drawings = sample_drawings(8, torch.Generator().manual_seed(6))
    small, large = drawings.render(64), drawings.render(64 * times)
    averaged = torch.nn.functional.avg_pool2d(large, times)
    assert (small - averaged).abs().mean(dim=(1, 2, 3)).max() < 0.002
    for picture, enlarged in zip(small, large, strict=True):  # an edge is as steep as it was, from pixel to pixel
        assert enlarged.diff(dim=-1).abs().max() > 0.95 * picture.diff(dim=-1).abs().max()


def test_gaze_moves_the_pupils_only():
    ahead, aside = face().render(128), face(gaze_x=1.0).render(128)
    changed = (ahead - aside).abs().amax(1)[0] > 1e-4
    eyes = torch.stack(
        [near(128, landmarks(face().kinds, face().factors)[f"{side} eye"][0], 0.2 * 0.26) for side in ("left", "right")]
    )
    assert changed.sum() > 20
    assert not (changed & ~eyes.any(0)).any()


def test_colours_are_where_they_belong():
    picture = face(eye_size=0.24, gaze_x=-1.0).render(256)
    forehead, corner = torch.tensor([0.5, 0.6 - 0.7 * 0.26]), torch.tensor([0.5 / 256, 0.5 / 256])
    torch.testing.assert_close(colour_at(picture, forehead), torch.tensor([0.84, 0.2, 0.18]), rtol=0, atol=1e-3)
    torch.testing.assert_close(colour_at(picture, corner), torch.tensor([0.72, 0.93, 0.82]), rtol=0, atol=1e-3)
    white = landmarks(face().kinds, face().factors)["right eye"][0] + torch.tensor([0.7 * 0.24 * 0.26, 0.0])
    torch.testing.assert_close(colour_at(picture, white), torch.tensor(WHITE), rtol=0, atol=1e-3)


def test_kinds_differ_in_their_ears_only():
    pictures = [face(kind).render(128) for kind in KINDS]
    steps = (torch.arange(128) + 0.5) / 128
    u, v = (steps - 0.5) / 0.26, (steps[:, None] - 0.6) / 0.26
    head = u**2 + (v / 0.92) ** 2 < 0.9
    for i, picture in enumerate(pictures):
        for other in pictures[:i]:
            difference = (picture - other).abs().amax(1)[0]
            assert difference[head].max() < 1e-6
            assert (difference > 0.1).sum() > 50


def test_pictures_lie_in_0_to_1_and_do_not_depend_on_their_batch():
    drawings = sample_drawings(12, torch.Generator().manual_seed(1))
    pictures = drawings.render(48)
    assert pictures.shape == (12, 3, 48, 48)
    assert pictures.min() >= 0 and pictures.max() <= 1
    for i in (0, 5, 11):
        alone = draw(drawings.kinds[i : i + 1], drawings.factors[i : i + 1], 48)
        torch.testing.assert_close(pictures[i : i + 1], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_small_differences(kind):
    """Of a picture's likeness to another, with soft edges, in double precision."""
    other = face(kind, torch.float64, x=0.47, y=0.57, tilt=0.1, mouth_curve=0.5, gaze_x=0.5, brow=0.8).render(32)
    drawing = face(kind, torch.float64, x=0.513, tilt=0.07, mouth_curve=0.31, mouth_open=0.05, gaze_y=0.21)

    def loss(factors):
        return (draw(drawing.kinds, factors, 32, softness=4.0) - other).square().sum()

    factors = drawing.factors.clone().requires_grad_()
    loss(factors).backward()
    step = 1e-5
    for i, name in enumerate(FACTORS):
        around = [drawing.factors + sign * step * torch.eye(len(FACTORS))[i] for sign in (1, -1)]
        slope = ((loss(around[0]) - loss(around[1])) / (2 * step)).item()
        assert factors.grad[0, i].item() == pytest.approx(slope, rel=1e-2, abs=1e-2), name


def test_gradients_of_all_genuine_drawings_are_finite():
    drawings = sample_drawings(16, torch.Generator().manual_seed(2))
    factors = drawings.factors.clone().requires_grad_()
    draw(drawings.kinds, factors, 32).square().sum().backward()
    assert torch.isfinite(factors.grad).all()
    assert (factors.grad.abs().amax(0) > 0).all()  # every factor shows


def test_gradient_descent_finds_the_place_of_a_face():
    target = face(x=0.47, y=0.57).render(32)
    factors = face().factors.clone().requires_grad_()
    place = slice(FACTORS.index("x"), FACTORS.index("y") + 1)
    optimiser = torch.optim.Adam([factors], lr=0.005)
    for _ in range(50):
        optimiser.zero_grad()
        (draw(torch.tensor([0]), factors, 32, softness=3.0) - target).square().sum().backward()
        factors.grad[:, : place.start] = 0
        factors.grad[:, place.stop :] = 0
        optimiser.step()
    torch.testing.assert_close(factors[0, place], torch.tensor([0.47, 0.57]), rtol=0, atol=5e-3)


def test_captions_say_what_is_drawn():
    drawings = sample_drawings(200, torch.Generator().manual_seed(3))
    assert len(drawings.captions) == len(drawings.kinds) == len(drawings.factors) == 200
    for kind, row, caption in zip(drawings.kinds.tolist(), drawings.factors.tolist(), drawings.captions, strict=True):
        _, mood, colour, animal, _, background = caption.split()
        assert caption == describe(mood, colour, animal, background)
        assert KINDS[kind] == animal
        values = dict(zip(FACTORS, row, strict=True))
        palette = (*FUR_COLOURS[colour], *BACKGROUNDS[background])
        for value, wanted in zip(row[-6:], palette, strict=True):
            assert abs(value - wanted) <= COLOUR_JITTER + 1e-6
        for name, (low, high) in zip(("mouth_curve", "mouth_open", "brow"), MOODS[mood], strict=True):
            assert low - 1e-6 <= values[name] <= high + 1e-6


def test_factors_fill_their_ranges():
    factors = sample_drawings(500, torch.Generator().manual_seed(4)).factors
    for name, (low, high) in RANGES.items():
        column = factors[:, FACTORS.index(name)]
        assert column.min() >= low - 1e-6 and column.max() <= high + 1e-6
        assert column.max() - column.min() > 0.9 * (high - low)


def test_every_kind_mood_colour_and_background_is_drawn_about_equally_often():
    captions = [caption.split() for caption in sample_drawings(2000, torch.Generator().manual_seed(5)).captions]
    for place, options in ((1, MOODS), (2, FUR_COLOURS), (3, KINDS), (5, BACKGROUNDS)):
        for option in options:
            count = sum(words[place] == option for words in captions)
            assert count == pytest.approx(2000 / len(options), rel=0.25)


def test_the_palettes_do_not_overlap():
    for palette in (FUR_COLOURS, BACKGROUNDS):
        colours = torch.tensor(list(palette.values()))
        distances = (colours[:, None] - colours).abs().amax(-1) + 9 * torch.eye(len(colours))
        assert distances.min() > 2 * COLOUR_JITTER


def test_the_same_seed_gives_the_same_drawings_and_another_seed_others():
    def drawn(seed):
        return sample_drawings(8, torch.Generator().manual_seed(seed))

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(first.kinds, again.kinds) and torch.equal(first.factors, again.factors)
    assert first.captions == again.captions
    assert not (first.factors == other.factors).all(1).any()


def test_the_global_generator_has_no_part_in_it():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    sample_drawings(8, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_one_drawing_looks_as_told():
    drawing = one_drawing("rabbit", "green", "sad", "sand", torch.Generator().manual_seed(1))
    assert drawing.captions == ("a sad green rabbit on sand",)
    assert drawing.kinds.tolist() == [KINDS.index("rabbit")]
    values = dict(zip(FACTORS, drawing.factors[0].tolist(), strict=True))
    assert -1 <= values["mouth_curve"] <= -0.6
    assert [values[name] for name in ("fur_r", "fur_g", "fur_b")] == pytest.approx(FUR_COLOURS["green"], abs=0.031)
    assert [values[name] for name in ("back_r", "back_g", "back_b")] == pytest.approx(BACKGROUNDS["sand"], abs=0.031)


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (("dog", "green", "sad", "sand"), "animal must be one of cat, bear, rabbit, mouse; got 'dog'"),
        (("cat", "pink", "sad", "sand"), "colour must be one of .*; got 'pink'"),
        (("cat", "green", "angry", "sand"), "mood must be one of .*; got 'angry'"),
        (("cat", "green", "sad", "snow"), "background must be one of .*; got 'snow'"),
    ],
)
def test_a_look_that_there_is_not_is_refused(look, words):
    with pytest.raises(InvalidInput, match=words):
        one_drawing(*look, torch.Generator())


def test_a_smile_turns_the_mouths_corners_up():
    """The middle of a happy mouth is lower than its ends, that of a sad one higher."""

    def mouth_row(u, **changes):
        picture = face(**changes).render(512)[0].mean(0)
        column = round((0.5 + u * 0.26) * 512)
        rows = slice(round((0.6 + 0.36 * 0.26) * 512), round((0.6 + 0.68 * 0.26) * 512))  # below the nose
        return picture[rows, column].argmin().item()

    assert mouth_row(0.0, mouth_curve=0.8) > mouth_row(0.22, mouth_curve=0.8) + 5
    assert mouth_row(0.0, mouth_curve=-0.8) < mouth_row(0.22, mouth_curve=-0.8) - 5
