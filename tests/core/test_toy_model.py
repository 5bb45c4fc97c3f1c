import json

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling.schedule import alphas_cumprod, sigmas_of
from morph_pack.morph_core.toy import model as toy
from morph_pack.morph_core.toy.drawing import one_drawing
from morph_pack.morph_core.toy.model import (
    IMAGE_SIZE,
    TEXT_WIDTH,
    TextEncoder,
    ToyModel,
    load_toy_model,
    new_autoencoder,
    new_unet,
    preview_factors,
)
from morph_pack.morph_core.toy.transformer import new_transformer
from morph_pack.morph_core.toy.words import MAX_TOKENS, WORDS, tokenize


@pytest.fixture
def encoder():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = TextEncoder().eval().requires_grad_(False)
        for parameter in encoder.parameters():  # no norm at 1 and no bias at 0, so that each one matters
            parameter += 0.1 * torch.randn(parameter.shape)
        return encoder


@pytest.fixture(scope="module", params=["UNet", "transformer"])
def bundled(request):
    return load_toy_model(request.param)


def test_no_token_sees_a_later_one(encoder):
    tokens = torch.tensor(tokenize(["a happy red cat on mint"]))
    before = encoder(tokens)
    for place in range(MAX_TOKENS):
        changed = tokens.clone()
        changed[0, place] = (tokens[0, place] + 3) % len(WORDS)
        moved = (encoder(changed) - before)[0].abs().amax(1) > 1e-5
        assert not moved[:place].any()
        assert moved[place:].all()


def test_a_shorter_row_of_tokens_is_the_beginning_of_a_longer(encoder):
    tokens = torch.tensor(tokenize(["a sad blue mouse on sky"]))
    torch.testing.assert_close(encoder(tokens[:, :4]), encoder(tokens)[:, :4], rtol=0, atol=1e-5)


def test_the_same_word_means_something_else_elsewhere(encoder):
    embedded = encoder(torch.full((1, MAX_TOKENS), 5))[0]
    assert (embedded[1:] - embedded[:-1]).abs().amax(1).min() > 1e-2


def test_it_is_a_clip_text_encoder(encoder):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(**TextEncoder.config, bos_token_id=0, eos_token_id=1)
    clip = transformers.CLIPTextModel(config).eval()
    state = encoder.state_dict()
    if not any(name.startswith("text_model.") for name in clip.state_dict()):  # since transformers 5
        state = {name.removeprefix("text_model."): value for name, value in state.items()}
    missing, unexpected = clip.load_state_dict(state, strict=False)
    assert unexpected == [] and all("position_ids" in name for name in missing)
    tokens = torch.tensor(tokenize(["a happy red cat on mint", "mouse", ""]))
    with torch.no_grad():
        expected = clip(tokens).last_hidden_state
    torch.testing.assert_close(encoder(tokens), expected, rtol=0, atol=1e-5)


def save_random_weights(folder):
    """The three files as the training writes them, in half precision, and what was saved."""
    from safetensors.torch import save_file

    torch.manual_seed(7)
    denoising = {"unet": new_unet(), "transformer": new_transformer(TEXT_WIDTH)}
    networks = {**denoising, "autoencoder": new_autoencoder(), "text_encoder": TextEncoder()}
    states = {name: {k: v.half() for k, v in net.state_dict().items()} for name, net in networks.items()}
    for name, state in states.items():
        save_file(state, folder / f"{name}.safetensors")
    return states


@pytest.mark.parametrize(("network", "file"), [("UNet", "unet"), ("transformer", "transformer")])
def test_loading_takes_the_files_weights_in_single_precision(tmp_path, network, file):
    states = save_random_weights(tmp_path)
    model = load_toy_model(network, tmp_path)
    networks = {file: model.backbone.network, "autoencoder": model.autoencoder, "text_encoder": model.text_encoder}
    for name, loaded in networks.items():
        assert loaded.state_dict().keys() == states[name].keys()
        for key, value in loaded.state_dict().items():
            assert value.dtype == torch.float32
            assert torch.equal(value, states[name][key].float())


def test_an_unknown_network_is_refused():
    with pytest.raises(InvalidInput, match="UNet, transformer; got 'unet'"):
        load_toy_model("unet")


