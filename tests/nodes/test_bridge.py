"""The bridge: a MODEL as a diffusers UNet on the same memory."""

from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.denoise import unet_denoiser
from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.nodes.bridge import bridged, scaled_latent
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, latent, normal, random_lora, with_lora

KINDS = {"toy": None, "SD 1": models.sd1, "SD 2": models.sd2}


@pytest.fixture(params=list(KINDS))
def any_model(request: pytest.FixtureRequest, model: Any) -> Any:
    make = KINDS[request.param]
    return make() if make else model


def through_bridge(model: Any, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
    with torch.inference_mode(), bridged(model) as bridge, torch.no_grad():
        train_sigmas = ((1 - bridge.train_alphas) / bridge.train_alphas) ** 0.5
        return unet_denoiser(bridge.unet, text, train_sigmas, bridge.prediction)(x, sigma)


def through_comfyui(model: Any, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        return model.model.apply_model(x, sigma.expand(len(x)), c_crossattn=text)


@pytest.mark.parametrize("timestep", [0, 1, 499, 999])
def test_it_computes_what_comfyui_computes(any_model: Any, timestep: int) -> None:
    sigma = any_model.get_model_object("model_sampling").sigmas[timestep].clone()
    x, text = normal(2, 4, 8, 8) * (1 + sigma), conditioning(rows=2)[0][0]
    expected = through_comfyui(any_model, x, sigma, text)
    scale = float(expected.abs().max())
    assert scale > 0.1
    actual = through_bridge(any_model, x, sigma, text)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, scale))


def test_it_copies_nothing(any_model: Any) -> None:
    names = comfy.utils.unet_to_diffusers(any_model.model.model_config.unet_config)
    with torch.inference_mode(), bridged(any_model) as bridge:
        own = any_model.model.diffusion_model.state_dict()
        aliases = bridge.unet.state_dict()
        assert aliases.keys() <= names.keys() and len(aliases) == len(own)
        for name, alias in aliases.items():
            assert alias.data_ptr() == own[names[name]].data_ptr(), name
            assert alias.stride() == own[names[name]].stride(), name


def test_a_lora_that_the_model_carries_is_in_it(model: Any) -> None:
    """And not in the bridge of the plain model, before or after."""
    sigma = model.get_model_object("model_sampling").sigmas[499].clone()
    x, text = normal(1, 4, 8, 8) * (1 + sigma), conditioning()[0][0]
    carrying = with_lora(model, random_lora(0))
    before = through_bridge(model, x, sigma, text)
    actual = through_bridge(carrying, x, sigma, text)
    torch.testing.assert_close(actual, through_comfyui(carrying, x, sigma, text), rtol=0, atol=1e-5)
    assert (actual - before).abs().max() > 1e-3
    torch.testing.assert_close(through_bridge(model, x, sigma, text), before, rtol=0, atol=0)


def test_gradients_flow_although_nodes_run_in_inference_mode(any_model: Any) -> None:
    with torch.inference_mode():
        incoming = latent(size=(8, 8))["samples"]
        with bridged(any_model) as bridge:
            x = scaled_latent(any_model, incoming).requires_grad_()
            context = conditioning()[0][0].detach().clone().requires_grad_()
            bridge.unet(x, 500, context).sample.square().sum().backward()
            assert not any(parameter.requires_grad for parameter in bridge.unet.parameters())
        assert torch.is_inference_mode_enabled()
    assert x.grad is not None and x.grad.abs().max() > 0
    assert context.grad is not None and context.grad.abs().max() > 0


def test_inference_mode_comes_back_after_an_error(model: Any) -> None:
    with torch.inference_mode():
        with pytest.raises(ZeroDivisionError), bridged(model):
            raise ZeroDivisionError
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()


def test_latents_are_scaled_by_the_models_format() -> None:
    samples = latent()["samples"]
    assert torch.equal(scaled_latent(models.sd1(), samples), samples * 0.18215)


@pytest.mark.parametrize("make", [models.dit, models.inpainting, models.flow, models.sdxl])
def test_models_it_cannot_represent_are_refused(make: Any) -> None:
    with torch.inference_mode(), pytest.raises(UnsupportedModel), bridged(make()):
        pass
