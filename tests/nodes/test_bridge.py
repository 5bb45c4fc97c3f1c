"""The bridge: a MODEL as a diffusers UNet on the same memory."""

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import comfy.utils
import pytest
import torch
from comfy.model_base import ModelType
from comfy.patcher_extension import PatcherInjection
from torch import Tensor

from morph_pack.morph_core.denoise import unet_denoiser
from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.nodes.bridge import bridged, scaled_latent
from morph_pack.nodes.prompt import read_prompt
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, latent, normal, random_lora, with_lora

KINDS = {
    "toy": None,
    "SD 1": models.sd1,
    "SD 2": models.sd2,
    "SDXL": models.sdxl,
    "SDXL, v": lambda: models.sdxl(ModelType.V_PREDICTION),
}
POOLED = {"pooled_output": normal(1, models.POOLED_WIDTH, seed=7)}  # what CLIP Text Encode gives for SDXL; else unused


@pytest.fixture(params=list(KINDS))
def any_model(request: pytest.FixtureRequest, model: Any) -> Any:
    make = KINDS[request.param]
    return make() if make else model


def through_bridge(model: Any, x: Tensor, sigma: Tensor, positive: Any) -> Tensor:
    with torch.inference_mode():
        prompt = read_prompt(model, positive, "positive", x[:1])
        with bridged(model) as bridge, torch.no_grad():
            train_sigmas = ((1 - bridge.train_alphas) / bridge.train_alphas) ** 0.5
            text = prompt.to(bridge.device, bridge.unet.dtype)
            return unet_denoiser(bridge.unet, text.context, train_sigmas, bridge.prediction, text.added)(x, sigma)


def through_comfyui(model: Any, x: Tensor, sigma: Tensor, positive: Any) -> Tensor:
    """As KSampler calls the model: with all that ComfyUI makes of a CONDITIONING."""
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        conds = comfy.sampler_helpers.convert_cond(positive)
        (cond,) = comfy.samplers.encode_model_conds(model.model.extra_conds, conds, x, x.device, "positive")
        inputs = {name: value.process_cond(len(x)).cond for name, value in cond["model_conds"].items()}
        return model.model.apply_model(x, sigma.expand(len(x)), **inputs)


def assert_same_output(actual: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    assert scale > 0.1
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * max(1.0, scale))


@pytest.mark.parametrize("timestep", [0, 1, 499, 999])
@pytest.mark.parametrize("size", [(8, 8), (9, 13)])  # odd sizes are rounded up on the way down, and back on the way up
def test_it_computes_what_comfyui_computes(any_model: Any, size: tuple[int, int], timestep: int) -> None:
    sigma = any_model.get_model_object("model_sampling").sigmas[timestep].clone()
    x, positive = normal(2, 4, *size) * (1 + sigma), conditioning(**POOLED)
    expected = through_comfyui(any_model, x, sigma, positive)
    assert_same_output(through_bridge(any_model, x, sigma, positive), expected)


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
    x, positive = normal(1, 4, 8, 8) * (1 + sigma), conditioning()
    carrying = with_lora(model, random_lora(0))
    before = through_bridge(model, x, sigma, positive)
    actual = through_bridge(carrying, x, sigma, positive)
    assert_same_output(actual, through_comfyui(carrying, x, sigma, positive))
    assert (actual - before).abs().max() > 1e-3
    torch.testing.assert_close(through_bridge(model, x, sigma, positive), before, rtol=0, atol=0)


def test_gradients_flow_although_nodes_run_in_inference_mode(any_model: Any) -> None:
    with torch.inference_mode():
        incoming, positive = latent(size=(8, 8))["samples"], conditioning(**POOLED)
        prompt = read_prompt(any_model, positive, "positive", incoming)
        with bridged(any_model) as bridge:
            x = scaled_latent(any_model, incoming).requires_grad_()
            text = prompt.to(bridge.device, bridge.unet.dtype)
            inputs = [text.context.requires_grad_(), *(value.requires_grad_() for value in text.added.values())]
            bridge.unet(x, 500, text.context, **text.added).sample.square().sum().backward()
            assert not any(parameter.requires_grad for parameter in bridge.unet.parameters())
        assert torch.is_inference_mode_enabled()
    for tensor in (x, *inputs):
        assert tensor.grad is not None and tensor.grad.abs().max() > 0


def test_inference_mode_comes_back_after_an_error(model: Any) -> None:
    with torch.inference_mode():
        with pytest.raises(ZeroDivisionError), bridged(model):
            raise ZeroDivisionError
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()


def test_latents_are_scaled_by_the_models_format() -> None:
    samples = latent()["samples"]
    assert torch.equal(scaled_latent(models.sd1(), samples), samples * 0.18215)


@pytest.mark.parametrize("make", [models.dit, models.inpainting, models.flow, models.pruned])
def test_models_it_cannot_represent_are_refused(make: Any) -> None:
    with torch.inference_mode(), pytest.raises(UnsupportedModel), bridged(make()):
        pass


def patched_attention(model: Any) -> None:
    model.set_model_attn1_patch(lambda *args: args[:3])


def wrapped(model: Any) -> None:
    model.add_wrapper_with_key("diffusion_model", "key", lambda executor, *args, **kwargs: executor(*args, **kwargs))


def wrapped_in_its_options(model: Any) -> None:
    options = model.model_options
    comfy.patcher_extension.add_wrapper_with_key("diffusion_model", "key", print, options, is_model_options=True)


def injected(model: Any) -> None:
    model.set_injections("bypass_lora", [PatcherInjection(inject=lambda patcher: None, eject=lambda patcher: None)])


def replaced(model: Any) -> None:
    model.add_object_patch("diffusion_model.out.0", model.model.diffusion_model.out[0])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (patched_attention, "attention or block patches"),
        (wrapped, "wrappers"),
        (lambda model: model.set_model_unet_function_wrapper(print), "wrappers"),
        (wrapped_in_its_options, "wrappers"),
        (injected, "injections"),
        (replaced, "replaced layers"),
    ],
)
def test_what_it_cannot_honour_is_said_once(
    model: Any, caplog: pytest.LogCaptureFixture, change: Callable[[Any], None], name: str
) -> None:
    changed = with_lora(model, random_lora(0)).clone()
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        with bridged(changed):
            pass
        assert not caplog.records
        change(changed)
        with bridged(changed):
            pass
    (record,) = caplog.records
    assert f"the MODEL has {name}" in record.message and "only in KSampler" in record.message
