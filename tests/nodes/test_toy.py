"""Load Toy Model gives ComfyUI's own objects with the networks that the core loads through diffusers."""

from typing import Any

import comfy.samplers
import nodes
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from morph_pack.morph_core.toy.drawing import one_drawing
from morph_pack.morph_core.toy.model import IMAGE_SIZE, SCALE_FACTOR, ToyModel
from morph_tests.networks import denoiser_of
from morph_tests.nodes.graph import diffusion_model, latent, normal, run


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("text", ["", "cat", "A happy, red cat on mint.", "a sad blue rabbit on sky"])
def test_clip_is_the_cores_text_encoder(toy: tuple[Any, Any, Any], core: ToyModel, text: str) -> None:
    with torch.inference_mode():
        ((embedding, _),) = nodes.CLIPTextEncode().encode(toy[1], text)[0]
    assert_close(embedding, core.encode_text([text]).context)


def test_vae_is_the_cores_autoencoder(toy: tuple[Any, Any, Any], core: ToyModel) -> None:
    image = torch.rand(2, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        (encoded,) = nodes.VAEEncode().encode(toy[2], image)
        (decoded,) = nodes.VAEDecode().decode(toy[2], latent(rows=2))
    assert_close(encoded["samples"], core.encode_images(image.movedim(-1, 1)) / SCALE_FACTOR)
    assert_close(decoded, core.decode_latents(latent(rows=2)["samples"] * SCALE_FACTOR).movedim(1, -1))


@pytest.mark.parametrize("timestep", [0, 500, 999])
def test_model_is_the_cores_unet(model: Any, core: ToyModel, timestep: int) -> None:
    sigmas = core.backbone.schedule.sigmas
    assert_close(model.get_model_object("model_sampling").sigmas, sigmas)
    x, text = normal(2, 4, 8, 12) * (1 + sigmas[timestep]), normal(2, 8, 64)
    diffusion_model(model)  # an earlier test's LoRA may still be in its weights
    with torch.inference_mode():
        actual = model.model.apply_model(x, sigmas[timestep].expand(2), c_crossattn=text)
    with torch.no_grad():
        assert_close(actual, denoiser_of(core.backbone.network, text, sigmas)(x, sigmas[timestep]))


@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.02])
def test_with_the_transformer_model_is_the_cores_and_clip_gives_pooled_text(
    flow_toy: tuple[Any, Any, Any], flow_core: ToyModel, sigma: float
) -> None:
    model, clip, _ = flow_toy
    caption = "a sad blue rabbit on sky"
    with torch.inference_mode():
        ((embedding, options),) = nodes.CLIPTextEncode().encode(clip, caption)[0]
    text = flow_core.encode_text([caption])
    assert_close(embedding, text.context)
    assert_close(options["pooled_output"], text.pooled)

    x, sigmas = normal(2, 4, 8, 12), torch.tensor([sigma, sigma])
    diffusion_model(model)
    inputs = {"c_crossattn": text.context, "y": text.pooled}
    with torch.inference_mode():
        actual = model.model.apply_model(
            x, sigmas, **{name: value.expand(2, *value.shape[1:]) for name, value in inputs.items()}
        )
    with torch.no_grad():
        expected = flow_core.backbone.denoiser(text)(x, sigmas[0])
    assert (expected - x).abs().max() > 0.01
    assert_close(actual, expected)


def test_schedule_of_the_transformer_is_the_cores(flow_toy: tuple[Any, Any, Any], flow_core: ToyModel) -> None:
    """Stock schedulers then give the core's sigmas."""
    sampling = flow_toy[0].get_model_object("model_sampling")
    assert_close(sampling.sigmas, flow_core.backbone.schedule.sigmas)
    simple = comfy.samplers.calculate_sigmas(sampling, "simple", 20)
    assert_close(simple, flow_core.backbone.schedule.spaced(20))


def test_a_drawing_is_an_image_of_the_toys_size_with_a_caption_that_it_understands(
    toy: tuple[Any, Any, Any], core: ToyModel
) -> None:
    picture = {"animal": "cat", "colour": "red", "mood": "happy", "background": "mint"}
    image, caption = run("ToyDrawing", **picture, seed=1)
    assert image.shape == (1, IMAGE_SIZE, IMAGE_SIZE, 3) and 0 <= image.min() and image.max() <= 1
    assert all(word in caption for word in picture.values())
    assert len(core.encode_text([caption]).context) == 1
    assert torch.equal(image, run("ToyDrawing", **picture, seed=1)[0])
    assert not torch.equal(image, run("ToyDrawing", **picture, seed=2)[0])


def test_a_drawing_of_another_size_is_the_same_drawing() -> None:
    """Without a size it is the toy model's: workflows from before there was one stay as they were."""
    picture = {"animal": "rabbit", "colour": "blue", "mood": "sad", "background": "sky", "seed": 1}
    (small, caption), (large, same_caption) = run("ToyDrawing", **picture), run("ToyDrawing", **picture, size=512)
    drawing = one_drawing("rabbit", "blue", "sad", "sky", torch.Generator().manual_seed(1))
    assert torch.equal(small, drawing.render(IMAGE_SIZE).movedim(1, -1))
    assert large.shape == (1, 512, 512, 3) and caption == same_caption
    assert (avg_pool2d(large.movedim(-1, 1), 512 // IMAGE_SIZE).movedim(1, -1) - small).abs().mean() < 0.002
