"""Uni-Edit where its answer is known: one prompt twice is the reconstruction, and one step is the paper's formula."""

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.uni_edit import UniEdit, led_by_difference, uni_edit, where_they_differ
from morph_tests.core.gaussian import SCHEDULES, gaussian_denoiser, latents, run_down

MEAN = 0.7


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]


def denoisers(schedule, shift):
    return gaussian_denoiser(schedule, MEAN), gaussian_denoiser(schedule, MEAN + shift)


def test_one_prompt_twice_is_the_reconstruction_bit_for_bit(schedule):
    image, (denoise, _), sigmas = latents(1), denoisers(schedule, 0), run_down(schedule, 20)
    edited = uni_edit(denoise, denoise, image, sigmas, schedule)
    inverted = ddim.invert(denoise, image, sigmas[8:], schedule, warm_start=True)
    assert torch.equal(edited, ddim.sample(denoise, inverted, sigmas[8:]))
    assert 0 < float((edited - image).abs().max()) < 0.3


def test_a_step_is_the_papers(schedule):
    """Fused velocity and correction of v_t and v_s, with m as the code for Flux has it."""
    image, (source, target), sigmas = latents(1), denoisers(schedule, latents(2)), run_down(schedule, 10)
    omega = 2.0
    x = ddim.invert(source, image, sigmas[5:], schedule, warm_start=True)
    for sigma, next_sigma in zip(sigmas[5:-1], sigmas[6:], strict=True):
        v_s, v_t = ((x - model(x, sigma)) / sigma for model in (source, target))
        c = v_t - v_s
        rows = []
        for row in c.abs().mean(1):
            rows.append((row - row.min()) / (row.max() - row.min()))
        m = torch.stack(rows)[:, None]
        v = m * v_t + (1 - m) * v_s + (m + 1) * omega * c
        x = x + (next_sigma - sigma) * v
    edited = uni_edit(source, target, image, sigmas, schedule, UniEdit(strength=0.5, omega=omega))
    torch.testing.assert_close(edited, x)


def test_they_differ_from_not_at_all_to_most_in_each_row():
    source, target = latents(), latents()
    target[0, :, 2, 3] += 4
    target[1, :2, 5] -= 1
    m = where_they_differ(source, target)
    assert m.shape == (2, 1, 8, 8)
    assert float(m[0, 0, 2, 3]) == 1 and float(m[0].sum()) == pytest.approx(1)
    torch.testing.assert_close(m[1, 0, 5], torch.ones(8, dtype=torch.float64))
    assert float(m[1].sum()) == pytest.approx(8)
    assert float(where_they_differ(source[:, :, None], target[:, :, None])[0, 0, 0, 2, 3]) == 1  # of video models


def test_where_nothing_stands_out_the_mask_is_0():
    x = latents()
    assert float(where_they_differ(x, x).abs().max()) == 0
    ones, zeros = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    torch.testing.assert_close(led_by_difference(zeros, ones, 5.0), 5 * ones)
    assert torch.equal(led_by_difference(x, x, 5.0), x)


def test_it_leads_towards_the_target_and_the_more_the_larger_omega_is(schedule):
    image, (source, target), sigmas = latents(1), denoisers(schedule, 0.5), run_down(schedule, 20)
    moved = [
        float((uni_edit(source, target, image, sigmas, schedule, UniEdit(0.8, omega)) - image).mean())
        for omega in (0.5, 1.0, 3.0)
    ]
    assert 0.01 < moved[0] < moved[1] < moved[2]


def test_where_the_mask_is_0_the_image_stays(schedule):
    image, (source, target), sigmas = latents(1), denoisers(schedule, 0.5), run_down(schedule, 10)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., :4] = 1
    edited = uni_edit(source, target, image, sigmas, schedule, mask=mask)
    assert torch.equal(edited[..., 4:], image[..., 4:])
    assert float((edited - image)[..., :4].abs().min()) > 0.01


def test_both_ways_are_counted_and_evaluated_as_often_as_said(schedule):
    image, sigmas, counts, calls = latents(1), run_down(schedule, 10), [], []

    def watched(name, denoise):
        return lambda x, sigma: (calls.append(name), denoise(x, sigma))[1]

    source, target = (watched(*pair) for pair in zip("st", denoisers(schedule, 0.5), strict=True))
    uni_edit(source, target, image, sigmas, schedule, UniEdit(), lambda done, total, x0: counts.append((done, total)))
    assert counts == [(done, 12) for done in range(1, 13)]
    assert "".join(calls) == 6 * "s" + 6 * "st"
    assert uni_edit(source, target, image, sigmas, schedule, UniEdit(0.0)) is image


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 1.1}, "strength must be between 0 and 1, got 1.1"),
        ({"omega": -1.0}, "omega must be 0 or more, got -1"),
        ({"omega": float("nan")}, "omega must be 0 or more, got nan"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        UniEdit(**settings)


def test_what_cannot_be_edited_is_refused(schedule):
    image, (source, target), sigmas = latents(1), denoisers(schedule, 0.5), run_down(schedule, 10)
    with pytest.raises(InvalidInput, match="sigmas must fall to 0, where the image is"):
        uni_edit(source, target, image, sigmas[:-1], schedule)
    with pytest.raises(InvalidInput, match="the edit is not finite after 1 of 6 steps: lower omega"):
        uni_edit(source, lambda x, sigma: x / 0, image, sigmas, schedule)
