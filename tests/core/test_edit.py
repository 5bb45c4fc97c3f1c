"""The recipe on the bundled toy model: a cat becomes a rabbit, beside its source."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.attention.prompt_to_prompt import PromptToPrompt, prompt_to_prompt
from morph_pack.morph_core.attention.word_edit import WordEdit
from morph_pack.morph_core.errors import InvalidInput, UnsupportedModel
from morph_pack.morph_core.lora.fit import LoraFit
from morph_pack.morph_core.recipes.edit import PromptEdit, edit, edit_prepared, null_text_of
from morph_pack.morph_core.recipes.image import inverted, prepare_image
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.null_text import NullText
from morph_pack.morph_core.sampling.schedule import ddim_sigmas
from morph_pack.morph_core.toy.drawing import one_drawing
from morph_pack.morph_core.toy.model import IMAGE_SIZE, load_toy_model

SOURCE, EDITED = "a calm blue cat on mint", "a calm blue rabbit on mint"
SHORT = PromptEdit(steps=6, guidance=3.0)


@pytest.fixture(scope="module")
def model():
    return load_toy_model()


@pytest.fixture(scope="module")
def image():
    drawing = one_drawing("cat", "blue", "calm", "mint", torch.Generator().manual_seed(3))
    return drawing.render(IMAGE_SIZE)


@pytest.fixture(scope="module")
def prepared(model, image):
    return prepare_image(model, image, SOURCE, None)


def by_hand(model, prepared, config):
    """DDIM with the control in the conditional pass and nothing else, both rows, as latents."""
    sigmas = ddim_sigmas(model.backbone.schedule.sigmas, config.steps)
    both, empty = (model.backbone.denoiser(model.encode_text(texts)) for texts in ([SOURCE, EDITED], [""]))
    tokens = model.tokenize([SOURCE, EDITED])
    run = PromptToPrompt(config.words.of_tokens(*tokens, model.word_tokens), sigmas, prepared.latent.shape[-2:])

    def denoise(x, sigma):
        with prompt_to_prompt(model.backbone.attention_layers(), run, sigma):
            conditional = both(x, sigma)
        unconditional = empty(x, sigma)
        return unconditional + config.guidance * (conditional - unconditional)

    with torch.no_grad():
        noise = inverted(model, prepared, sigmas).noise
        return ddim.sample(denoise, noise.repeat(2, 1, 1, 1), sigmas)


def test_the_recipe_is_its_parts_put_together(model, prepared):
    config = replace(SHORT, inversion="DDIM")
    result = edit_prepared(model, prepared, SOURCE, EDITED, config)
    expected = model.decode_latents(by_hand(model, prepared, config))
    torch.testing.assert_close(torch.cat([result.source, result.edited]), expected, rtol=0, atol=1e-4)
    assert (result.source - result.edited).abs().max() > 0.1


def test_with_direct_inversion_the_source_is_the_image_whatever_the_guidance(model, prepared):
    wanted = model.decode_latents(prepared.latent)
    held = edit_prepared(model, prepared, SOURCE, EDITED, SHORT)
    torch.testing.assert_close(held.source, wanted, rtol=0, atol=1e-5)
    free = edit_prepared(model, prepared, SOURCE, EDITED, replace(SHORT, inversion="DDIM"))
    assert (free.source - wanted).abs().max() > 0.05


@pytest.mark.slow
def test_null_text_leads_the_source_nearer_to_the_image(model, prepared):
    wanted = model.decode_latents(prepared.latent)
    config = replace(SHORT, inversion="Null-text", null_text=NullText(inner_steps=5, learning_rate=0.05))
    errors = [
        (edit_prepared(model, prepared, SOURCE, EDITED, settings).source - wanted).square().mean()
        for settings in (config, replace(config, inversion="DDIM"))
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.slow
def test_embeddings_that_are_there_already_serve_another_edit(model, prepared):
    config = replace(SHORT, inversion="Null-text", null_text=NullText(inner_steps=2))
    sigmas = ddim_sigmas(model.backbone.schedule.sigmas, config.steps)
    found = null_text_of(model, prepared, inverted(model, prepared, sigmas), config)
    stages = []
    again = edit_prepared(
        model, prepared, SOURCE, EDITED, config, lambda stage, *_: stages.append(stage), null_text=found
    )
    assert set(stages) == {"inverting", "sampling"}
    assert torch.equal(again.edited, edit_prepared(model, prepared, SOURCE, EDITED, config).edited)


def test_without_control_any_network_is_led_by_the_edited_prompt_alone(image):
    transformer = load_toy_model("transformer")
    prepared = prepare_image(transformer, image, SOURCE, None)
    config = replace(SHORT, words=None)
    result = edit_prepared(transformer, prepared, SOURCE, EDITED, config)
    torch.testing.assert_close(result.source, transformer.decode_latents(prepared.latent), rtol=0, atol=1e-5)
    sigmas = transformer.backbone.schedule.spaced(config.steps)
    edited, empty = (transformer.backbone.denoiser(transformer.encode_text([text])) for text in (EDITED, ""))
    noise = inverted(transformer, prepared, sigmas).noise
    with torch.no_grad():
        x = ddim.sample(lambda x, s: torch.lerp(empty(x, s), edited(x, s), config.guidance), noise, sigmas)
    torch.testing.assert_close(result.edited, transformer.decode_latents(x), rtol=0, atol=1e-4)
    with pytest.raises(UnsupportedModel, match="use a UNet"):
        edit_prepared(transformer, prepared, SOURCE, EDITED, SHORT)


def test_the_same_prompt_twice_is_no_edit(model, prepared):
    result = edit_prepared(model, prepared, SOURCE, SOURCE, replace(SHORT, inversion="DDIM"))
    torch.testing.assert_close(result.edited, result.source, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_outside_of_the_words_the_image_stays(model, prepared):
    words = WordEdit(blend_words="cat, rabbit", blend_threshold=0.6)
    blended = edit_prepared(model, prepared, SOURCE, EDITED, replace(SHORT, words=words))
    free = edit_prepared(model, prepared, SOURCE, EDITED, SHORT)
    corner = (..., slice(0, 6), slice(0, 6))
    differences = [(result.edited - result.source)[corner].abs().mean() for result in (blended, free)]
    assert differences[0] < 0.5 * differences[1]


@pytest.mark.slow
def test_a_lora_and_a_trajectory_of_the_image_are_used(model, image):
    prepared = prepare_image(model, image, SOURCE, LoraFit(rank=2, steps=3, learning_rate=1e-2))
    sigmas = ddim_sigmas(model.backbone.schedule.sigmas, SHORT.steps)
    known = replace(prepared, trajectory=inverted(model, prepared, sigmas))
    stages = []
    result = edit_prepared(model, known, SOURCE, EDITED, SHORT, lambda stage, *_: stages.append(stage))
    assert set(stages) == {"sampling"}
    whole = edit_prepared(model, prepared, SOURCE, EDITED, SHORT)
    torch.testing.assert_close(result.edited, whole.edited, rtol=0, atol=1e-5)
    bare = edit_prepared(model, replace(prepared, lora={}), SOURCE, EDITED, SHORT)
    assert (bare.edited - whole.edited).abs().max() > 0.01
    other = replace(SHORT, steps=5)
    edit_prepared(model, known, SOURCE, EDITED, other, lambda stage, *_: stages.append(stage))
    assert "inverting" in stages  # through other sigmas it is another trajectory


def test_from_image_to_image(model, image, prepared):
    whole = edit(model, image, SOURCE, EDITED, SHORT)
    parts = edit_prepared(model, prepared, SOURCE, EDITED, SHORT)
    assert torch.equal(whole.edited, parts.edited) and whole.edited.shape == image.shape


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["inverting", "optimising the empty prompt", "sampling"])
def test_nothing_stays_on_the_unet_when_cancelled(model, prepared, stage):
    def cancel(now, *_):
        if now == stage:
            raise KeyboardInterrupt

    processors = dict(model.backbone.network.attn_processors)
    with pytest.raises(KeyboardInterrupt):
        edit_prepared(model, prepared, SOURCE, EDITED, replace(SHORT, inversion="Null-text"), cancel)
    assert model.backbone.network.attn_processors == processors
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.backbone.network.modules())


def test_an_unknown_inversion_is_refused():
    with pytest.raises(InvalidInput, match="inversion must be one of DDIM, Null-text, Direct; got 'exact'"):
        PromptEdit(inversion="exact")
