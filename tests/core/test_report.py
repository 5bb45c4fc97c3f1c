"""What a report says of paths whose steps are known: in closed form, as greys, and as an edge that leaps."""

import math

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.alphas import alpha_schedule, reschedule_alphas
from morph_pack.morph_core.morphing.perceptual import METRICS
from morph_pack.morph_core.morphing.report import LISTED, NEAR, Report, morph_report

SIZE = 64  # at which the Laplacian pyramid has 5 bands, and sees a change of grey in the coarsest alone


def greys(*levels):
    """Frames (F, 3, SIZE, SIZE) of constant grey: a step's distance is a fifth of its difference."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, SIZE, SIZE)


def halves(*edges):
    """Frames of which the left part is white, up to a share of the width."""
    columns = (torch.arange(SIZE) + 0.5) / SIZE
    return torch.stack([(columns < edge).float().expand(3, SIZE, SIZE) for edge in edges])


def test_greys_have_the_distances_that_they_are_apart():
    report = morph_report(greys(0.0, 0.1, 0.4, 0.4, 0.6))
    assert report.distances == pytest.approx((0.02, 0.06, 0, 0.04), abs=1e-6)
    assert report.path_length == pytest.approx(0.12)
    assert report.mean_step == pytest.approx(0.03)
    assert report.variance == pytest.approx((0.01**2 + 0.03**2 + 0.03**2 + 0.01**2) / 4)
    assert report.longest == pytest.approx(2)


@pytest.mark.parametrize("alphas", [None, alpha_schedule(6), alpha_schedule(6, "ease in")])
def test_an_even_path_has_no_long_step(alphas):
    report = Report((2.0,) * 5, alphas)
    assert (report.long_steps, report.jumps, report.variance, report.longest) == ((), (), 0, 1)
    assert "No step is longer than 1.5 mean steps." in report.text()


def test_a_jump_has_its_place_and_its_share():
    """Fifteen steps of 1 and one of 10, at equal alphas, but for the two frames beside it."""
    alphas = (*(i / 20 for i in range(9)), 0.41, *(0.5 + i / 14 for i in range(8)))
    report = Report((1.0,) * 8 + (10.0,) + (1.0,) * 8, alphas)
    (jump,) = report.jumps
    assert jump.is_jump and jump.frames == (8, 9)
    assert jump.share == pytest.approx(10 / 26)
    assert jump.means == pytest.approx(10 / (26 / 17))
    assert "The picture changes at once at 0.405 (38 % of the path); no spacing can part it." in report.text()
    assert "Uneven" not in report.text() and "No step" not in report.text()


@pytest.mark.parametrize("place", [0.1, 0.437, 0.9])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_change_at_once_in_an_even_path_is_found_by_spacing_it_anew(place, share):
    """The first pass cannot tell it from a steep part, the second can: its two frames are near, and still far apart."""

    def pass_at(alphas):
        way = [(1 - share) * alpha + share * (alpha > place) for alpha in alphas]
        return Report(tuple(b - a for a, b in zip(way, way[1:], strict=False)), tuple(alphas))

    first = pass_at(alpha_schedule(16))
    assert not first.jumps and len(first.long_steps) == 1
    second = pass_at(reschedule_alphas(first.alphas, first.distances, 16))
    (jump,) = second.jumps
    assert jump.alphas[0] <= place <= jump.alphas[1]
    assert jump.share == pytest.approx(share, abs=0.05)


def test_a_steep_but_smooth_change_is_no_jump_however_many_frames_there_are():
    """A logistic passage, a twentieth of the way wide: more frames part it, and a new spacing makes it even."""
    way = [1 / (1 + math.exp(-80 * (alpha - 0.5))) for alpha in alpha_schedule(257)]
    first = Report(tuple(b - a for a, b in zip(way, way[1:], strict=False)), alpha_schedule(257))
    assert first.long_steps and not first.jumps
    alphas = reschedule_alphas(first.alphas, first.distances, 257)
    way = [1 / (1 + math.exp(-80 * (alpha - 0.5))) for alpha in alphas]
    second = Report(tuple(b - a for a, b in zip(way, way[1:], strict=False)), alphas)
    assert not second.long_steps


def test_a_long_step_over_a_wide_interval_is_uneven():
    report = Report((1.0, 1.0, 6.0, 1.0, 1.0), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    assert report.jumps == ()
    expected = "Uneven: 60 % of the path lies between 0.4 and 0.6 (3.0 mean steps); more frames there would part it"
    assert expected in report.text()


def test_how_near_two_frames_of_a_jump_are():
    def jumps(width):
        return Report((1.0, 1.0, 6.0, 1.0, 1.0), (0.0, 0.2, 0.4, 0.4 + width, 0.8, 1.0)).jumps

    assert jumps(0.0) and jumps(0.9 * NEAR) and not jumps(1.1 * NEAR)


def test_without_alphas_nothing_is_called_a_jump():
    report = Report((1.0, 1.0, 60.0, 1.0))
    assert [step.frames for step in report.long_steps] == [(2, 3)]
    assert report.jumps == ()
    assert "between frames 3 and 4" in report.text()


def test_holds_are_no_steps_but_standing_still_is_one():
    moving = (0.2, 0.2, 0.2)
    held = Report((0.2, 0.0, 0.0, 0.2, 0.2, 0.0), (0.0, 0.5, 0.5, 0.5, 0.75, 1.0, 1.0))
    assert held.mean_step == pytest.approx(Report(moving).mean_step)
    assert held.variance == pytest.approx(0) and held.longest == pytest.approx(1)
    assert "3 steps and 3 holds" in held.text()
    assert Report(held.distances).mean_step == pytest.approx(0.1)
    assert Report((0.2, 0.0, 0.2), (0.0, 0.4, 0.6, 1.0)).mean_step == pytest.approx(0.4 / 3)


def test_a_change_between_two_frames_of_one_alpha_is_a_jump():
    report = Report((0.2, 0.9, 0.2), (0.0, 0.5, 0.5, 1.0))
    assert [jump.alphas for jump in report.jumps] == [(0.5, 0.5)]


def test_a_closed_path_has_the_step_back():
    closed = morph_report(greys(0.0, 0.1, 0.2), closed=True)
    assert closed.distances == pytest.approx((0.02, 0.02, 0.04), abs=1e-6)
    assert closed.frames == 3
    assert "between frames 3 and 1" in Report((1.0, 1.0, 7.0), closed=True).text()


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    "places",
    [(0.0, 0.5, 1.0, 1.5, 2.0), (0.0, 0.5, 1.0, 0.5, 0.0), (2.0, 1.5, 1.0, 0.5, -1.0), (0.3,) * 5],
    ids=["three pictures", "there and back", "falling", "one place"],
)
def test_places_need_not_rise_nor_end_at_1(places, closed):
    report = morph_report(greys(0.0, 0.1, 0.2, 0.3, 0.4), alphas=places, closed=closed)
    assert report.path_length == pytest.approx(0.16 if closed else 0.08, abs=1e-6)
    assert len(report.text().splitlines()) >= 3


def test_a_sequence_jumps_where_it_jumps():
    """The second of three pictures is passed at 1; the jump is on the way to the third."""
    report = Report((1.0, 1.0, 1.0, 5.0, 1.0), (0.0, 0.6, 1.1, 1.5, 1.501, 2.0))
    assert [jump.alphas for jump in report.jumps] == [(1.5, 1.501)]


def test_the_ends_errors():
    frames = greys(0.1, 0.5, 0.9)
    end = frames[-1:].clone()
    end[..., : SIZE // 4] = 1.0  # a quarter of the picture is 0.1 away
    report = morph_report(frames, start_image=frames[:1], end_image=end)
    assert (report.start.greatest, report.start.rms) == (0, 0)
    assert report.end.greatest == pytest.approx(0.1, rel=1e-4)
    assert report.end.rms == pytest.approx(0.05, rel=1e-4)
    assert "The last from end_image by up to 0.1, root mean square 0.05." in report.text()


def test_an_edge_that_leaps():
    """An edge that goes evenly, but for one leap of a quarter of the picture between two near frames."""
    edges = (0.1, 0.15, 0.2, 0.25, 0.5, 0.55, 0.6, 0.65)
    report = morph_report(halves(*edges), alphas=(0.0, 0.2, 0.4, 0.5, 0.505, 0.6, 0.8, 1.0))
    assert [jump.frames for jump in report.jumps] == [(3, 4)]


def test_two_frames_have_one_step_which_is_the_mean():
    report = morph_report(greys(0.0, 1.0), alphas=(0.0, 1.0))
    assert report.distances == pytest.approx((0.2,), abs=1e-6)
    assert (report.longest, report.variance, report.long_steps) == (1, 0, ())


@pytest.mark.parametrize("alphas", [None, (0.0, 0.5, 1.0), (0.5, 0.5, 0.5)])
@pytest.mark.parametrize("closed", [False, True])
def test_identical_frames_have_no_path(alphas, closed):
    report = morph_report(greys(0.3, 0.3, 0.3), alphas=alphas, closed=closed)
    assert (report.path_length, report.longest, report.long_steps) == (0, 1, ())
    assert report.text() == "3 frames that show the same picture: there is no path to measure."


def test_what_the_metric_says_is_reported(monkeypatch):
    monkeypatch.setitem(METRICS, "known", lambda frames, _: torch.tensor([1.0, 2.0, 3.0]))
    report = morph_report(greys(0.0, 0.1, 0.2, 0.3), "known")
    assert report.distances == (1, 2, 3)
    assert "Path length 6 (known; 3 steps), mean step 2." in report.text()
    assert "longest step 1.50 mean steps" in report.text()


def test_the_longest_steps_are_named_first_and_the_others_counted():
    distances = (1.0,) * 40 + (9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 4.0)
    lines = Report(distances).text().splitlines()
    uneven = [line for line in lines if line.startswith("Uneven")]
    assert len(uneven) == LISTED and "frames 41 and 42" in uneven[0]
    assert "2 more steps are longer than 1.5 mean steps." in lines


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: morph_report(greys(0.5)), "images must be at least 2 frames"),
        (lambda: morph_report(greys(0.5), closed=True), "images must be at least 2 frames"),
        (lambda: morph_report(greys(0.0, math.nan, 1.0)), "images has values that are not finite"),
        (lambda: morph_report(greys(0.0, 1.0)[:, :2]), r"images must be frames of shape \(F, 3, H, W\)"),
        (lambda: morph_report(greys(0.0, 1.0), alphas=(0.0, 0.5, 1.0)), "2 frames but alphas has 3"),
        (lambda: morph_report(greys(0.0, 1.0), alphas=(0.0, math.inf)), "^alphas must be finite numbers, got inf"),
        (lambda: morph_report(greys(0.0, 1.0), start_image=greys(0.0)[..., :8]), "start_image .* scale it"),
        (lambda: morph_report(greys(0.0, 1.0), end_image=greys(0.0, 1.0)), "end_image must be one picture"),
        (lambda: morph_report(greys(0.0, 1.0), end_image=greys(math.nan)), "end_image has values that are not finite"),
        (lambda: morph_report(greys(0.0, 1.0), "ssim"), "metric must be one of"),
        (lambda: morph_report(greys(0.0), name="first_pass"), "^first_pass must be"),
        (lambda: Report((1.0, -1.0)), "not negative"),
        (lambda: Report((1.0, math.nan)), "finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()
