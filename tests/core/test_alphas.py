import math
import random

import pytest

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.alphas import EASINGS, alpha_schedule, check_alphas, reschedule_alphas


@pytest.mark.parametrize("easing", EASINGS)
@pytest.mark.parametrize("frames", [2, 3, 16, 50])
def test_every_easing_rises_from_exactly_0_to_exactly_1(easing, frames):
    alphas = alpha_schedule(frames, easing)
    assert len(alphas) == frames
    assert alphas[0] == 0 and alphas[-1] == 1
    assert all(before < after for before, after in zip(alphas, alphas[1:], strict=False))


@pytest.mark.parametrize(
    ("easing", "expected"),
    [
        ("linear", (0, 0.25, 0.5, 0.75, 1)),
        ("ease in", (0, 1 / 16, 1 / 4, 9 / 16, 1)),
        ("ease out", (0, 7 / 16, 3 / 4, 15 / 16, 1)),
        ("ease in and out", (0, 0.5 - math.sqrt(0.125), 0.5, 0.5 + math.sqrt(0.125), 1)),
    ],
)
def test_five_frames_by_hand(easing, expected):
    assert alpha_schedule(5, easing) == pytest.approx(expected, abs=1e-12)


def test_linear_is_the_default():
    assert alpha_schedule(9) == alpha_schedule(9, "linear")


@pytest.mark.parametrize(("there", "back"), [("ease in", "ease out"), ("ease in and out",) * 2, ("linear",) * 2])
def test_easings_mirror_each_other(there, back):
    mirrored = [1 - alpha for alpha in reversed(alpha_schedule(16, back))]
    assert alpha_schedule(16, there) == pytest.approx(mirrored, abs=1e-12)


@pytest.mark.parametrize("frames", [1, 0, -3])
def test_fewer_than_two_frames_are_refused(frames):
    with pytest.raises(InvalidInput, match=f"frames = {frames}"):
        alpha_schedule(frames)
    with pytest.raises(InvalidInput, match=f"frames = {frames}"):
        reschedule_alphas((0, 1), (0.3,), frames)


def test_an_unknown_easing_is_refused_and_the_known_ones_are_named():
    with pytest.raises(InvalidInput, match="linear, ease in, ease out, ease in and out; got 'bounce'"):
        alpha_schedule(5, "bounce")


@pytest.mark.parametrize("alphas", [(0.5,), (0, 0, 1, 1), [0, 0.2, 1], (0.3, 0.4)])
def test_good_alphas_come_back_as_a_tuple_of_floats(alphas):
    checked = check_alphas(alphas)
    assert checked == tuple(alphas)
    assert isinstance(checked, tuple) and all(isinstance(alpha, float) for alpha in checked)


@pytest.mark.parametrize(
    ("alphas", "words"),
    [
        ((), "empty"),
        ((-0.1, 1), "between 0 and 1, got -0.1"),
        ((0, 1.5), "between 0 and 1, got 1.5"),
        ((0, math.nan, 1), "between 0 and 1, got nan"),
        ((0, math.inf), "between 0 and 1, got inf"),
        ((0, 0.7, 0.4, 1), "0.7 followed by 0.4"),
    ],
)
def test_bad_alphas_are_refused_and_shown(alphas, words):
    with pytest.raises(InvalidInput, match=words):
        check_alphas(alphas)
    if alphas:
        with pytest.raises(InvalidInput, match=words):
            reschedule_alphas(alphas, [1] * (len(alphas) - 1), 5)


@pytest.mark.parametrize("frames", [9, 16])
def test_published_rescheduling(published, frames):
    distances = published["reschedule.distances"].tolist()
    result = reschedule_alphas(alpha_schedule(9), distances, frames)
    assert result == pytest.approx(published[f"reschedule.alphas_{frames}"].tolist(), abs=1e-5)


def test_a_known_path_by_hand():
    # all but a quarter of the way is travelled between alpha 0.5 and 1
    assert reschedule_alphas((0, 0.5, 1), (1, 3), 5) == pytest.approx((0, 0.5, 2 / 3, 5 / 6, 1))


