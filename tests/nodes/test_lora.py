"""Fit Image LoRA makes the core's LoRA, which ComfyUI's own loader takes whole."""

import logging
from typing import Any

import pytest
import torch
from morph_pack.morph_core.lora_fit import LoraFit, fit_lora
from morph_pack.morph_core.schedule import alphas_cumprod
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.morph_core.unet_bridge import diffusers_config
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, diffusion_model, latent, normal, random_lora, run, sample, with_lora

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
    import comfy.utils
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
    assert len(patched.patches) == len(lora) // 3
    names = [name for name, _ in model.model.diffusion_model.named_modules()]
    projections = sum(name.endswith(("to_q", "to_k", "to_v", "to_out.0")) for name in names)
    assert len(patched.patches) == projections, "every attention projection has its layer"


def test_the_fitted_lora_lowers_the_loss_that_it_was_fitted_for(model: Any) -> None:
    """Measured again with the LoRA loaded, on the same noise and timesteps."""
    settings = {"steps": 30, "learning_rate": 5e-3}
    lora, before = fit(model, **settings)
    _, after = fit(with_lora(model, lora), **{**settings, "learning_rate": 1e-7})
    _, plain = fit(model, **{**settings, "learning_rate": 1e-7})
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


@pytest.mark.parametrize("style", ["diffusers", "peft"])
def test_lora_blend_reads_other_trainers_names(model: Any, style: str) -> None:
    """Whatever ComfyUI's own reader knows: here the names that diffusers writes, without alphas."""
    names = [name for name, _ in _toy_unet().named_modules()]
    lora = {key: value for key, value in random_lora(0).items() if not key.endswith(".alpha")}
    renamed = {}
    for key, value in lora.items():
        layer = next(name for name in names if "lora_unet_" + name.replace(".", "_") == key.split(".")[0])
        up = ".lora_up." in key
        suffix = {"diffusers": f".lora.{'up' if up else 'down'}.weight", "peft": f".lora_{'B' if up else 'A'}.weight"}
        renamed["unet." + layer + suffix[style]] = value
    noise = 10 * normal(1, 4, 8, 12)
    frames = [
        sample(run("LoraBlend", model=model, start=start, end={**start}, alphas=(0.5,))[0], conditioning(), noise, 4)
        for start in (lora, renamed)
    ]
    assert torch.equal(*frames)
    assert (frames[0] - sample(model, conditioning(), noise, 4)).abs().max() > 0.01


def _toy_unet() -> torch.nn.Module:
    from morph_pack.morph_core.toy.model import new_unet

    with torch.device("meta"):
        return new_unet()
