"""The shadow: a MODEL's own network, on its own memory, with gradients."""

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch
from comfy.model_base import ModelType
from comfy.patcher_extension import PatcherInjection
from torch import Tensor

from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.nodes.host.backbone import scaled_latent, shadowed
from morph_pack.nodes.host.prompt import read_prompt
from morph_pack.nodes.host.shadow import shadow_model
from morph_tests.nodes import models
from morph_tests.nodes.diffusers_twin import through_twin
from morph_tests.nodes.graph import conditioning, diffusion_model, hooks_on, latent, normal, random_lora, with_lora

WITH_A_TWIN = {
    "toy": None,
    "SD 1": models.sd1,
    "SD 2": models.sd2,
    "SDXL": models.sdxl,
    "SDXL, v": lambda: models.sdxl(ModelType.V_PREDICTION),
}
KINDS = {
    **WITH_A_TWIN,
    "inpainting": models.inpainting,
    "SSD-1B": models.pruned,
    "CosXL": models.cosxl,
    "Playground 2.5": models.playground,
}
POOLED = {"pooled_output": normal(1, models.POOLED_WIDTH, seed=7)}  # what CLIP Text Encode gives for SDXL; else unused
SIZES = [(8, 8), (9, 13)]  # odd sizes are rounded up on the way down, and back on the way up


@pytest.fixture(params=list(KINDS))
def any_model(request: pytest.FixtureRequest, model: Any) -> Any:
    make = KINDS[request.param]
    return make() if make else model


def positive_for(size: tuple[int, int]) -> Any:
    """With a picture and a mask, as InpaintModelConditioning gives them; only inpainting models look at those."""
    mask = (normal(1, 1, 8 * size[0], 8 * size[1], seed=8) > 0).float()
    return conditioning(**POOLED, concat_latent_image=normal(1, 4, *size, seed=9), concat_mask=mask)


def through_shadow(model: Any, x: Tensor, sigma: Tensor, positive: Any) -> Tensor:
    with torch.inference_mode():
        prompt = read_prompt(model, positive, "positive", x[:1])
        with shadowed(model) as backbone, torch.no_grad():
            return backbone.denoiser(prompt.to(backbone.device))(x, sigma)


def through_comfyui(model: Any, x: Tensor, sigma: Tensor, positive: Any) -> Tensor:
    """As KSampler calls the model: with all that ComfyUI makes of a CONDITIONING."""
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        conds = comfy.sampler_helpers.convert_cond(positive)
        given = {"latent_image": x, "denoise_mask": None, "seed": 0}
        (cond,) = comfy.samplers.encode_model_conds(model.model.extra_conds, conds, x, x.device, "positive", **given)
        inputs = {name: value.process_cond(len(x), area=None).cond for name, value in cond["model_conds"].items()}
        return model.model.apply_model(x, sigma.expand(len(x)), **inputs)


def assert_same_output(actual: Tensor, expected: Tensor, x: Tensor) -> None:
    """x: what the model was given, in whose units its own output adds to the estimate."""
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6 * max(1.0, float(x.abs().max())))


@pytest.mark.parametrize("step", [0, 499, 999])
@pytest.mark.parametrize("size", SIZES)
def test_it_computes_what_comfyui_computes(any_model: Any, size: tuple[int, int], step: int) -> None:
    sigma = any_model.get_model_object("model_sampling").sigmas[step].clone()
    x, positive = normal(2, 4, *size) * (1 + sigma), positive_for(size)
    expected = through_comfyui(any_model, x, sigma, positive)
    assert_same_output(through_shadow(any_model, x, sigma, positive), expected, x)


@pytest.mark.parametrize("kind", WITH_A_TWIN)
def test_diffusers_computes_the_same_with_its_weights(model: Any, kind: str) -> None:
    any_model = (KINDS[kind] or (lambda: model))()
    sigma = torch.tensor(1.5)
    x, positive = normal(2, 4, 9, 13), positive_for((9, 13))
    expected = through_twin(any_model, x, sigma, positive)
    torch.testing.assert_close(through_shadow(any_model, x, sigma, positive), expected, rtol=0, atol=2e-5)


def test_it_copies_nothing(any_model: Any) -> None:
    with torch.inference_mode(), shadowed(any_model) as backbone:
        own, aliases = any_model.model.diffusion_model.state_dict(), backbone.network.state_dict()
        assert aliases.keys() == own.keys()
        for name, alias in aliases.items():
            assert alias.data_ptr() == own[name].data_ptr(), name
            assert alias.stride() == own[name].stride(), name


