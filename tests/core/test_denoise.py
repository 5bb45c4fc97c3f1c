import pytest
import torch

from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.models.unet import unet_denoiser
from morph_pack.morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, sigmas_of
from morph_tests.networks import denoiser_of

ALPHAS = alphas_cumprod()
SIGMAS = sigmas_of(ALPHAS)


def latents(rows=2, seed=1):
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def context(rows=1, seed=2):
    return torch.randn(rows, 5, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_true_output_gives_back_the_true_latent(prediction):
    x0, noise = latents(seed=3), latents(seed=4)
    alpha = ALPHAS[600]
    output = {"epsilon": noise, "v_prediction": alpha.sqrt() * noise - (1 - alpha).sqrt() * x0}[prediction]
    x = x0 + SIGMAS[600] * noise
    torch.testing.assert_close(
        VariancePreserving(SIGMAS, prediction).to_x0(x, output, SIGMAS[600]), x0, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("t", [1, 500, 981])
def test_x0_is_that_of_the_published_scheduler(prediction, t):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
    )
    scheduler.set_timesteps(50)
    z, output = latents(seed=5), latents(seed=6)
    expected = scheduler.step(output, t, z).pred_original_sample
    torch.testing.assert_close(
        VariancePreserving(SIGMAS, prediction).to_x0(z / ALPHAS[t].sqrt(), output, SIGMAS[t]),
        expected,
        rtol=1e-4,
        atol=1e-4,
    )


def test_epsilon_and_v_of_one_function_give_one_x0():
    x, sigma = latents(), torch.tensor(2.5)
    noise = torch.tanh(x)  # any function
    v = (noise - sigma * (x - sigma * noise)) / (sigma**2 + 1) ** 0.5  # sqrt(ᾱ)·noise − sqrt(1 − ᾱ)·x0
    torch.testing.assert_close(
        VariancePreserving(SIGMAS, "epsilon").to_x0(x, noise, sigma),
        VariancePreserving(SIGMAS, "v_prediction").to_x0(x, v, sigma),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("prediction", ["sample", "flow_prediction", ""])
def test_other_predictions_are_refused_by_name(prediction):
    with pytest.raises(UnsupportedModel, match=f"{prediction!r}"):
        VariancePreserving(SIGMAS, prediction)


@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_the_unet_sees_the_variance_preserving_latent_and_its_timestep(unet, t):
    z = latents()
    rows = context(2)
    noise = unet(z, t, rows).sample
    expected = (z - (1 - ALPHAS[t]).sqrt() * noise) / ALPHAS[t].sqrt()  # eq. 9 of the DDIM paper
    x0 = denoiser_of(unet, rows, SIGMAS)(z / ALPHAS[t].sqrt(), SIGMAS[t])
    torch.testing.assert_close(x0, expected, rtol=1e-4, atol=1e-4)


def test_v_prediction_is_read_as_such(unet):
    z, t = latents(), 700
    v = unet(z, t, context(2)).sample
    expected = ALPHAS[t].sqrt() * z - (1 - ALPHAS[t]).sqrt() * v
    x0 = denoiser_of(unet, context(2), SIGMAS, "v_prediction")(z / ALPHAS[t].sqrt(), SIGMAS[t])
    torch.testing.assert_close(x0, expected, rtol=1e-4, atol=1e-4)


def test_one_context_serves_every_row(unet):
    x, one = latents(3), context(1)
    shared = denoiser_of(unet, one, SIGMAS)(x, SIGMAS[500])
    repeated = denoiser_of(unet, one.repeat(3, 1, 1), SIGMAS)(x, SIGMAS[500])
    torch.testing.assert_close(shared, repeated)


def test_every_row_has_its_own_context(unet):
    x, rows = latents(1).repeat(2, 1, 1, 1), context(2)
    both = denoiser_of(unet, rows, SIGMAS)(x, SIGMAS[500])
    for i in range(2):
        alone = denoiser_of(unet, rows[i : i + 1], SIGMAS)(x[:1], SIGMAS[500])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-4, atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 0.1


@pytest.mark.parametrize(("share", "timestep"), [(0.3, 500), (0.7, 501)])
def test_a_sigma_between_two_timesteps_has_the_nearer_one(unet, share, timestep):
    """With its own sigma in every scaling, as KSampler has it."""
    x, rows = latents(), context(2)
    sigma = SIGMAS[500] ** (1 - share) * SIGMAS[501] ** share
    x0 = denoiser_of(unet, rows, SIGMAS)(x, sigma)
    for whole in (500, 501):
        own = x - sigma * unet(x / (sigma**2 + 1).sqrt(), whole, rows).sample
        if whole == timestep:
            torch.testing.assert_close(x0, own, rtol=0, atol=1e-5)
        else:
            assert (x0 - own).abs().max() > 1e-2


def test_half_precision_networks_leave_the_latents_in_single_precision(unet):
    x = latents()
    expected = denoiser_of(unet, context(), SIGMAS)(x, SIGMAS[200])
    x0 = denoiser_of(unet.to(torch.bfloat16), context(), SIGMAS)(x, SIGMAS[200])
    assert x0.dtype == torch.float32
    assert (x0 - expected).abs().max() < 0.05
    # x itself must not have been rounded to the network's 8 bits: at sigma 0 the estimate is x
    tiny = torch.tensor(1e-4)
    torch.testing.assert_close(denoiser_of(unet, context(), SIGMAS)(x, tiny), x, rtol=0, atol=1e-3)


def test_added_conditions_reach_the_unet(make_unet):
    sdxl = make_unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=8 * 6 + 16
    )
    x = latents()
    pooled, sizes = torch.randn(2, 16), torch.arange(12.0).reshape(2, 6)
    added = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    noise = sdxl(x / (SIGMAS[500] ** 2 + 1).sqrt(), 500, context(2), **added).sample
    x0 = denoiser_of(sdxl, context(2), SIGMAS, added=added)(x, SIGMAS[500])
    torch.testing.assert_close(x0, x - SIGMAS[500] * noise, rtol=1e-4, atol=1e-4)
    schedule = VariancePreserving(SIGMAS)
    as_text = unet_denoiser(sdxl, Text(context(2), pooled, sizes), schedule)
    torch.testing.assert_close(as_text(x, SIGMAS[500]), x0)
    one = unet_denoiser(sdxl, Text(context(2)[:1], pooled[:1], sizes[:1]), schedule)(x, SIGMAS[500])
    torch.testing.assert_close(one[0], x0[0], rtol=1e-4, atol=1e-4)  # of one row, for all
    assert (one[1] - x0[1]).abs().max() > 1e-2
    changed = {**added["added_cond_kwargs"], "text_embeds": torch.ones(2, 16)}
    other = denoiser_of(sdxl, context(2), SIGMAS, added={"added_cond_kwargs": changed})
    assert (other(x, SIGMAS[500]) - x0).abs().max() > 1e-2
