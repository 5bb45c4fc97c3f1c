"""The recipe from pictures on: its parts, its progress, what it refuses, and ends that are exactly the images."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.fit import LoraFit, fit_lora
from morph_pack.morph_core.models.unet import UnetBackbone
from morph_pack.morph_core.recipes.image import PreparedImage, prepare_image
from morph_pack.morph_core.recipes.morph import Morph, morph, morph_prepared
from morph_pack.morph_core.recipes.morph_settings import quick_morph
from morph_pack.morph_core.sampling.schedule import VariancePreserving, sigmas_of
from morph_tests.core.morphs import (
    ALPHAS,
    CAPTIONS,
    FULL,
    PLAIN,
    SHORT_FIT,
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


def test_the_whole_recipe_is_its_parts_put_together(model):
    images = picture(1), picture(2)
    result = morph(model, images, CAPTIONS, FULL)
    prepared = []
    for image, caption in zip(images, CAPTIONS, strict=True):
        latent, text = model.encode_images(image), model.encode_text([caption])
        fitted = fit_lora(model.backbone, latent, text, SHORT_FIT)
        prepared.append(PreparedImage(latent, text, fitted.weights))
    expected = morph_prepared(model, *prepared, FULL)
    torch.testing.assert_close(result.latents, expected.latents, rtol=0, atol=1e-5)
    assert result.alphas == pytest.approx(expected.alphas, abs=1e-5)


def test_an_end_is_its_latent_its_text_and_its_lora(model):
    end = prepare_image(model, picture(1), CAPTIONS[0], SHORT_FIT)
    assert torch.equal(end.latent, model.encode_images(picture(1)))
    assert torch.equal(end.text.context, model.encode_text([CAPTIONS[0]]).context)
    fitted = fit_lora(model.backbone, end.latent, end.text, SHORT_FIT)
    assert end.lora.keys() == fitted.weights.keys()
    assert all(torch.equal(end.lora[key], fitted.weights[key]) for key in end.lora)
    assert prepare_image(model, picture(1), CAPTIONS[0], None).lora == {}


@pytest.mark.parametrize("model", ["v_prediction"], indirect=True)
def test_the_lora_of_a_velocity_model_is_fitted_to_velocities(model):
    end = prepare_image(model, picture(1), CAPTIONS[0], SHORT_FIT)
    fits = [
        fit_lora(
            UnetBackbone(model.backbone.network, VariancePreserving(sigmas_of(ALPHAS), prediction)),
            end.latent,
            end.text,
            SHORT_FIT,
        ).weights
        for prediction in ("v_prediction", "epsilon")
    ]
    key = next(key for key in end.lora if "lora_up" in key)
    assert torch.equal(end.lora[key], fits[0][key]) and not torch.equal(end.lora[key], fits[1][key])


def test_progress_names_every_stage_and_counts_its_steps(model):
    calls = []
    morph(model, (picture(1), picture(2)), CAPTIONS, FULL, lambda *call: calls.append(call))
    fit, invert, frames = (
        [(stage, i + 1, n) for i in range(n)]
        for stage, n in (("fitting LoRA", 2), ("inverting", 5), ("sampling frames", 5))
    )
    assert calls == fit + fit + invert + frames + frames


def test_stages_that_are_switched_off_are_not_reported(model):
    calls = []
    morph(model, (picture(1), picture(2)), CAPTIONS, PLAIN, lambda *call: calls.append(call))
    assert [stage for stage, _, _ in calls] == ["inverting"] * 5 + ["sampling frames"] * 5


@pytest.mark.parametrize("stage", [None, "fitting LoRA", "inverting", "sampling frames"])
def test_the_unet_is_left_as_it_was_also_when_cancelled(model, stage):
    before = {name: value.clone() for name, value in model.backbone.network.state_dict().items()}
    modules = [id(module) for module in model.backbone.network.modules()]

    def cancel(now, done, total):
        if now == stage:
            raise KeyboardInterrupt

    if stage:
        with pytest.raises(KeyboardInterrupt):
            morph(model, (picture(1), picture(2)), CAPTIONS, FULL, cancel)
    else:
        morph(model, (picture(1), picture(2)), CAPTIONS, FULL, cancel)
    assert [id(module) for module in model.backbone.network.modules()] == modules
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.backbone.network.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.network.state_dict().items())


def test_the_defaults_are_the_published_ones():
    config = Morph()
    assert (config.frames, config.steps, config.attention, config.attention_blocks) == (16, 50, 0.6, "up blocks")
    assert config.adain and config.reschedule and config.lora == LoraFit() and config.lora_blend == "delta"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 24)),
        (torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)),
        (torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16)),
    ],
)
def test_images_that_do_not_go_together_are_refused_and_shown(model, first, second):
    with pytest.raises(InvalidInput) as refusal:
        morph(model, (first, second), CAPTIONS, PLAIN)
    assert str(tuple(first.shape)) in str(refusal.value) and str(tuple(second.shape)) in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 1},
        {"steps": 0},
        {"metric": "ssim"},
        {"attention": 1.0, "attention_blocks": "some"},
        {"lora_blend": "sum"},
    ],
)
def test_impossible_settings_are_refused(model, ends, change):
    with pytest.raises(InvalidInput):
        morph_prepared(model, *ends, replace(PLAIN, **change))


@pytest.mark.parametrize("attention", [-0.4, 1.4])
def test_a_share_of_steps_outside_0_to_1_is_refused(model, ends, attention):
    with pytest.raises(InvalidInput):
        morph_prepared(model, *ends, replace(PLAIN, attention=attention))


def test_exact_ends_are_the_images_whatever_the_last_alpha(model, ends):
    result = morph_prepared(model, *ends, replace(PLAIN, exact_ends=True, set_alpha_to_one=False))
    images = torch.cat([end.latent for end in ends])
    torch.testing.assert_close(result.latents[[0, -1]], images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("reschedule", [False, True])
def test_exact_ends_are_the_images_and_the_frames_between_are_still_the_morphs(model, ends, reschedule):
    config = replace(FULL, reschedule=reschedule)
    free, exact = (morph_prepared(model, *ends, replace(config, exact_ends=on)) for on in (False, True))
    images = torch.cat([end.latent for end in ends])
    torch.testing.assert_close(exact.latents[[0, -1]], images, rtol=0, atol=1e-6)
    assert (free.latents[[0, -1]] - images).abs().amax((1, 2, 3)).min() > 1e-3
    if not reschedule:  # attention apart, which looks at the ends, they start and go as without
        alone = [
            morph_prepared(model, *ends, replace(config, attention=0.0, exact_ends=on)).latents[1:-1]
            for on in (False, True)
        ]
        assert torch.equal(*alone)


def test_the_quick_morph_fits_nothing_and_ends_in_the_images(model):
    calls, images = [], (picture(1), picture(2))
    result = morph(model, images, CAPTIONS, quick_morph(4), lambda *call: calls.append(call))
    assert {stage for stage, _, _ in calls} == {"inverting", "sampling frames"}
    expected = torch.cat([model.encode_images(image) for image in images])
    torch.testing.assert_close(result.latents[[0, -1]], expected, rtol=0, atol=1e-5)
    assert len(result.frames) == 4
