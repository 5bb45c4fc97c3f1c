import pytest
import torch

from morph_pack.morph_core.denoise import unet_denoiser
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.schedule import alphas_cumprod, ddim_sigmas, sigmas_of
from morph_pack.morph_core.sampling.trajectory import Trajectory, put_back, x0_leading_to

SIGMAS = sigmas_of(alphas_cumprod().double())


def latents(rows=2, seed=0):
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def denoise_two_clusters(x, sigma):
    """The exact denoiser of latents in equal shares around −1 and 1, with spread 0.3."""
    variance = 0.3**2 + sigma**2
    centre = torch.tanh(x / variance)
    return centre + 0.3**2 / variance * (x - centre)


@pytest.fixture
def denoise(small_unet):
    context = torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return unet_denoiser(small_unet.double(), context, SIGMAS)


@torch.no_grad()
def test_the_trajectory_is_every_latent_from_the_noise_to_the_image(denoise):
    x, sigmas = latents(), ddim_sigmas(SIGMAS, 5)
    way = ddim.trace(denoise, x, sigmas)
    assert way.latents.shape == (6, 2, 4, 8, 8) and torch.equal(way.sigmas, sigmas)
    assert torch.equal(way.latents[-1], x) and torch.equal(way.noise, way.latents[0])
    assert len(way.residuals) == 0
    for i in range(5):
        torch.testing.assert_close(ddim.invert(denoise, x, sigmas[i:]), way.latents[i])


@torch.no_grad()
@pytest.mark.parametrize("iterations", [1, 3])
def test_an_iteration_evaluates_the_noise_at_the_point_it_led_to(denoise, iterations):
    """Written out for one step from a latent without noise to sigma."""
    x, sigmas = latents(), SIGMAS[[400]]
    sigma = sigmas[0]
    point = x * (sigma**2 + 1) ** 0.5
    points = []
    for _ in range(iterations + 1):
        noise = (point - denoise(point, sigma)) / sigma
        point = x + sigma * noise
        points.append(point)
    way = ddim.trace(denoise, x, torch.cat([sigmas, sigmas.new_zeros(1)]), iterations=iterations)
    torch.testing.assert_close(way.noise, points[-1])
    moved = (points[-1] - points[-2]).square().mean().sqrt() / (sigma**2 + 1) ** 0.5
    torch.testing.assert_close(way.residuals, moved[None])


def way_back(denoise, way):
    """Every latent of sampling from the trajectory's noise."""
    seen = [way.noise]

    def keep(step, x):
        seen.append(x)
        return x

    ddim.sample(denoise, way.noise, way.sigmas, adjust=keep)
    return torch.stack(seen)


@torch.no_grad()
def test_where_the_iterations_converge_sampling_goes_the_same_way_back(denoise):
    x, sigmas = latents(), ddim_sigmas(SIGMAS, 10)
    errors, residuals = [], []
    for iterations in (0, 1, 3, 8, 60):
        way = ddim.trace(denoise, x, sigmas, iterations=iterations)
        errors.append(float((way_back(denoise, way) - way.latents).abs().max()))
        residuals += [float(way.residuals.max())] if iterations else []
    assert errors == sorted(errors, reverse=True) and residuals == sorted(residuals, reverse=True)
    assert errors[0] > 0.01 and errors[-1] < 1e-9 and residuals[-1] < 1e-10


def test_a_negative_number_of_iterations_is_refused():
    with pytest.raises(InvalidInput, match="must be 0 or more, got -1"):
        ddim.trace(denoise_two_clusters, latents(), SIGMAS[[400]], iterations=-1)


@torch.no_grad()
def test_put_back_makes_the_source_exact_and_leaves_the_other_rows_alone(denoise):
    sigmas = ddim_sigmas(SIGMAS, 5)
    ways = [ddim.trace(denoise, latents(1, seed), sigmas) for seed in (1, 2)]
    x = torch.cat([ways[0].noise, 14 * latents(1, 3), ways[1].noise])
    pins = {0: ways[0], 2: ways[1]}
    seen = []

    def adjust(step, x):
        result = put_back(x, pins, step)
        seen.append(result)
        return result

    pinned = ddim.sample(denoise, x, sigmas, adjust=adjust)
    plain = ddim.sample(denoise, x, sigmas)
    assert torch.equal(pinned[1], plain[1])
    assert torch.equal(pinned[[0, 2]], torch.cat([way.latents[-1] for way in ways]))
    assert (plain[[0, 2]] - pinned[[0, 2]]).abs().max() > 0.01
    for step, rows in enumerate(seen):
        assert torch.equal(rows[0], ways[0].latents[step + 1, 0])


@pytest.mark.parametrize(("sigma", "next_sigma"), [(14.6, 12.0), (1.0, 0.9), (0.5, 0.0)])
def test_a_step_leads_where_its_x0_says(sigma, next_sigma):
    x, target = latents(1, 1), latents(1, 2)
    sigmas = torch.tensor([sigma, next_sigma], dtype=torch.float64)
    x0 = x0_leading_to(target, x, *sigmas)
    torch.testing.assert_close(ddim.sample(lambda *_: x0, x, sigmas), target)


def test_the_step_at_a_sigma():
    way = Trajectory(torch.zeros(4, 1, 4, 8, 8), torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.zeros(0))
    assert [way.step_at(torch.tensor(sigma)) for sigma in (3.0, 2.00001, 1.0)] == [0, 1, 2]
    for sigma in (3.1, 2.01, 0.0):
        with pytest.raises(InvalidInput, match=r"no step at sigma .* 3 from 3.0000; sample with the scheduler, steps"):
            way.step_at(torch.tensor(sigma))


def test_a_step_is_the_trajectorys_only_if_it_leads_to_the_next_sigma():
    sigmas = ddim_sigmas(SIGMAS, 10)
    way = Trajectory(torch.zeros(11, 1, 4, 8, 8), sigmas, torch.zeros(0))
    assert [way.step_between(sigmas[i], sigmas[i + 1]) for i in range(10)] == list(range(10))
    every_other = ddim_sigmas(SIGMAS, 5)
    for start, end in ((sigmas[0], sigmas[2]), (sigmas[3], sigmas.new_zeros(())), (every_other[0], every_other[1])):
        with pytest.raises(InvalidInput, match="scheduler, steps and start_at_step of the inversion"):
            way.step_between(start, end)
