"""Fit Image LoRA makes the core's LoRA, which ComfyUI's own loader takes whole."""

import logging
from collections.abc import Callable
from typing import Any

import comfy.utils
import pytest
import torch

from morph_pack.morph_core.lora_fit import LoraFit, fit_lora
from morph_pack.morph_core.schedule import alphas_cumprod
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.morph_core.unet_bridge import diffusers_config
from morph_pack.nodes.toy import _ToyConfig
from morph_tests.nodes import models
from morph_tests.nodes.graph import (
    attention_layers,
    conditioning,
    diffusion_model,
    latent,
    normal,
    random_lora,
    run,
    sample,
    with_lora,
)

PATHS = {name.replace(".", "_"): name for name in attention_layers()}
FIT = LoraFit(rank=3, steps=4, learning_rate=1e-3, seed=5)


def fit(model: Any, **changes: Any) -> Any:
    """LORA_MODEL and LOSS_MAP."""
    settings = {"rank": FIT.rank, "steps": FIT.steps, "learning_rate": FIT.learning_rate, "seed": FIT.seed}
    image = latent(size=(8, 8))
    return run("FitImageLora", **{"model": model, "latent": image, "positive": conditioning(), **settings, **changes})


def assert_same_lora(actual: Any, expected: Any) -> None:
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=0, atol=1e-6, msg=key)


def test_it_is_the_cores_fit(model: Any, core: ToyModel) -> None:
    lora, loss = fit(model)
    image = latent(size=(8, 8))["samples"] * SCALE_FACTOR
    expected = fit_lora(core.unet, image, conditioning()[0][0], core.train_alphas, FIT)
    assert_same_lora(lora, expected.weights)
    assert loss["loss"] == pytest.approx(expected.losses, abs=1e-6) and len(loss["loss"]) == FIT.steps


def test_it_follows_the_models_prediction_and_latent_format() -> None:
    """On a model of the Stable Diffusion 2 kind, against a diffusers UNet that was built without the bridge."""
    from diffusers import UNet2DConditionModel

    model = models.sd2()
    config = model.model.model_config.unet_config
    weights = diffusion_model(model).state_dict()
    unet = UNet2DConditionModel(**diffusers_config(config))
    names = comfy.utils.unet_to_diffusers(config)
    unet.load_state_dict({name: weights[names[name]].clone() for name in unet.state_dict()})
    image = latent(size=(8, 8))["samples"] * 0.18215
    expected = fit_lora(unet, image, conditioning()[0][0], alphas_cumprod(), FIT, "v_prediction")
    lora, loss = fit(model)
    assert loss["loss"] == pytest.approx(expected.losses, rel=1e-4)
    assert lora.keys() == expected.weights.keys()
    for key, value in expected.weights.items():
        torch.testing.assert_close(lora[key], value, rtol=0, atol=1e-4, msg=key)


def test_load_lora_model_uses_every_key(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    lora, _ = fit(model)
    with caplog.at_level(logging.WARNING):
        patched = with_lora(model, lora)
    assert not caplog.records, "ComfyUI warns of keys that it does not use"
    assert len(patched.patches) == len(lora) // 3 == len(attention_layers())


def test_the_fitted_lora_lowers_the_loss_that_it_was_fitted_for(model: Any) -> None:
    """Measured again with the LoRA loaded, on the same noise and timesteps."""
    lora, before = fit(model, steps=12, learning_rate=1e-2)
    _, after = fit(with_lora(model, lora), steps=12, learning_rate=1e-7)
    _, plain = fit(model, steps=12, learning_rate=1e-7)
    assert sum(after["loss"]) < sum(plain["loss"])
    assert before["loss"][0] == pytest.approx(plain["loss"][0], abs=1e-6)


def test_it_fits_on_top_of_a_lora_that_the_model_carries(model: Any) -> None:
    plain, carrying = fit(model), fit(with_lora(model, random_lora(0)))
    assert plain[1]["loss"][0] != pytest.approx(carrying[1]["loss"][0], abs=1e-5)
    assert plain[0].keys() == carrying[0].keys()


def test_the_seed_decides_everything_and_no_other_random_numbers(model: Any) -> None:
    torch.manual_seed(1)
    first, _ = fit(model)
    state = torch.random.get_rng_state()
    second, _ = fit(model)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert_same_lora(fit(model)[0], first)
    assert_same_lora(second, first)
    other, _ = fit(model, seed=0xFFFFFFFFFFFFFFFF)
    assert any(not torch.equal(other[key], first[key]) for key in first)


def diffusers_name(key: str) -> str:
    """A key of kohya's style as diffusers' `save_attn_procs` writes it."""
    layer, _, matrix = key.removeprefix("lora_unet_").partition(".lora_")
    path = PATHS[layer].replace(".to_", ".processor.to_").removesuffix(".0")
    return f"unet.{path}_lora.{matrix}"


def comfyui_name(key: str) -> str:
    """The same under ComfyUI's own name of the layer, with PEFT's letters."""
    layer, _, matrix = key.removeprefix("lora_unet_").partition(".lora_")
    own = comfy.utils.unet_to_diffusers(_ToyConfig.unet_config)[PATHS[layer] + ".weight"].removesuffix(".weight")
    return f"diffusion_model.{own}.lora_{'B' if matrix.startswith('up') else 'A'}.weight"


@pytest.mark.parametrize("rename", [diffusers_name, comfyui_name])
def test_lora_blend_reads_what_comfyui_reads(model: Any, rename: Callable[[str], str]) -> None:
    """LoRAs without alphas, which other trainers write under names of their own."""
    lora = {key: value for key, value in random_lora(0).items() if not key.endswith(".alpha")}
    renamed = {rename(key): value for key, value in lora.items()}
    noise = 10 * normal(1, 4, 8, 12)
    frames = [
        sample(run("LoraBlend", model=model, start=start, end=start, alphas=(0.5,))[0], conditioning(), noise, 4)
        for start in (lora, renamed)
    ]
    assert torch.equal(*frames)
    merged = sample(with_lora(model, renamed), conditioning(), noise, 4)
    torch.testing.assert_close(frames[0], merged, rtol=0, atol=1e-4)
    assert (merged - sample(model, conditioning(), noise, 4)).abs().max() > 0.01
