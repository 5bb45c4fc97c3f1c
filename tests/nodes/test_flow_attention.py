"""Attention KV Inject on transformers: against attention written out by hand, in parts, among other patches."""

from typing import Any

import comfy.supported_models
import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_tests.nodes.flow_models import FAMILIES, flux, image_for, prompt_for, z_image
from morph_tests.nodes.flow_truths import (
    ALPHAS,
    SETTINGS,
    assert_it_is_attention_by_hand,
    assert_the_order_does_not_matter,
    distance,
    frames_of,
    injected,
    noise_for,
    with_override,
)
from morph_tests.nodes.graph import run, sample

QUICK = "Flux"
TRANSFORMERS = [
    name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "a UNet"
]


@pytest.fixture(scope="module", params=TRANSFORMERS)
def model(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param]()


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_it_is_attention_written_out_by_hand(model: Any, cfg: float) -> None:
    assert_it_is_attention_by_hand(model, cfg)


def test_of_padded_tokens_a_long_text_is_not_taken_for_the_image() -> None:
    if not hasattr(comfy.supported_models, "ZImage"):
        pytest.skip("this ComfyUI has no Z-Image")
    assert_it_is_attention_by_hand(z_image(pad=8), cfg=1.0, tokens=30)


def test_the_ends_are_plain_and_without_strength_all_are(model: Any) -> None:
    plain = frames_of(model, model)
    assert distance(frames_of(model, injected(model))[[0, 3]], plain[[0, 3]]) < 1e-5
    assert distance(frames_of(model, injected(model, strength=0.0)), plain) < 1e-5


@pytest.mark.parametrize("frames_per_batch", [1, 2])
def test_in_parts_it_is_the_same(model: Any, frames_per_batch: int) -> None:
    parts = frames_of(model, injected(model, frames_per_batch=frames_per_batch))
    assert distance(parts, frames_of(model, injected(model))) < 2e-5


def test_without_alphas_every_row_looks_at_the_first(model: Any) -> None:
    noise, prompt = noise_for(model, 2), prompt_for(model)
    noise[1] = noise[0] + 0.1 * noise[1]
    actual = sample(injected(model, alphas=None), prompt, noise, **SETTINGS)
    plain = sample(model, prompt, noise, **SETTINGS)
    assert distance(actual[:1], plain[:1]) < 1e-5 < 1e-3 < distance(actual[1:], plain[1:])


def test_fewer_blocks_and_fewer_steps_do_less(model: Any) -> None:
    plain, whole = frames_of(model, model), frames_of(model, injected(model))
    results = [
        frames_of(model, injected(model, **change)) for change in ({"blocks": "up blocks"}, {"end_percent": 0.5})
    ]
    for result in results:
        assert distance(result[1:3], plain[1:3]) > 1e-4 and distance(result[1:3], whole[1:3]) > 1e-4
    assert distance(frames_of(model, injected(model, end_percent=0.0)), plain) < 1e-5


def test_an_override_that_is_there_already_is_called_with_what_was_mixed() -> None:
    model, seen = flux(), []

    def watch(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(args[1])
        return func(*args, **kwargs)

    actual = frames_of(model, injected(with_override(model, watch)))
    assert distance(actual, frames_of(model, injected(model))) < 1e-6
    assert torch.equal(seen[0][1, :, -1], torch.lerp(seen[0][0, :, -1], seen[0][3, :, -1], ALPHAS[1]))


def test_a_patch_that_replaces_it_is_refused() -> None:
    model = flux()
    replaced = with_override(injected(model), lambda func, *args, **kwargs: func(*args, **kwargs))
    with pytest.raises(InvalidInput, match="Attention KV Inject: another patch of the MODEL replaces the attention"):
        frames_of(model, replaced)


def test_reference_latents_are_refused() -> None:
    model = flux()
    prompt = prompt_for(model, reference_latents=[image_for(model)["samples"]])
    with pytest.raises(InvalidInput, match="Attention KV Inject: the prompt carries reference latents"):
        sample(injected(model), prompt, noise_for(model), **SETTINGS)


@pytest.mark.parametrize("first", ["LoRA Blend", "Attention KV Inject"])
def test_with_lora_blend_in_parts_the_order_does_not_matter(model: Any, first: str) -> None:
    fit = {"rank": 2, "steps": 3, "learning_rate": 0.05, "seed": 0}
    loras = [
        run("FitImageLora", model=model, latent=image_for(model, seed), positive=prompt_for(model), **fit)[0]
        for seed in (1, 2)
    ]
    assert_the_order_does_not_matter(model, loras, first)
