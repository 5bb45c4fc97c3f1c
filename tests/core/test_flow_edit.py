"""FlowEdit where its answer is known: one prompt twice, Gaussian latents whose prompt moves their mean, free steps."""

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.flow_edit import FlowEdit, flow_edit
from morph_pack.morph_core.sampling.guidance import guided_denoiser
from morph_pack.morph_core.sampling.schedule import flow_sigmas
from morph_tests.core.gaussian import SCHEDULES, SPREAD, gaussian_denoiser, latents, run_down
from morph_tests.networks import denoiser_of

MEAN = 0.7
WHOLE = FlowEdit(strength=1.0)


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]


def denoisers(schedule, shift):
    return gaussian_denoiser(schedule, MEAN), gaussian_denoiser(schedule, MEAN + shift)


@pytest.mark.parametrize("config", [FlowEdit(), FlowEdit(strength=1.0, noises=3, seed=5)])
def test_one_prompt_twice_is_the_image_bit_for_bit(schedule, config):
    image, (denoise, _) = latents(1), denoisers(schedule, 0)
    assert torch.equal(flow_edit(denoise, denoise, image, run_down(schedule, 20), schedule, config), image)


@torch.no_grad()
def test_one_prompt_twice_is_the_image_through_a_network_with_guidance(small_unet):
    schedule = SCHEDULES["variance preserving"]
    contexts = [torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)]
    guided = [
        guided_denoiser(*(denoiser_of(small_unet, context, schedule.sigmas.float()) for context in contexts), cfg)
        for cfg in (5.0, 5.0, 2.0)
    ]
    image, sigmas = latents(1).float(), run_down(schedule, 4).float()
    assert torch.equal(flow_edit(guided[0], guided[1], image, sigmas, schedule), image)
    assert (flow_edit(guided[0], guided[2], image, sigmas, schedule) - image).abs().max() > 0.01


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_of_flow_matching_a_shifted_mean_shifts_the_image_by_as_much(steps):
    """In any number of steps: the difference of the two is (1 − sigma)·shift on the way, a straight line."""
    schedule, image, shift = SCHEDULES["flow matching"], latents(1), latents(2)
    source, target = denoisers(schedule, shift)
    edited = flow_edit(source, target, image, flow_sigmas(steps, 3.0).double(), schedule, WHOLE)
    torch.testing.assert_close(edited, image + shift)


def test_in_sigma_space_it_is_shifted_by_nearly_as_much_with_first_order():
    """There the difference d − shift shrinks as sqrt(spread² + sigma²): from sigma_max on, to a part that stays."""
    schedule, image, shift = SCHEDULES["variance preserving"], latents(1), latents(2)
    source, target = denoisers(schedule, shift)
    errors = []
    for steps in (50, 100, 200, 400):
        sigmas = run_down(schedule, steps)
        exact = image + shift * (1 - SPREAD / (SPREAD**2 + sigmas[0] ** 2).sqrt())
        edited = flow_edit(source, target, image, sigmas, schedule, WHOLE)
        errors.append(float((edited - exact).abs().max()))
    assert float((exact - image - shift).abs().max()) < 0.2
    assert all(1.7 < a / b < 2.3 for a, b in zip(errors, errors[1:], strict=False))


def test_a_step_is_the_papers(schedule):
    """Algorithm 1, line by line, with the velocities (x − x0)/sigma."""
    image, (source, target), sigmas = latents(1), denoisers(schedule, 0.5), run_down(schedule, 6)
    generators = [torch.Generator().manual_seed(9 + row) for row in range(len(image))]
    z_edit = image
    for sigma, next_sigma in zip(sigmas[2:-1], sigmas[3:], strict=True):
        differences = []
        for _ in range(2):
            noise = torch.stack([torch.randn(image.shape[1:], generator=one) for one in generators]).double()
            z_src = schedule.noised(image, noise, sigma)
            z_tar = z_edit + z_src - image
            differences.append((z_tar - target(z_tar, sigma)) / sigma - (z_src - source(z_src, sigma)) / sigma)
        z_edit = z_edit + (next_sigma - sigma) * torch.stack(differences).mean(0)
    config = FlowEdit(strength=4 / 6, noises=2, seed=9)
    torch.testing.assert_close(flow_edit(source, target, image, sigmas, schedule, config), z_edit)


