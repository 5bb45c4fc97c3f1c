"""The recipe, on random networks, against DiffMorpher written out with merged LoRAs and attention processors."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.models.unet import unet_denoiser
from morph_pack.morph_core.morphing.adain import adain
from morph_pack.morph_core.morphing.alphas import alpha_schedule, reschedule_alphas
from morph_pack.morph_core.morphing.perceptual import perceptual_distances
from morph_pack.morph_core.morphing.slerp import slerp
from morph_pack.morph_core.recipes.keyframe import keyframes_of
from morph_pack.morph_core.recipes.morph import morph, morph_prepared
from morph_pack.morph_core.recipes.morph_frames import MorphFrames
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.schedule import ddim_sigmas
from morph_tests.core.morphs import (
    ALPHAS,
    CAPTIONS,
    FULL,
    PLAIN,
    picture,
    small_model,
    two_ends,
)


@pytest.fixture(params=["epsilon"])
def model(request, make_unet):
    return small_model(make_unet, request.param)


@pytest.fixture
def ends(model, random_lora):
    return two_ends(model, random_lora)


def without_loras(ends):
    return tuple(replace(end, lora={}) for end in ends)


def schedule(model, steps=5):
    train_sigmas = model.backbone.schedule.sigmas
    return train_sigmas, ddim_sigmas(train_sigmas, steps)


def denoiser(model, unet, context):
    return unet_denoiser(unet, Text(context), model.backbone.schedule)


def inverted(model, unet, end, steps=5):
    sigmas = schedule(model, steps)[1]
    return ddim.invert(denoiser(model, unet, end.text.context), end.latent, sigmas, model.backbone.schedule)


def sampled(model, unet, text, x, steps=5):
    return ddim.sample(denoiser(model, unet, text), x, schedule(model, steps)[1])


class MixStored:
    """DiffMorpher's attention processor: keys and values of a mix of what the two ends' layers were given."""

    def __init__(self):
        from diffusers.models.attention_processor import AttnProcessor

        self.plain = AttnProcessor()
        self.ends = []
        self.alpha = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        if self.alpha is None:
            self.ends.append(hidden_states)
            return self.plain(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        mixed = (1 - self.alpha) * self.ends[0] + self.alpha * self.ends[1]
        return self.plain(attn, hidden_states, mixed, *args, **kwargs)


def published_frames(model, unets, x, ends, alphas, mixed_steps, steps=5, last_alpha=1.0):
    """DiffMorpher, one frame and one step at a time: features of the ends stored and injected.

    unets: one a frame, with its share of both LoRAs merged.
    """
    abar, plain = ALPHAS, model.backbone.network.attn_processors
    timesteps = list(range(1, 1000, 1000 // steps))[:steps][::-1]
    texts = [(1 - alpha) * ends[0].text.context + alpha * ends[1].text.context for alpha in alphas]
    z = list((x * abar[timesteps[0]].sqrt()).split(1))
    for step, t in enumerate(timesteps):
        names = [name for name in plain if name.startswith("up") and "attn1" in name]
        processors = {name: MixStored() for name in names}
        noises = {}
        for i in (0, len(alphas) - 1, *range(1, len(alphas) - 1)):  # the ends first
            for processor in processors.values():
                processor.alpha = None if i in (0, len(alphas) - 1) else alphas[i]
            unets[i].set_attn_processor({**plain, **processors} if step < mixed_steps else dict(plain))
            noises[i] = unets[i](z[i], t, texts[i]).sample
        alpha_next = abar[timesteps[step + 1]] if step + 1 < steps else torch.as_tensor(last_alpha)
        for i, noise in noises.items():
            z0 = (z[i] - (1 - abar[t]).sqrt() * noise) / abar[t].sqrt()
            z[i] = alpha_next.sqrt() * z0 + (1 - alpha_next).sqrt() * noise
    return torch.cat(z)


@pytest.mark.parametrize(("attention", "mixed_steps"), [(0.0, 0), (0.6, 3), (1.0, 5)])
def test_frames_in_one_batch_are_the_published_frames_one_by_one(model, ends, merged, attention, mixed_steps):
    alphas = (0.0, 0.2, 0.7, 1.0)
    x = schedule(model)[1][0] * torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    config = replace(PLAIN, attention=attention)
    frames = MorphFrames(model, *keyframes_of(model, ends, config), config).sample(x, alphas)
    unets = [merged(model.backbone.network, (ends[0].lora, 1 - alpha), (ends[1].lora, alpha)) for alpha in alphas]
    expected = published_frames(model, unets, x, ends, alphas, mixed_steps)
    torch.testing.assert_close(frames, expected, rtol=0, atol=3e-5)
    other = published_frames(model, unets, x, ends, alphas, mixed_steps + 1 if mixed_steps < 5 else 4)
    assert (frames - other).abs().max() > 2e-4  # one step more or less would show


def test_frames_with_the_published_codes_last_alpha_and_lora_blend(model, ends, merged, random_lora):
    alphas = (0.0, 0.2, 0.7, 1.0)
    unet = model.backbone.network
    ends = [replace(end, lora=random_lora(unet, seed)) for seed, end in enumerate(ends)]  # of one rank
    x = schedule(model)[1][0] * torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    config = replace(PLAIN, attention=0.6, lora_blend="factors", set_alpha_to_one=False)
    frames = MorphFrames(model, *keyframes_of(model, ends, config), config).sample(x, alphas)
    loras = [{key: torch.lerp(ends[0].lora[key], ends[1].lora[key], alpha) for key in ends[0].lora} for alpha in alphas]
    unets = [merged(model.backbone.network, (lora, 1)) for lora in loras]
    expected = published_frames(model, unets, x, ends, alphas, 3, last_alpha=ALPHAS[0])
    torch.testing.assert_close(frames, expected, rtol=0, atol=3e-5)
    other = MorphFrames(model, *keyframes_of(model, ends, config), replace(config, lora_blend="delta")).sample(
        x, alphas
    )
    assert (frames - other).abs().amax((1, 2, 3))[1:3].min() > 1e-3


def test_the_last_alpha_is_that_of_the_inversion_and_of_the_sampling(model, ends, merged):
    result = morph_prepared(model, *ends, replace(PLAIN, set_alpha_to_one=False))
    train_sigmas = model.backbone.schedule.sigmas
    sigmas, scale = ddim_sigmas(train_sigmas, 5, set_alpha_to_one=False), ALPHAS[0] ** -0.5
    for row, end in ((0, ends[0]), (-1, ends[1])):
        denoise = denoiser(model, merged(model.backbone.network, (end.lora, 1)), end.text.context)
        alone = ddim.invert(denoise, end.latent * scale, sigmas, model.backbone.schedule)
        alone = ddim.sample(denoise, alone, sigmas) / scale
        torch.testing.assert_close(result.latents[row], alone[0], rtol=0, atol=1e-4)
    assert (result.latents - morph_prepared(model, *ends, PLAIN).latents).abs().amax((1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize("model", ["epsilon", "v_prediction"], indirect=True)
@pytest.mark.parametrize("attention", [0.0, 0.6])
def test_the_end_frames_are_each_image_alone_with_its_lora_merged(model, ends, merged, attention):
    result = morph_prepared(model, *ends, replace(PLAIN, attention=attention))
    for row, end in ((0, ends[0]), (-1, ends[1])):
        unet = merged(model.backbone.network, (end.lora, 1))
        alone = sampled(model, unet, end.text.context, inverted(model, unet, end))
        torch.testing.assert_close(result.latents[row], alone[0], rtol=0, atol=1e-4)
        plain = sampled(model, model.backbone.network, end.text.context, inverted(model, model.backbone.network, end))
        assert (alone - plain).abs().max() > 1e-2


def test_the_frames_start_from_the_slerp_of_the_inverted_ends(model, ends, merged):
    alphas = alpha_schedule(4)
    noise = [inverted(model, merged(model.backbone.network, (end.lora, 1)), end) for end in ends]
    x = slerp(noise[0], noise[1], alphas)
    for config, start in ((PLAIN, x), (replace(PLAIN, adain=True), adain(x, noise[0], noise[1], alphas))):
        result = morph_prepared(model, *ends, config)
        expected = MorphFrames(model, *keyframes_of(model, ends, config), config).sample(start, alphas)
        torch.testing.assert_close(result.latents, expected, rtol=0, atol=1e-4)


def test_adain_switches(model, ends):
    without, within = (morph_prepared(model, *ends, replace(PLAIN, adain=on)).latents for on in (False, True))
    assert (without - within).abs().amax((1, 2, 3))[1:3].min() > 1e-2


def test_attention_switches_and_leaves_the_ends_alone(model, ends):
    off, some, whole = (morph_prepared(model, *ends, replace(PLAIN, attention=a)).latents for a in (0.0, 0.6, 1.0))
    for a, b in ((off, some), (some, whole)):
        difference = (a - b).abs().amax((1, 2, 3))
        assert difference[[0, -1]].max() < 1e-5
        assert difference[1:3].min() > 1e-3


def test_attention_blocks_switch(model, ends):
    up, everything = (
        morph_prepared(model, *ends, replace(PLAIN, attention=0.6, attention_blocks=blocks)).latents
        for blocks in ("up blocks", "all blocks")
    )
    assert (up - everything).abs().amax((1, 2, 3))[1:3].min() > 1e-3


def test_loras_switch(model, ends):
    bare = without_loras(ends)
    with_loras, without = (morph_prepared(model, *pair, PLAIN).latents for pair in (ends, bare))
    assert (with_loras - without).abs().amax((1, 2, 3)).min() > 1e-2
    # without LoRAs a frame is the bare UNet on the slerp of what it inverted
    noise = [inverted(model, model.backbone.network, end) for end in bare]
    alphas = alpha_schedule(4)
    text = torch.cat([(1 - alpha) * ends[0].text.context + alpha * ends[1].text.context for alpha in alphas])
    expected = sampled(model, model.backbone.network, text, slerp(*noise, alphas))
    torch.testing.assert_close(without, expected, rtol=0, atol=1e-4)


def test_one_end_alone_may_have_a_lora(model, ends, merged):
    pair = ends[0], replace(ends[1], lora={})
    result = morph_prepared(model, *pair, PLAIN)
    unet = model.backbone.network
    alone = sampled(model, unet, pair[1].text.context, inverted(model, unet, pair[1]))
    torch.testing.assert_close(result.latents[-1], alone[0], rtol=0, atol=1e-4)


def test_without_rescheduling_alphas_are_even_and_there_is_one_pass(model, ends):
    result = morph_prepared(model, *ends, PLAIN)
    assert result.alphas == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert result.first_pass is None


def test_rescheduling_makes_a_second_pass_at_alphas_even_in_distance(model, ends):
    config = replace(PLAIN, reschedule=True, adain=True, attention=0.6)
    result = morph_prepared(model, *ends, config)
    first = morph_prepared(model, *ends, replace(config, reschedule=False))
    torch.testing.assert_close(result.first_pass.frames, first.frames)
    assert result.first_pass.first_pass is None
    assert result.alphas == pytest.approx(reschedule_alphas(first.alphas, first.distances.tolist(), 4), abs=1e-4)
    assert (result.alphas[0], result.alphas[-1]) == (0, 1)
    # the second pass is a whole new one: noise, attention and LoRAs at the new alphas
    assert (result.latents - first.latents).abs().amax((1, 2, 3))[1:3].min() > 1e-3
    torch.testing.assert_close(result.latents[[0, -1]], first.latents[[0, -1]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("reschedule", [False, True])
def test_frames_and_distances_belong_to_the_latents(model, ends, reschedule):
    result = morph_prepared(model, *ends, replace(PLAIN, reschedule=reschedule))
    assert result.frames.shape == (4, 3, 16, 16) and result.latents.shape == (4, 4, 8, 8)
    torch.testing.assert_close(result.frames, model.decode_latents(result.latents))
    torch.testing.assert_close(result.distances, perceptual_distances(result.frames))
    assert not result.frames.requires_grad


def test_identical_images_give_identical_frames(model):
    image = picture(1)
    result = morph(model, (image, image.clone()), (CAPTIONS[0],) * 2, FULL)
    assert (result.latents - result.latents[:1]).abs().max() < 1e-4
    assert (result.frames - result.frames[:1]).abs().max() < 1e-4


def test_exchanging_the_images_reverses_the_morph(model):
    config = replace(FULL, reschedule=False)
    images = picture(1), picture(2)
    there, back = morph(model, images, CAPTIONS, config), morph(model, images[::-1], CAPTIONS[::-1], config)
    torch.testing.assert_close(there.latents, back.latents.flip(0), rtol=0, atol=2e-4)
    torch.testing.assert_close(there.distances, back.distances.flip(0), rtol=1e-3, atol=1e-4)


def test_a_morph_of_two_frames_is_the_two_ends(model, ends):
    two, four = (morph_prepared(model, *ends, replace(FULL, frames=n, reschedule=False)) for n in (2, 4))
    torch.testing.assert_close(two.latents, four.latents[[0, -1]], rtol=0, atol=1e-4)