def test_a_known_path_at_uneven_alphas():
    # travelled t at alpha t², so even frames lie at the squares: exact where the path was measured
    alphas = [(i / 20) ** 2 for i in range(21)]
    assert reschedule_alphas(alphas, [0.05] * 20, 5) == pytest.approx([0, 1 / 16, 1 / 4, 9 / 16, 1])


def test_a_smooth_path_is_evened_out():
    def travelled(alpha):
        return alpha**3

    alphas = alpha_schedule(400)
    distances = [travelled(b) - travelled(a) for a, b in zip(alphas, alphas[1:], strict=False)]
    even = reschedule_alphas(alphas, distances, 11)
    assert [travelled(alpha) for alpha in even] == pytest.approx([i / 10 for i in range(11)], abs=1e-4)


def test_an_even_path_stays_as_it_is():
    alphas = alpha_schedule(16)
    assert reschedule_alphas(alphas, [0.37] * 15, 16) == pytest.approx(alphas, abs=1e-12)


def test_the_unit_of_distance_does_not_matter():
    distances = [0.1, 0.5, 0.02, 0.7]
    scaled = [1000 * distance for distance in distances]
    alphas = alpha_schedule(5)
    assert reschedule_alphas(alphas, distances, 9) == pytest.approx(reschedule_alphas(alphas, scaled, 9))


def test_reversing_the_path_mirrors_the_alphas():
    alphas, distances = alpha_schedule(6), [0.1, 0.5, 0.02, 0.7, 0.3]
    mirrored = [1 - alpha for alpha in reversed(reschedule_alphas(alphas, distances[::-1], 8))]
    assert reschedule_alphas(alphas, distances, 8) == pytest.approx(mirrored, abs=1e-12)


def test_a_path_of_no_length_is_spaced_evenly_in_alpha():
    assert reschedule_alphas((0, 0.9, 1), (0, 0), 5) == pytest.approx((0, 0.25, 0.5, 0.75, 1))
    assert reschedule_alphas((0.2, 0.9), (0,), 3) == pytest.approx((0.2, 0.55, 0.9))


def test_rounding_is_no_path():
    noise, path = (3e-7, 1e-8, 2e-7), (3e-4, 1e-5, 2e-4)
    assert reschedule_alphas(alpha_schedule(4), noise, 4) == pytest.approx(alpha_schedule(4), abs=1e-12)
    assert reschedule_alphas(alpha_schedule(4), path, 4)[1] < 0.25


def test_first_and_last_alpha_stay_where_a_path_covers_only_a_part():
    result = reschedule_alphas((0.2, 0.3, 0.9), (0.5, 0.1), 7)
    assert (result[0], result[-1]) == (0.2, 0.9)


@pytest.mark.parametrize("distances", [(1, 0, 0), (1, 0, 2), (0, 0, 0)])
def test_frames_that_look_alike_leave_the_ends_where_they_are(distances):
    result = reschedule_alphas((0, 0.3, 0.6, 1), distances, 5)
    assert (result[0], result[-1]) == (0, 1)


@pytest.mark.parametrize("distances", [(0, 1, 2), (0, 0, 1)])
def test_first_frames_that_look_alike_leave_the_first_alpha_where_it_is(distances):
    result = reschedule_alphas((0, 0.3, 0.6, 1), distances, 5)
    assert (result[0], result[-1]) == (0, 1)


def test_any_rescheduling_is_a_valid_list_of_alphas_between_the_same_ends():
    for seed in range(300):
        draw = random.Random(seed)
        count = draw.randint(2, 20)
        distances = [draw.random() ** draw.choice((1, 4, 12)) for _ in range(count - 1)]
        result = reschedule_alphas(alpha_schedule(count), distances, draw.randint(2, 40))
        assert check_alphas(result) == result
        assert (result[0], result[-1]) == (0, 1)


@pytest.mark.parametrize("distances", [(), (0.1,), (0.1, 0.2, 0.3)])
def test_a_wrong_number_of_distances_is_refused(distances):
    with pytest.raises(InvalidInput, match=f"3 alphas need 2 distances, got {len(distances)}"):
        reschedule_alphas((0, 0.5, 1), distances, 5)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_impossible_distances_are_refused(bad):
    with pytest.raises(InvalidInput, match="finite and not negative"):
        reschedule_alphas((0, 0.5, 1), (0.1, bad), 5)
