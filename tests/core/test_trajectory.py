import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.direct_inversion import DirectInversion
from morph_pack.morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, ddim_sigmas, sigmas_of
from morph_pack.morph_core.sampling.trajectory import Trajectory, strided
from morph_tests.networks import denoiser_of

SIGMAS = sigmas_of(alphas_cumprod().double())
SCHEDULE = VariancePreserving(SIGMAS)


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
    return denoiser_of(small_unet.double(), context, SIGMAS)


@torch.no_grad()
def test_the_trajectory_is_every_latent_from_the_noise_to_the_image(denoise):
    x, sigmas = latents(), ddim_sigmas(SIGMAS, 5)
    way = ddim.trace(denoise, x, sigmas, SCHEDULE)
    assert way.latents.shape == (6, 2, 4, 8, 8) and torch.equal(way.sigmas, sigmas)
    assert torch.equal(way.latents[-1], x) and torch.equal(way.noise, way.latents[0])
    assert len(way.residuals) == 0
    for i in range(5):
        torch.testing.assert_close(ddim.invert(denoise, x, sigmas[i:], SCHEDULE), way.latents[i])


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
    way = ddim.trace(denoise, x, torch.cat([sigmas, sigmas.new_zeros(1)]), SCHEDULE, iterations=iterations)
    torch.testing.assert_close(way.noise, points[-1])
    moved = (points[-1] - points[-2]).square().mean().sqrt() / (sigma**2 + 1) ** 0.5
    torch.testing.assert_close(way.residuals, moved[None])


@torch.no_grad()
def test_a_warm_start_leads_each_row_on_as_far_as_its_velocity_was_steady():
    """Of three rows, whose velocity turns around at every step, grows by a quarter of its length, and stays."""
    sigmas = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    noise, seen = latents(1, 5), []

    def lengths(step):
        return torch.tensor([(-1.0) ** step, 0.75**-step, 1.0], dtype=torch.float64)[:, None, None, None]

    def denoise(x, sigma):
        seen.append(x)
        return x - sigma * lengths(len(seen) - 1) * noise

    way = ddim.trace(denoise, latents(3), sigmas, SCHEDULE, warm_start=True)
    rising = sigmas.flip(0)
    for step, trust in enumerate([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 1], [0, 0.5, 1]]):
        here, there, x = rising[step], rising[step + 1], way.latents[-1 - step]
        start = x * SCHEDULE.scale(there) / SCHEDULE.scale(here)
        led_on = x + (there - here) * lengths(step - 1) * noise
        weights = torch.tensor(trust, dtype=torch.float64)[:, None, None, None]
        torch.testing.assert_close(seen[step], torch.lerp(start, led_on, weights))


@torch.no_grad()
def test_a_warm_start_from_no_velocity_at_all_is_finite():
    way = ddim.trace(lambda x, sigma: x, latents(), ddim_sigmas(SIGMAS, 5), SCHEDULE, warm_start=True)
    assert torch.equal(way.noise, latents())


@pytest.mark.slow
@torch.no_grad()
def test_a_warm_start_leads_to_the_same_fixed_point(denoise):
    x, sigmas = latents(), ddim_sigmas(SIGMAS, 10)
    cold, warm = (
        ddim.trace(denoise, x, sigmas, SCHEDULE, iterations=30, warm_start=warm).latents for warm in (False, True)
    )
    torch.testing.assert_close(warm, cold, rtol=0, atol=1e-6)


def way_back(denoise, way):
    """Every latent of sampling from the trajectory's noise."""
    seen = []

    def keep(x0, x, sigma, next_sigma):
        seen.append(x)
        return x0

    end = ddim.sample(denoise, way.noise, way.sigmas, corrections=[keep])
    return torch.stack([*seen, end])


@pytest.mark.slow
@torch.no_grad()
def test_where_the_iterations_converge_sampling_goes_the_same_way_back(denoise):
    x, sigmas = latents(), ddim_sigmas(SIGMAS, 10)
    errors, residuals = [], []
    for iterations in (0, 1, 3, 8, 60):
        way = ddim.trace(denoise, x, sigmas, SCHEDULE, iterations=iterations)
        errors.append(float((way_back(denoise, way) - way.latents).abs().max()))
        residuals += [float(way.residuals.max())] if iterations else []
    assert errors == sorted(errors, reverse=True) and residuals == sorted(residuals, reverse=True)
    assert errors[0] > 0.01 and errors[-1] < 1e-9 and residuals[-1] < 1e-10


