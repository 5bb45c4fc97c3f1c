from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.guidance import guided_denoiser
from morph_pack.morph_core.sampling.null_text import NullText, null_text_denoiser, null_text_inversion
from morph_pack.morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, ddim_sigmas, sigmas_of
from morph_tests.networks import denoiser_of

TRAIN_SIGMAS = sigmas_of(alphas_cumprod())
SCHEDULE = VariancePreserving(TRAIN_SIGMAS)
SIGMAS = ddim_sigmas(TRAIN_SIGMAS, 4)
GUIDANCE = 5.0


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


POSITIVE, NEGATIVE = normal(2, 5, 16, seed=3), normal(1, 5, 16, seed=4)


@pytest.fixture
def unet(small_unet):
    return small_unet.requires_grad_(False)


@pytest.fixture
def way(unet):
    with torch.no_grad():
        return ddim.trace(denoiser_of(unet, POSITIVE, TRAIN_SIGMAS), normal(2, 4, 8, 8), SIGMAS, SCHEDULE)


def of(unet):
    return lambda embedding: denoiser_of(unet, embedding, TRAIN_SIGMAS)


def optimise(unet, way, negative=NEGATIVE, positive=POSITIVE, on_step=None, **settings):
    config = NullText(**{"guidance": GUIDANCE, "learning_rate": 0.1, "early_stop": 1e-9, **settings})
    return null_text_inversion(of(unet)(positive), of(unet), negative, way, config, on_step)


@torch.no_grad()
def guided_end(unet, way, embeddings):
    """Guided DDIM from the noise, with an embedding a step."""
    unconditional = null_text_denoiser(of(unet), embeddings, SIGMAS)
    denoise = guided_denoiser(unconditional, of(unet)(POSITIVE), GUIDANCE)
    return ddim.sample(denoise, way.noise, SIGMAS)


def published(unet, way, steps, rate, negative):
    """The same optimisation written out in z_t for one image, without early stop."""
    abar = [1 / (1 + sigma**2) for sigma in SIGMAS]
    z_of = [a.sqrt() * x[:1] for a, x in zip(abar, way.latents, strict=True)]
    z, embedding, found = z_of[0], negative.clone(), []

    def predict(z, i, context):
        timestep = (TRAIN_SIGMAS - SIGMAS[i]).abs().argmin()
        return unet(z, timestep, context).sample

    def previous(z, i, noise):
        clean = (z - (1 - abar[i]).sqrt() * noise) / abar[i].sqrt()
        return abar[i + 1].sqrt() * clean + (1 - abar[i + 1]).sqrt() * noise

    for i in range(len(SIGMAS) - 1):
        embedding = embedding.clone().detach().requires_grad_()
        optimiser = torch.optim.Adam([embedding], lr=rate * (1 - i / 100))
        conditional = predict(z, i, POSITIVE[:1]).detach()
        for _ in range(steps):
            unconditional = predict(z, i, embedding)
            loss = (
                (previous(z, i, unconditional + GUIDANCE * (conditional - unconditional)) - z_of[i + 1]).square().mean()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found.append((embedding.detach(), loss.item()))
        with torch.no_grad():
            unconditional = predict(z, i, embedding)
            z = previous(z, i, unconditional + GUIDANCE * (conditional - unconditional))
    return found


def test_it_is_the_published_optimisation(unet, way):
    """The reference works in z_t; images of a batch do not know of each other."""
    result = optimise(unet, way, inner_steps=3, early_stop=1e-12)
    for i, (embedding, loss) in enumerate(published(unet, way, 3, 0.1, NEGATIVE)):
        torch.testing.assert_close(result.embeddings[i, :1], embedding, rtol=0, atol=1e-4)
        assert float(result.losses[i, 0]) == pytest.approx(loss, rel=1e-3)


@torch.no_grad()
def test_it_needs_no_gradients_of_its_caller(unet, way):
    assert (optimise(unet, way).embeddings - NEGATIVE).abs().max() > 0.01


def test_guided_sampling_follows_the_trajectory_better(unet, way):
    before = guided_end(unet, way, [NEGATIVE] * 4)
    after = guided_end(unet, way, optimise(unet, way, inner_steps=20).embeddings)
    target = way.latents[-1]
    assert (after - target).square().mean() < 0.3 * (before - target).square().mean()


def test_guidance_1_leaves_nothing_to_optimise(unet, way):
    """The unconditional prediction has no part in it: no gradient, and Adam stands still."""
    result = optimise(unet, way, guidance=1.0, early_stop=1e-12)
    torch.testing.assert_close(result.embeddings, NEGATIVE.expand(4, 2, 5, 16))


def test_a_row_stops_once_its_loss_is_small_enough(unet, way):
    """Below early_stop·(1 + 2·step), checked before the update that is its last."""
    free = optimise(unet, way, inner_steps=6, early_stop=1e-12)
    enough = float(free.losses[0].mean())  # between the two rows' losses
    stopped = optimise(unet, way, inner_steps=6, early_stop=enough)
    assert stopped.updates < free.updates == 4 * 6
    assert (stopped.losses[0] < enough).any()
    once = optimise(unet, way, inner_steps=6, early_stop=1e9)
    assert once.updates == 4
    single = optimise(unet, way, inner_steps=1)
    torch.testing.assert_close(once.embeddings, single.embeddings)


@pytest.mark.slow
def test_a_row_that_stopped_stays_while_others_go_on(unet, way):
    alone = [
        optimise(
            unet, type(way)(way.latents[:, i : i + 1], SIGMAS, way.residuals, SCHEDULE), positive=POSITIVE[i : i + 1]
        )
        for i in range(2)
    ]
    enough = float(torch.stack([result.losses[0, 0] for result in alone]).mean())
    settings = {"inner_steps": 10, "early_stop": enough}
    together = optimise(unet, way, **settings)
    for i in range(2):
        single = optimise(
            unet,
            replace(way, latents=way.latents[:, i : i + 1]),
            positive=POSITIVE[i : i + 1],
            **settings,
        )
        torch.testing.assert_close(together.embeddings[0, i], single.embeddings[0, 0], rtol=0, atol=1e-4)


def test_the_budget_ends_the_updates(unet, way):
    full, part = optimise(unet, way, inner_steps=3), optimise(unet, way, inner_steps=3, budget=4)
    assert (full.updates, part.updates) == (12, 4)
    torch.testing.assert_close(part.embeddings[0], full.embeddings[0])
    for i in (2, 3):
        assert torch.equal(part.embeddings[i], part.embeddings[1])
        assert part.losses[i].isinf().all()


def test_progress_counts_updates_and_skips_those_not_needed(unet, way):
    seen = []
    optimise(unet, way, inner_steps=2, budget=5, on_step=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5, 6, 8] and {total for _, total in seen} == {8}


def test_an_exception_from_progress_ends_it(unet, way):
    def cancel(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimise(unet, way, on_step=cancel)
    assert not any(parameter.requires_grad for parameter in unet.parameters())


@pytest.mark.parametrize("setting", [{"inner_steps": 0}, {"learning_rate": 0.0}, {"budget": -1}])
def test_impossible_settings_are_refused(setting):
    with pytest.raises(InvalidInput, match=f"{next(iter(setting))} must be"):
        NullText(**setting)


def test_a_prediction_that_is_not_finite_is_refused(unet, way):
    with pytest.raises(InvalidInput, match="not finite after 1 updates of a step: lower learning_rate"):
        optimise(unet, way, inner_steps=2, learning_rate=float("inf"))