def test_the_original_is_not_touched(any_model: Any) -> None:
    def attributes() -> list[Any]:
        layers = any_model.model.diffusion_model.named_modules()
        return [(path, type(layer), {name: id(value) for name, value in vars(layer).items()}) for path, layer in layers]

    comfy.model_management.load_models_gpu([any_model], force_full_load=True)
    before = attributes()
    with torch.inference_mode(), shadowed(any_model) as backbone:
        backbone.enable_gradient_checkpointing()
        layers = [layer for layer in backbone.network.modules() if type(layer).__module__ == "comfy.ops"]
    assert not layers and not hooks_on(any_model)
    assert attributes() == before


def test_a_lora_that_the_model_carries_is_in_it(model: Any) -> None:
    """And not in the shadow of the plain model, before or after."""
    sigma = model.get_model_object("model_sampling").sigmas[499].clone()
    x, positive = normal(1, 4, 8, 8) * (1 + sigma), conditioning()
    carrying = with_lora(model, random_lora(0))
    before = through_shadow(model, x, sigma, positive)
    actual = through_shadow(carrying, x, sigma, positive)
    assert_same_output(actual, through_comfyui(carrying, x, sigma, positive), x)
    assert (actual - before).abs().max() > 1e-3
    torch.testing.assert_close(through_shadow(model, x, sigma, positive), before, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_gradients_flow_although_nodes_run_in_inference_mode(any_model: Any, checkpointing: bool) -> None:
    """And are those of finite differences."""
    sigma, direction = torch.tensor(1.0), normal(1, 4, 8, 8, seed=5)
    with torch.inference_mode():
        incoming = latent(size=(8, 8))["samples"]
        prompt = read_prompt(any_model, positive_for((8, 8)), "positive", incoming)
        with shadowed(any_model) as backbone:
            if checkpointing:
                backbone.enable_gradient_checkpointing()
            text = prompt.to(backbone.device)
            text.context.requires_grad_()
            denoise, x = backbone.denoiser(text), scaled_latent(any_model, incoming)
            start = x.clone().requires_grad_()
            denoise(start, sigma).square().sum().backward()
            assert not any(parameter.requires_grad for parameter in backbone.network.parameters())
            with torch.no_grad():
                ends = [denoise(x + step * direction, sigma).double().square().sum() for step in (1e-2, -1e-2)]
        assert torch.is_inference_mode_enabled()
    assert start.grad is not None and text.context.grad is not None and text.context.grad.abs().max() > 0
    slope = float((ends[0] - ends[1]) / 2e-2)
    assert float((start.grad * direction).sum()) == pytest.approx(slope, rel=0.02, abs=0.02 * float(ends[0]))


def test_attention_goes_through_pytorchs_own(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that ComfyUI chose may have no backward pass."""
    import comfy.ldm.modules.attention as attention

    def no_backward(*args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("ComfyUI's choice was called")

    monkeypatch.setattr(attention, "optimized_attention", attention.wrap_attn(no_backward))
    monkeypatch.setattr(attention, "optimized_attention_masked", attention.wrap_attn(no_backward))
    x, sigma, positive = normal(1, 4, 8, 8), torch.tensor(1.0), conditioning()
    with pytest.raises(AssertionError, match="choice"):
        through_comfyui(model, x, sigma, positive)
    assert through_shadow(model, x, sigma, positive).isfinite().all()


def test_the_error_scale_is_the_predictions() -> None:
    sigma = torch.tensor(2.0)
    for model, expected in ((models.sd1(), 1 / 2), (models.sd2(), 5**0.5 / 2)):
        with torch.inference_mode(), shadowed(model) as backbone:
            assert backbone.schedule.error_scale(sigma).item() == pytest.approx(expected)


def test_inference_mode_comes_back_after_an_error(model: Any) -> None:
    with torch.inference_mode():
        with pytest.raises(ZeroDivisionError), shadowed(model):
            raise ZeroDivisionError
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()


def test_latents_are_scaled_by_the_models_format() -> None:
    samples = latent()["samples"]
    assert torch.equal(scaled_latent(models.sd1(), samples), samples * 0.18215)


def test_a_transformer_has_no_up_blocks() -> None:
    with torch.inference_mode(), shadowed(models.dit()) as backbone, pytest.raises(UnsupportedModel, match="MMDIT"):
        backbone.up_blocks()


def test_a_network_that_cannot_be_shadowed_is_named() -> None:
    model = models.sd1()

    class Stubborn(torch.nn.Module):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("cannot be copied")

    model.model.diffusion_model.stubborn = Stubborn()
    with pytest.raises(UnsupportedModel, match="UNetModel, cannot take gradients here .*cannot be copied"):
        shadow_model(model.model, model.model.model_sampling, model.load_device, torch.float32)
    del diffusion_model(model).stubborn


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
        with shadowed(changed):
            pass
        assert not caplog.records
        change(changed)
        with shadowed(changed):
            pass
    (record,) = caplog.records
    assert f"the MODEL has {name}" in record.message and "only in KSampler" in record.message