def test_free_from_the_first_step_it_samples_the_target_from_the_noised_image(schedule):
    image, (source, target), sigmas = latents(1), denoisers(schedule, 0.5), run_down(schedule, 10)
    seen = []

    def watched(x, sigma):
        seen.append(x)
        return target(x, sigma)

    edited = flow_edit(source, watched, image, sigmas, schedule, FlowEdit(strength=0.6, free=1.0))
    torch.testing.assert_close(edited, ddim.sample(target, seen[0], sigmas[4:]))
    noise = torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(seen[0][0], schedule.noised(image, noise, sigmas[4])[0])


def test_free_in_its_last_steps_it_goes_on_from_the_edit_with_noise(schedule):
    image, (source, target), sigmas = latents(1), denoisers(schedule, 0.5), run_down(schedule, 10)
    calls = []

    def watched(x, sigma):
        calls.append(sigma)
        return target(x, sigma)

    config = FlowEdit(strength=0.8, free=0.3)
    edited = flow_edit(source, watched, image, sigmas, schedule, config)
    assert torch.equal(torch.stack(calls), sigmas[2:-1])
    held = flow_edit(source, target, image, sigmas, schedule, FlowEdit(strength=0.8))
    assert torch.isfinite(edited).all() and (edited - held).abs().max() > 1e-3


def test_where_the_mask_is_0_the_image_stays(schedule):
    image, (source, target), sigmas = latents(1), denoisers(schedule, 0.5), run_down(schedule, 10)
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    mask[..., :4], mask[..., 4] = 1, 0.5
    masked, whole = (flow_edit(source, target, image, sigmas, schedule, WHOLE, mask=m) for m in (mask, None))
    assert torch.equal(masked[..., 5:], image[..., 5:])
    torch.testing.assert_close(masked[..., :4], whole[..., :4])
    between = (masked[..., 4] - image[..., 4]) / (whole[..., 4] - image[..., 4])
    assert 0 < float(between.min()) and float(between.max()) < 0.9
    free = flow_edit(source, target, image, sigmas, schedule, FlowEdit(strength=1.0, free=0.3), mask=mask)
    torch.testing.assert_close(free[..., 5:], image[..., 5:], rtol=0, atol=1e-12)


def test_a_seed_says_the_noise_and_a_row_gets_the_one_it_would_get_alone(schedule):
    image, sigmas = latents(1), run_down(schedule, 10)
    source, target = denoisers(schedule, 0.5)

    def edited(rows, seed):
        return flow_edit(source, bent(target), image[rows], sigmas, schedule, FlowEdit(seed=seed))

    assert torch.equal(edited([0, 1], 3), edited([0, 1], 3))
    assert (edited([0, 1], 3) - edited([0, 1], 4)).abs().max() > 1e-3
    torch.testing.assert_close(edited([0, 1], 3)[1:], edited([1], 4))


def bent(denoise):
    """A denoiser to whose answer the noise matters."""
    return lambda x, sigma: denoise(x, sigma) + 0.3 * torch.tanh(x)


def test_nothing_is_edited_at_strength_0(schedule):
    image, (source, target) = latents(1), denoisers(schedule, 0.5)
    assert torch.equal(flow_edit(source, target, image, run_down(schedule, 10), schedule, FlowEdit(0.0)), image)


def test_steps_are_counted_among_all_of_them_and_may_cancel(schedule):
    image, (source, target), sigmas, counts = latents(1), denoisers(schedule, 0.5), run_down(schedule, 10), []
    config = FlowEdit(strength=0.8, free=0.2)
    flow_edit(source, target, image, sigmas, schedule, config, lambda done, total, x0: counts.append((done, total)))
    assert counts == [(done, 10) for done in range(3, 11)]

    def cancel(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow_edit(source, target, image, sigmas, schedule, config, cancel)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 1.1}, "strength must be between 0 and 1, got 1.1"),
        ({"free": -0.1}, "free must be between 0 and 1"),
        ({"noises": 0}, "noises must be 1 or more, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(InvalidInput, match=message):
        FlowEdit(**settings)


@pytest.mark.parametrize("free", [0.0, 1.0])
def test_what_cannot_be_edited_is_refused(schedule, free):
    image, (source, target), sigmas = latents(1), denoisers(schedule, 0.5), run_down(schedule, 10)
    with pytest.raises(InvalidInput, match="sigmas must fall to 0, where the image is, and end at"):
        flow_edit(source, target, image, sigmas[:-1], schedule)
    with pytest.raises(InvalidInput, match="the edit is not finite after 1 of 10 steps: .* lower the guidance"):
        flow_edit(source, lambda x, sigma: x / 0, image, sigmas, schedule, FlowEdit(1.0, free))
