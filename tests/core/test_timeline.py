"""Where a sequence's frames lie: counts, holds, loops, and what has to be sampled for them."""

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.alphas import alpha_schedule, reschedule_alphas
from morph_pack.morph_core.morphing.slerp import slerp
from morph_pack.morph_core.morphing.timeline import Timeline, timeline, timeline_of_values


def latents(count):
    return [torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]


def test_two_pictures_lie_at_the_alphas_of_a_morph():
    two = timeline(2, [16])
    assert two.positions == two.sampled == alpha_schedule(16)
    assert two.shown == list(range(16))


def test_segments_share_their_pictures():
    three = timeline(3, [3, 5])
    assert three.positions == (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0)
    assert [(part.start, part.end, part.rows) for part in three.segments] == [(0, 1, (1,)), (1, 2, (3, 4, 5))]


@pytest.mark.parametrize(("pictures", "frames"), [(2, 9), (3, 16), (5, 4)])
def test_a_sequence_has_as_many_frames_as_its_segments_less_what_they_share(pictures, frames):
    opened, closed = (timeline(pictures, [frames], closed=closed) for closed in (False, True))
    assert len(opened.positions) == (pictures - 1) * (frames - 1) + 1
    assert len(closed.positions) == pictures * (frames - 1)


def test_a_loop_ends_before_the_picture_it_began_with():
    loop = timeline(3, [3], closed=True)
    assert loop.positions == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
    assert [(part.start, part.end) for part in loop.segments] == [(0, 1), (1, 2), (2, 0)]


def test_held_frames_are_shown_again_and_sampled_once():
    held = timeline(3, [3], holds=[2, 0, 1])
    assert held.positions == (0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.0)
    assert held.sampled == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert held.shown == [0, 0, 0, 1, 2, 3, 4, 4]


def test_easing_is_each_segments_own():
    eased = timeline(3, [5], easings=["ease in", "linear"])
    assert eased.positions[:5] == alpha_schedule(5, "ease in")
    assert eased.positions[4:] == tuple(1 + alpha for alpha in alpha_schedule(5))


def test_values_of_a_curve_may_fall_and_need_the_pictures_they_lie_between():
    curve = timeline_of_values([0.1, 0.9, 0.1, 0.5], 3)
    assert curve.positions == (0.2, 1.8, 0.2, 1.0)
    assert curve.sampled == (0.0, 0.2, 1.0, 1.8, 2.0)
    assert curve.shown == [1, 3, 1, 2]


def test_values_of_a_loop_go_round_it():
    loop = timeline_of_values([0.0, 0.75, 1.0], 4, closed=True)
    assert loop.positions == (0.0, 3.0, 0.0)
    assert timeline_of_values([0.875], 4, closed=True).sampled == (0.0, 3.0, 3.5)


def test_a_picture_alone_is_a_segment_of_no_frames():
    alone = Timeline((1.0, 0.25), 3)
    assert [(part.start, part.end, part.rows) for part in alone.segments] == [(0, 1, (1,))]
    assert [(part.start, part.end) for part in Timeline((2.0, 0.5), 3).segments] == [(0, 1), (2, 2)]


def test_what_lies_between_two_pictures_is_what_a_blend_makes_of_them():
    pictures = latents(3)
    two, three = timeline(2, [5]), timeline(3, [5])
    assert torch.equal(two.between(pictures[:2], slerp), slerp(*pictures[:2], alpha_schedule(5)))
    rows = three.between(pictures, slerp)
    assert torch.equal(rows[1:4], slerp(pictures[0], pictures[1], alpha_schedule(5))[1:-1])
    torch.testing.assert_close(rows[[0, 4, 8]], torch.cat(pictures))


def test_a_loops_last_segment_leads_to_the_first_picture():
    pictures = latents(3)
    rows = timeline(3, [5], closed=True).between(pictures, slerp)
    assert torch.equal(rows[9:], slerp(pictures[2], pictures[0], alpha_schedule(5))[1:-1])


def test_a_rescheduled_timeline_of_two_pictures_is_the_rescheduled_morph():
    steps = [1.0, 0.5, 3.0, 0.1]
    moved = timeline(2, [5]).rescheduled(lambda rows: [steps[row] for row in rows[:-1]])
    assert moved.positions == reschedule_alphas(alpha_schedule(5), steps, 5)


def test_rescheduling_is_each_segments_own_and_keeps_pictures_and_holds():
    held = timeline(3, [3], holds=[1], closed=True)
    lengths = {(0, 1): 1.0, (1, 2): 3.0, (2, 3): 2.0, (3, 4): 2.0, (4, 5): 3.0, (5, 0): 1.0}
    moved = held.rescheduled(lambda rows: [lengths[pair] for pair in zip(rows, rows[1:], strict=False)])
    expected = (0.0, 0.0, 0.5 + 0.5 / 3, 1.0, 1.0, 1.5, 2.0, 2.0, 2 + 1 / 3)
    assert moved.positions == pytest.approx(expected) and moved.pictures == 3
    assert [moved.positions[i] for i in (0, 1, 3, 4, 6, 7)] == [0, 0, 1, 1, 2, 2]


def test_a_hundred_pictures():
    many = timeline(100, [3], closed=True)
    assert len(many.segments) == 100 and many.segments[-1].end == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pictures": 1}, "2 to 1000 pictures, got 1"),
        ({"pictures": 3, "frames": [1]}, "at least 2 frames"),
        ({"pictures": 3, "frames": [3, 3, 3]}, "frames must be one value or one for each of the 2 segments, got 3"),
        ({"pictures": 3, "frames": []}, "frames must be one value"),
        ({"pictures": 3, "holds": [0, -1, 0]}, "holds must not be negative, got -1"),
        ({"pictures": 3, "holds": [1, 1]}, "holds must be one value or one for each of the 3 pictures, got 2"),
        ({"pictures": 3, "easings": ["bounce"]}, "easing must be one of"),
    ],
)
def test_impossible_timelines_are_refused(arguments, words):
    with pytest.raises(InvalidInput, match=words):
        timeline(**arguments)


@pytest.mark.parametrize("values", [[], [1.1], [-0.1], [float("nan")]])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(InvalidInput):
        timeline_of_values(values, 3)


@pytest.mark.parametrize("position", [3.0, -0.5, float("inf")])
def test_positions_beyond_the_pictures_are_refused(position):
    with pytest.raises(InvalidInput, match="must be from 0 to below"):
        Timeline((0.0, position), 3)
