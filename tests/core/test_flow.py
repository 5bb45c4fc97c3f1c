"""Flow matching in closed form: Gaussian latents, whose exact velocity and exact paths are known."""

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.schedule import FlowMatching, flow_sigmas

MEAN, DEVIATION = 0.7, 0.4
SCHEDULE = FlowMatching(torch.linspace(0.001, 1, 1000, dtype=torch.float64))


def latents(seed=0):
    return torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def denoise_gaussian(x, sigma):
    """The exact posterior mean of latents of N(MEAN, DEVIATION²) under (1 − sigma)·x0 + sigma·noise."""
    keep = 1 - sigma
    variance = keep**2 * DEVIATION**2 + sigma**2
    return MEAN + keep * DEVIATION**2 / variance * (x - keep * MEAN)


def spread(sigma):
    return ((1 - sigma) ** 2 * DEVIATION**2 + sigma**2) ** 0.5


def on_path(x, start, end):
    """Where the probability flow takes x from one sigma to another: deviations from the mean keep their share."""
    return (1 - end) * MEAN + (x - (1 - start) * MEAN) * (spread(end) / spread(start))


def errors_as_steps_double(solve, exact):
    return [float((solve(flow_sigmas(steps).double()) - exact).abs().max()) for steps in (25, 50, 100, 200)]


def test_sampling_meets_the_exact_solution_with_first_order():
    noise = latents()
    errors = errors_as_steps_double(
        lambda sigmas: ddim.sample(denoise_gaussian, noise, sigmas),
        on_path(noise, torch.tensor(1.0), torch.tensor(0.0)),
    )
    assert errors[0] < 0.1
    assert all(1.8 < a / b < 2.2 for a, b in zip(errors, errors[1:], strict=False))


def test_inversion_meets_the_exact_solution_with_first_order():
    image = MEAN + DEVIATION * latents(1)
    errors = errors_as_steps_double(
        lambda sigmas: ddim.invert(denoise_gaussian, image, sigmas, SCHEDULE),
        on_path(image, torch.tensor(0.0), torch.tensor(1.0)),
    )
    assert errors[0] < 0.5
    assert all(1.7 < a / b < 2.3 for a, b in zip(errors, errors[1:], strict=False))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_with_fixed_point_iterations_sampling_leads_back(shift):
    image, sigmas = MEAN + DEVIATION * latents(1), flow_sigmas(20, shift).double()
    backs = [
        ddim.sample(denoise_gaussian, ddim.invert(denoise_gaussian, image, sigmas, SCHEDULE, None, n), sigmas)
        for n in (0, 3, 60)
    ]
    errors = [float((back - image).abs().max()) for back in backs]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-9 < errors[0]


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_warm_start_makes_the_way_back_second_order(warm_start):
    image, calls = MEAN + DEVIATION * latents(1), []

    def counted(x, sigma):
        calls.append(sigma)
        return denoise_gaussian(x, sigma)

    def there_and_back(sigmas):
        noise = ddim.invert(counted, image, sigmas, SCHEDULE, warm_start=warm_start)
        assert len(calls) == len(sigmas) - 1
        calls.clear()
        return ddim.sample(denoise_gaussian, noise, sigmas)

    errors = errors_as_steps_double(there_and_back, image)
    factor = 4 if warm_start else 2
    assert all(0.85 * factor < a / b < 1.15 * factor for a, b in zip(errors, errors[1:], strict=False))


def test_a_trusting_warm_start_is_uni_inv(monkeypatch):
    """The paper's predictor and corrector, from a first step with no predictor."""
    monkeypatch.setattr(ddim, "STEADY", float("inf"))
    monkeypatch.setattr(ddim, "UNKNOWN", 1.0)
    x = image = MEAN + DEVIATION * latents(1)
    rising, velocity = flow_sigmas(8).double().flip(0), torch.zeros_like(x)
    for here, there in zip(rising[:-1], rising[1:], strict=True):
        point = x + (there - here) * velocity
        velocity = (point - denoise_gaussian(point, there)) / there
        x = x + (there - here) * velocity
    inverted = ddim.invert(denoise_gaussian, image, rising.flip(0), SCHEDULE, warm_start=True)
    torch.testing.assert_close(inverted, x)


def test_a_noised_latent_is_denoised_by_its_own_velocity():
    x0, noise, sigma = latents(), latents(1), torch.tensor(0.3, dtype=torch.float64)
    x = SCHEDULE.noised(x0, noise, sigma)
    torch.testing.assert_close(SCHEDULE.to_x0(x, noise - x0, sigma), x0)
    change = SCHEDULE.to_x0(x, noise - x0 + 1, sigma) - x0
    torch.testing.assert_close(change.abs() * SCHEDULE.error_scale(sigma), torch.ones_like(x0))


def test_a_shift_moves_sigmas_as_published():
    """Esser et al., eq. 23, for the square root of m/n = shift."""
    for t, shifted in zip(flow_sigmas(4), flow_sigmas(4, 3.0), strict=True):
        assert float(shifted) == pytest.approx(float(3 * t / (1 + 2 * t)))
    assert flow_sigmas(4).tolist() == [1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize(("steps", "shift"), [(0, 1.0), (4, 0.0), (4, float("nan"))])
def test_impossible_spacings_are_refused(steps, shift):
    with pytest.raises(InvalidInput, match="steps must be 1 or more and shift above 0"):
        flow_sigmas(steps, shift)