def test_the_bundled_model_is_frozen_and_in_eval_mode(bundled):
    for network in (bundled.backbone.network, bundled.autoencoder, bundled.text_encoder):
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not any(module.training for module in network.modules())
        assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_shapes_of_the_bundled_model(bundled):
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
    latents = bundled.encode_images(images)
    text = bundled.encode_text(["a happy red cat on mint", ""])
    assert latents.shape == (2, 4, IMAGE_SIZE // 4, IMAGE_SIZE // 4)
    assert text.context.shape == (2, MAX_TOKENS, TEXT_WIDTH)
    assert bundled.backbone.denoiser(text)(latents, torch.tensor(0.5)).shape == latents.shape
    pictures = bundled.decode_latents(latents)
    assert pictures.shape == images.shape
    assert pictures.min() >= 0 and pictures.max() <= 1
    tall = bundled.encode_images(torch.rand(1, 3, 80, 64))
    assert tall.shape == (1, 4, 20, 16) and bundled.decode_latents(tall).shape == (1, 3, 80, 64)


def test_encoding_is_the_mode_of_pictures_in_minus_1_to_1(bundled):
    images = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(2))
    moments = bundled.autoencoder.encode(2 * images - 1).latent_dist
    latents = bundled.encode_images(images)
    torch.testing.assert_close(latents, toy.SCALE_FACTOR * moments.mean)
    assert torch.equal(latents, bundled.encode_images(images))


def test_decoding_maps_minus_1_to_1_onto_0_to_1(bundled):
    latents = 3 * torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    decoded = bundled.autoencoder.decode(latents / toy.SCALE_FACTOR).sample
    torch.testing.assert_close(bundled.decode_latents(latents), ((decoded + 1) / 2).clamp(0, 1))


def test_captions_are_encoded_each_for_itself(bundled):
    both = bundled.encode_text(["a happy red cat on mint", "a sad blue mouse on sky"]).context
    alone = bundled.encode_text(["a sad blue mouse on sky"]).context
    torch.testing.assert_close(both[1:], alone)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_the_unet_listens_to_text_and_timestep():
    torch.manual_seed(1)
    unet = new_unet().requires_grad_(False).eval()
    x, text = torch.randn(1, 4, 16, 16), torch.randn(2, 1, MAX_TOKENS, TEXT_WIDTH)
    plain = unet(x, 500, text[0]).sample
    assert (unet(x, 500, text[1]).sample - plain).abs().max() > 1e-3
    assert (unet(x, 100, text[0]).sample - plain).abs().max() > 1e-3


def test_unknown_words_are_refused(bundled):
    with pytest.raises(InvalidInput, match="'dragon'"):
        bundled.encode_text(["a happy dragon"])


@pytest.mark.parametrize("bundled", ["UNet"], indirect=True)
def test_the_unets_schedule_is_stable_diffusions_and_it_predicts_noise(bundled):
    schedule = bundled.backbone.schedule
    assert torch.equal(schedule.sigmas, sigmas_of(alphas_cumprod())) and schedule.prediction == "epsilon"
    assert isinstance(bundled, ToyModel)


@pytest.mark.parametrize("bundled", ["transformer"], indirect=True)
def test_the_transformers_schedule_is_even_and_it_predicts_velocities(bundled):
    """From nearly clean latents x0 comes back nearly as it was, from noise alone it is what the caption says."""
    schedule, text = bundled.backbone.schedule, bundled.encode_text(["a happy red cat on mint"])
    torch.testing.assert_close(schedule.sigmas, torch.arange(1, 1001) / 1000)
    drawing = one_drawing("cat", "red", "happy", "mint", torch.Generator().manual_seed(0)).render(IMAGE_SIZE)
    x0, denoise = bundled.encode_images(drawing), bundled.backbone.denoiser(text)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    errors = [
        (denoise(schedule.noised(x0, noise, sigma), sigma) - x0).square().mean().sqrt()
        for sigma in torch.tensor([0.05, 0.3])
    ]
    assert errors[0] < 0.05 and errors[1] < 0.15 < x0.std()


def test_preview_colours(tmp_path):
    factors, bias = preview_factors()
    assert len(factors) == 4 and all(len(row) == 3 for row in factors) and len(bias) == 3
    (tmp_path / "preview.json").write_text(json.dumps({"factors": [[1, 2, 3]] * 4, "bias": [4, 5, 6]}))
    assert preview_factors(tmp_path) == ([[1, 2, 3]] * 4, [4, 5, 6])
