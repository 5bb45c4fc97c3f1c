import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling.ddim import invert, sample
from morph_pack.morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, ddim_sigmas, sigmas_of
from morph_tests.networks import denoiser_of

ALPHAS = alphas_cumprod().double()
SIGMAS = sigmas_of(ALPHAS)
SCHEDULE = VariancePreserving(SIGMAS)
TIMESTEPS = list(range(981, 0, -20))  # of 50 steps

MEAN, SPREAD = 0.7, 0.4


def denoise_gaussian(x, sigma):
    """The exact denoiser of latents distributed as N(MEAN, SPREAD²)."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def follow_gaussian(x, sigma_from, sigma_to):
    """The exact probability flow of the same: (x − mean)/sqrt(spread² + sigma²) is constant along it."""
    growth = ((SPREAD**2 + sigma_to**2) / (SPREAD**2 + sigma_from**2)) ** 0.5
    return MEAN + (x - MEAN) * growth


def denoise_two_clusters(x, sigma):
    """The exact denoiser of latents in equal shares around −1 and 1, with spread 0.3."""
    variance = 0.3**2 + sigma**2
    centre = torch.tanh(x / variance)
    return centre + 0.3**2 / variance * (x - centre)


def latents(seed=0):
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def even_sigmas(steps):
    """From 10 to 0, evenly in the 7th root (Karras et al. 2022)."""
    return torch.linspace(10 ** (1 / 7), 0, steps + 1, dtype=torch.float64) ** 7


def halving_errors(run, truth, steps=(50, 100, 200, 400)):
    return [(run(even_sigmas(n)) - truth).abs().max().item() for n in steps]


def test_sampling_a_gaussian_converges_to_its_probability_flow_in_first_order():
    x = 10 * latents()
    errors = halving_errors(lambda s: sample(denoise_gaussian, x, s), follow_gaussian(x, 10, 0))
    assert errors[-1] < 0.02
    for error, finer in zip(errors, errors[1:], strict=False):
        assert 1.6 < error / finer < 2.4


def test_inverting_a_gaussian_converges_to_its_probability_flow_in_first_order():
    x = MEAN + SPREAD * latents()
    errors = halving_errors(lambda s: invert(denoise_gaussian, x, s, SCHEDULE), follow_gaussian(x, 0, 10))
    assert errors[-1] < 0.015 * 10 * (x - MEAN).abs().max() / SPREAD
    for error, finer in zip(errors, errors[1:], strict=False):
        assert 1.6 < error / finer < 2.4


def test_sampling_ends_in_the_latent_of_a_single_one():
    only = latents(1)
    torch.testing.assert_close(sample(lambda x, sigma: only, 10 * latents(), even_sigmas(3)), only)


def test_noise_that_depends_on_nothing_makes_inversion_exact():
    noise, x = latents(1), latents(2)
    sigmas = ddim_sigmas(SIGMAS, 10)

    def denoise(x, sigma):
        return x - sigma * noise

    noisy = invert(denoise, x, sigmas, SCHEDULE)
    torch.testing.assert_close(noisy, x + sigmas[0] * noise)
    torch.testing.assert_close(sample(denoise, noisy, sigmas), x)


def test_invert_then_sample_returns_the_input_ever_better_with_more_steps():
    x = 0.3 * latents() + latents(1).sign()
    errors = []
    for steps in (5, 10, 20, 50, 100, 250, 500):
        sigmas = ddim_sigmas(SIGMAS, steps)
        again = sample(denoise_two_clusters, invert(denoise_two_clusters, x, sigmas, SCHEDULE), sigmas)
        errors.append((again - x).square().mean().sqrt().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.1
    assert errors[-1] < 0.002


def test_a_run_may_stop_and_go_on_anywhere():
    x, sigmas = 10 * latents(), even_sigmas(10)
    stopped = sample(denoise_gaussian, x, sigmas[:5])
    torch.testing.assert_close(
        sample(denoise_gaussian, stopped, sigmas[4:]), sample(denoise_gaussian, x, sigmas), rtol=0, atol=0
    )
    clean = latents(3)
    half = invert(denoise_gaussian, clean, sigmas[6:], SCHEDULE)
    torch.testing.assert_close(
        invert(denoise_gaussian, half, sigmas[:7], SCHEDULE),
        invert(denoise_gaussian, clean, sigmas, SCHEDULE),
        rtol=0,
        atol=0,
    )


@pytest.fixture
def network(small_unet):
    """A UNet in double precision as noise predictor (z_t, t) -> noise, and as a `Denoise`."""
    unet = small_unet.double()
    context = torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def predict(z, t):
        return unet(z, t, context.expand(len(z), -1, -1)).sample

    return predict, denoiser_of(unet, context, SIGMAS)


def test_sampling_equals_textbook_ddim(network):
    predict_noise, denoise = network
    z = start = latents()
    for t, t_next in zip(TIMESTEPS, [*TIMESTEPS[1:], None], strict=True):
        alpha, alpha_next = ALPHAS[t], 1.0 if t_next is None else ALPHAS[t_next]
        noise = predict_noise(z, t)
        z0 = (z - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        z = alpha_next**0.5 * z0 + (1 - alpha_next) ** 0.5 * noise
    result = sample(denoise, start / ALPHAS[981].sqrt(), ddim_sigmas(SIGMAS, 50))
    torch.testing.assert_close(result, z, rtol=0, atol=1e-6)
    assert (z - start).abs().max() > 1


def test_inversion_equals_the_textbook_loop(network):
    predict_noise, denoise = network
    z = clean = latents()
    alpha = 1.0
    for t_next in reversed(TIMESTEPS):
        alpha_next = ALPHAS[t_next]
        noise = predict_noise(z, t_next)  # the latent of the step before with the timestep of this one
        z0 = (z - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        z = alpha_next**0.5 * z0 + (1 - alpha_next) ** 0.5 * noise
        alpha = alpha_next
    result = invert(denoise, clean, ddim_sigmas(SIGMAS, 50), SCHEDULE)
    torch.testing.assert_close(result, z / ALPHAS[981].sqrt(), rtol=0, atol=1e-6)


CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_sampling_equals_diffusers_for_either_last_alpha(network, set_alpha_to_one):
    from diffusers import DDIMScheduler

    predict_noise, denoise = network
    scheduler = DDIMScheduler(**CONFIG, set_alpha_to_one=set_alpha_to_one)
    scheduler.set_timesteps(50)
    z = start = latents()
    for t in scheduler.timesteps:
        z = scheduler.step(predict_noise(z, t), t, z).prev_sample
    sigmas = ddim_sigmas(SIGMAS, 50, set_alpha_to_one)
    result = sample(denoise, start * SCHEDULE.scale(sigmas[0]), sigmas) / SCHEDULE.scale(sigmas[-1])
    torch.testing.assert_close(result, z, rtol=1e-5, atol=1e-5)  # diffusers keeps its alphas in float32


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
def test_inversion_equals_diffusers_for_either_last_alpha(network, set_alpha_to_one):
    from diffusers import DDIMInverseScheduler

    predict_noise, denoise = network
    scheduler = DDIMInverseScheduler(**CONFIG, set_alpha_to_one=set_alpha_to_one)
    scheduler.set_timesteps(50)
    z = clean = latents()
    for t in scheduler.timesteps:
        z = scheduler.step(predict_noise(z, t), t, z).prev_sample
    sigmas = ddim_sigmas(SIGMAS, 50, set_alpha_to_one)
    result = invert(denoise, clean * SCHEDULE.scale(sigmas[-1]), sigmas, SCHEDULE) / SCHEDULE.scale(sigmas[0])
    torch.testing.assert_close(result, z, rtol=1e-5, atol=1e-5)  # diffusers keeps its alphas in float32


def test_the_two_last_alphas_are_not_the_same(network):
    _, denoise = network
    clean, noises = latents(), []
    for set_alpha_to_one in (True, False):
        sigmas = ddim_sigmas(SIGMAS, 50, set_alpha_to_one)
        noises.append(invert(denoise, clean * SCHEDULE.scale(sigmas[-1]), sigmas, SCHEDULE) / SCHEDULE.scale(sigmas[0]))
    assert (noises[0] - noises[1]).abs().max() > 1e-3


def test_a_networks_inversion_samples_back_to_the_input(small_unet):
    small_unet.conv_out.weight.data *= 0.1  # an untrained network at full strength is no smooth function of sigma
    denoise = denoiser_of(small_unet, torch.ones(1, 5, 16), SIGMAS.float())
    x = latents().float()
    errors = []
    for steps in (5, 50):
        sigmas = ddim_sigmas(SIGMAS.float(), steps)
        errors.append((sample(denoise, invert(denoise, x, sigmas, SCHEDULE), sigmas) - x).abs().max().item())
    assert errors[0] > 2 * errors[1]
    assert errors[1] < 0.1


def inverting(denoise, x, sigmas, on_step=None):
    return invert(denoise, x, sigmas, SCHEDULE, on_step)


BOTH = pytest.mark.parametrize("loop", [sample, inverting], ids=["sample", "invert"])


@BOTH
def test_progress_counts_every_step_and_shows_the_estimate(loop):
    calls, estimates = [], []

    def denoise(x, sigma):
        estimates.append(denoise_gaussian(x, sigma))
        return estimates[-1]

    loop(denoise, latents(), even_sigmas(4), lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(call[2] is estimate for call, estimate in zip(calls, estimates, strict=True))


@BOTH
def test_an_exception_from_progress_ends_the_loop(loop):
    evaluations = []

    def denoise(x, sigma):
        evaluations.append(sigma)
        return x

    def cancel_at_two(step, total, x0):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop(denoise, latents(), even_sigmas(10), cancel_at_two)
    assert len(evaluations) == 2


@BOTH
def test_the_input_is_left_as_it_was(loop):
    x = latents()
    loop(denoise_gaussian, x, even_sigmas(3))
    torch.testing.assert_close(x, latents(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "sigmas", [[3.0, float("nan"), 0.0], [float("inf"), 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, -1.0], [1.0]]
)
def test_an_inversion_through_sigmas_that_do_not_fall_or_are_not_finite_is_refused(sigmas):
    with pytest.raises(InvalidInput, match="sigmas must be finite and fall"):
        invert(denoise_gaussian, latents(), torch.tensor(sigmas, dtype=torch.float64), SCHEDULE)


def test_an_inversion_that_becomes_infinite_is_refused_where_it_does():
    def overflowing(x, sigma):
        return x / 0 if sigma > 1 else denoise_gaussian(x, sigma)

    before = int((even_sigmas(10)[1:-1] <= 1).sum())
    with pytest.raises(InvalidInput, match=f"not finite after {before + 1} of 10 steps"):
        invert(overflowing, latents(), even_sigmas(10), SCHEDULE)