def test_a_negative_number_of_iterations_is_refused():
    with pytest.raises(InvalidInput, match="must be 0 or more, got -1"):
        ddim.trace(denoise_two_clusters, latents(), SIGMAS[[400]], SCHEDULE, iterations=-1)


@torch.no_grad()
def test_direct_inversion_makes_its_rows_exact_and_leaves_the_others_alone(denoise):
    sigmas = ddim_sigmas(SIGMAS, 5)
    ways = [ddim.trace(denoise, latents(1, seed), sigmas, SCHEDULE) for seed in (1, 2)]
    x = torch.cat([ways[0].noise, 14 * latents(1, 3), ways[1].noise])
    seen = []

    def keep(x0, x, sigma, next_sigma):
        seen.append(x)
        return x0

    corrections = [DirectInversion({0: ways[0], 2: ways[1]}), keep]
    pinned = ddim.sample(denoise, x, sigmas, corrections=corrections)
    plain = ddim.sample(denoise, x, sigmas)
    assert torch.equal(pinned[1], plain[1])
    assert torch.equal(pinned[[0, 2]], torch.cat([way.latents[-1] for way in ways]))
    assert (plain[[0, 2]] - pinned[[0, 2]]).abs().max() > 0.01
    for step, rows in enumerate(seen):
        torch.testing.assert_close(rows[0], ways[0].latents[step, 0], rtol=0, atol=1e-12)


@torch.no_grad()
def test_free_cells_go_where_they_would_without_direct_inversion(denoise):
    """In one step, before they see what is pinned beside them."""
    sigmas = ddim_sigmas(SIGMAS, 5)
    trajectory = ddim.trace(denoise, latents(1, 1), sigmas, SCHEDULE)
    free = torch.zeros(8, 8, dtype=torch.bool)
    free[:, :3] = True
    x, first = 14 * latents(2, 3), sigmas[:2]
    held = ddim.sample(denoise, x, first, corrections=[DirectInversion({1: trajectory}, free)])
    plain = ddim.sample(denoise, x, first)
    assert torch.equal(held[1, :, :, :3], plain[1, :, :, :3]) and torch.equal(held[0], plain[0])
    torch.testing.assert_close(held[1, :, :, 3:], trajectory.latents[1, 0, :, :, 3:], rtol=0, atol=1e-12)


def test_the_drift_is_the_distance_in_what_the_network_sees():
    sigmas = torch.tensor([3.0, 1.0, 0.0], dtype=torch.float64)
    trajectory = Trajectory(torch.zeros(3, 1, 4, 8, 8, dtype=torch.float64), sigmas, torch.zeros(0), SCHEDULE)
    x, cells = torch.zeros(4, 8, 8, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.bool)
    x[:, 0] = 0.5
    cells[0] = True
    assert float(trajectory.drift(x, sigmas[0], cells)) == pytest.approx(0.5 / 10**0.5)
    assert float(trajectory.drift(x, sigmas[2])) == pytest.approx(0.5 / 8**0.5)
    assert float(trajectory.drift(x, sigmas[0], ~cells)) == 0


@pytest.mark.parametrize(("sigma", "next_sigma"), [(14.6, 12.0), (1.0, 0.9), (0.5, 0.0)])
def test_a_step_leads_where_its_x0_says(sigma, next_sigma):
    x, target = latents(1, 1), latents(1, 2)
    sigmas = torch.tensor([sigma, next_sigma], dtype=torch.float64)
    x0 = ddim.x0_leading_to(target, x, *sigmas)
    torch.testing.assert_close(ddim.sample(lambda *_: x0, x, sigmas), target)


