import math

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, ddim_sigmas, sigmas_of


def published_scheduler(**options):
    from diffusers import DDIMScheduler

    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **options)


def test_alphas_are_those_of_the_published_scheduler():
    torch.testing.assert_close(alphas_cumprod(), published_scheduler().alphas_cumprod, rtol=1e-5, atol=1e-7)


def test_alphas_of_three_steps_by_hand():
    # square roots of beta 0.1, 0.2, 0.3; so beta = 0.01, 0.04, 0.09
    expected = torch.tensor([0.99, 0.99 * 0.96, 0.99 * 0.96 * 0.91])
    torch.testing.assert_close(alphas_cumprod(0.01, 0.09, 3), expected)


def test_first_and_last_sigma_of_stable_diffusion_are_the_well_known_ones():
    sigmas = sigmas_of(alphas_cumprod())
    assert sigmas[0].item() == pytest.approx(0.02917, abs=1e-5)
    assert sigmas[-1].item() == pytest.approx(14.6146, abs=1e-3)


def test_sigma_by_hand():
    torch.testing.assert_close(sigmas_of(torch.tensor([0.8, 0.5, 0.1])), torch.tensor([0.5, 1.0, 3.0]))


def test_sigma_space_is_the_variance_preserving_latent_divided_by_the_root_of_alpha():
    alpha = alphas_cumprod()[400]
    z0, noise = torch.randn(5), torch.randn(5)
    z = alpha.sqrt() * z0 + (1 - alpha).sqrt() * noise
    schedule = VariancePreserving(sigmas_of(alphas_cumprod()))
    torch.testing.assert_close(z / alpha.sqrt(), schedule.noised(z0, noise, sigmas_of(alpha)))


@pytest.mark.parametrize("steps", [1, 4, 7, 30, 50, 100, 250, 333, 999])
def test_ddim_timesteps_are_those_of_the_published_scheduler(steps):
    scheduler = published_scheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(steps)
    sigmas = ddim_sigmas(torch.arange(1000.0), steps)  # sigma = timestep, so the result lists timesteps
    assert sigmas.tolist() == [*scheduler.timesteps.tolist(), 0]


def test_fifty_steps_are_981_down_to_1_and_then_no_noise():
    assert ddim_sigmas(torch.arange(1000.0), 50).tolist() == [*range(981, 0, -20), 0]


def test_an_alpha_that_is_not_set_to_one_is_that_of_the_first_timestep():
    sigmas = ddim_sigmas(torch.arange(1000.0) + 0.5, 50, set_alpha_to_one=False)
    assert sigmas.tolist() == [*(t + 0.5 for t in range(981, 0, -20)), 0.5]


def test_the_scale_of_a_latent_is_one_over_the_root_of_its_alpha():
    alphas = alphas_cumprod().double()
    schedule = VariancePreserving(sigmas_of(alphas))
    torch.testing.assert_close(schedule.scale(schedule.sigmas), alphas**-0.5)
    assert schedule.scale(torch.tensor(0.0)) == 1


def test_sigmas_fall_to_zero_and_keep_the_dtype():
    sigmas = ddim_sigmas(sigmas_of(alphas_cumprod().double()), 50)
    assert sigmas.dtype == torch.float64
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0


@pytest.mark.parametrize("steps", [0, -1, 1000, 2000])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(InvalidInput, match=rf"between 1 and 999, got {steps}"):
        ddim_sigmas(torch.arange(1000.0), steps)


def test_timestep_of_every_training_sigma_is_its_index():
    sigmas = sigmas_of(alphas_cumprod())
    assert VariancePreserving(sigmas).timestep(sigmas).tolist() == list(range(1000))


@pytest.mark.parametrize(("share", "timestep"), [(0.25, 300), (0.49, 300), (0.51, 301), (0.75, 301)])
def test_a_sigma_between_two_has_the_timestep_that_is_nearer_in_log_sigma(share, timestep):
    sigmas = sigmas_of(alphas_cumprod().double())
    between = sigmas[300] ** (1 - share) * sigmas[301] ** share
    assert VariancePreserving(sigmas).timestep(between).item() == timestep


def test_timesteps_stay_within_the_schedule():
    sigmas = sigmas_of(alphas_cumprod())
    outside = torch.tensor([0.0, 1e-6, 100.0, math.inf])
    assert VariancePreserving(sigmas).timestep(outside[:3]).tolist() == [0, 0, 999]
    assert VariancePreserving(sigmas).timestep(outside[3]).item() == 999


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_timestep_has_the_shape_of_sigma(shape):
    sigmas = sigmas_of(alphas_cumprod())
    assert VariancePreserving(sigmas).timestep(torch.full(shape, 2.0)).shape == shape


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_error_scale_is_the_networks_error_over_that_of_its_estimate(prediction):
    schedule = VariancePreserving(sigmas_of(alphas_cumprod()), prediction)
    x, output, sigma = torch.randn(5), torch.randn(5), torch.tensor(1.7)
    change = schedule.to_x0(x, output + 1, sigma) - schedule.to_x0(x, output, sigma)
    torch.testing.assert_close(change.abs() * schedule.error_scale(sigma), torch.ones(5))