def test_the_step_at_a_sigma():
    way = Trajectory(torch.zeros(4, 1, 4, 8, 8), torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.zeros(0), SCHEDULE)
    assert [way.step_at(torch.tensor(sigma)) for sigma in (3.0, 2.00001, 1.0)] == [0, 1, 2]
    for sigma in (3.1, 2.01, 0.0):
        with pytest.raises(InvalidInput, match=r"no step at sigma .* 3 from 3.0000; sample with the scheduler, steps"):
            way.step_at(torch.tensor(sigma))


def test_a_step_is_the_trajectorys_only_if_it_leads_to_the_next_sigma():
    sigmas = ddim_sigmas(SIGMAS, 10)
    way = Trajectory(torch.zeros(11, 1, 4, 8, 8), sigmas, torch.zeros(0), SCHEDULE)
    assert [way.step_between(sigmas[i], sigmas[i + 1]) for i in range(10)] == list(range(10))
    every_other = ddim_sigmas(SIGMAS, 5)
    for start, end in ((sigmas[0], sigmas[2]), (sigmas[3], sigmas.new_zeros(())), (every_other[0], every_other[1])):
        with pytest.raises(InvalidInput, match="scheduler, steps and start_at_step of the inversion"):
            way.step_between(start, end)


@pytest.mark.parametrize(
    ("steps", "stride", "points"),
    [
        (5, 1, [0, 1, 2, 3, 4, 5]),
        (5, 2, [0, 2, 4, 5]),
        (4, 2, [0, 2, 4]),
        (5, 3, [0, 3, 5]),
        (5, 5, [0, 5]),
        (5, 9, [0, 5]),
        (1, 1, [0, 1]),
    ],
)
def test_every_stride_th_point_and_the_last(steps, stride, points):
    assert strided(steps, stride) == points
    sigmas = torch.linspace(3, 0, steps + 1, dtype=torch.float64)
    way = Trajectory(torch.stack([latents(2, seed) for seed in range(steps + 1)]), sigmas, torch.zeros(0), SCHEDULE)
    fewer = way.every(stride)
    assert torch.equal(fewer.sigmas, sigmas[points]) and torch.equal(fewer.latents, way.latents[points])
    assert torch.equal(fewer.latents[-1], way.latents[-1]) and torch.equal(fewer.noise, way.noise)
    assert fewer.schedule is SCHEDULE and len(way.sigmas) == steps + 1


@torch.no_grad()
def test_a_row_is_the_way_of_that_latent_alone(denoise):
    x, sigmas = latents(3), ddim_sigmas(SIGMAS, 5)
    together = ddim.trace(denoise, x, sigmas, SCHEDULE)
    for row in range(3):
        own, alone = together.row(row), ddim.trace(denoise, x[row : row + 1], sigmas, SCHEDULE)
        assert own.latents.shape == (6, 1, 4, 8, 8) and torch.equal(own.sigmas, sigmas)
        torch.testing.assert_close(own.latents, alone.latents)


@torch.no_grad()
def test_all_rows_are_held_to_one_image_outside_of_what_is_free(denoise):
    sigmas = ddim_sigmas(SIGMAS, 5)
    trajectory = ddim.trace(denoise, latents(1, 1), sigmas, SCHEDULE)
    free = torch.zeros(8, 8, dtype=torch.bool)
    free[2:5, :3] = True
    x = torch.cat([trajectory.noise, 14 * latents(2, 3)])
    held = ddim.sample(denoise, x, sigmas, corrections=[DirectInversion(dict.fromkeys(range(3), trajectory), free)])
    away = (held - trajectory.latents[-1]).abs().amax(1)
    assert away[:, ~free].max() < 1e-12 and away[1:, free].min() > 1e-3


def test_the_drift_of_a_videos_latent_is_that_of_all_its_frames():
    sigmas = torch.tensor([3.0, 0.0], dtype=torch.float64)
    trajectory = Trajectory(torch.zeros(2, 1, 4, 3, 8, 8, dtype=torch.float64), sigmas, torch.zeros(0), SCHEDULE)
    x, cells = torch.zeros(4, 3, 8, 8, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.bool)
    x[:, 1, 0], cells[0] = 0.6, True
    assert float(trajectory.drift(x, sigmas[1], cells)) == pytest.approx(0.6 / 3**0.5)
    assert float(trajectory.drift(x, sigmas[1], ~cells)) == 0
