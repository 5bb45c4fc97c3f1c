"""What holds for every model that is sampled by flow matching: the runs and the assertions that tests share."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
from torch import Tensor

from morph_tests.nodes.flow_models import image_for, image_tokens, normal, padded, prompt_for
from morph_tests.nodes.graph import run, sample, stock

STEPS = 6
SPACING = {"steps": STEPS, "scheduler": "simple"}
ALPHAS = (0.0, 0.3, 0.6, 1.0)
WHOLE = {"strength": 1.0, "end_percent": 1.0, "blocks": "all blocks"}
SETTINGS = {"steps": 3, "start": 1, "scheduler": "simple"}
OVERRIDE = "optimized_attention_override"


def invert(
    model: Any, prompt: Any, image: Any, start: int = 0, iterations: int = 40, steps: int = STEPS
) -> tuple[Any, ...]:
    spacing = {**SPACING, "steps": steps, "start_at_step": start, "fixed_point_iterations": iterations}
    return run("DdimInvert", model=model, positive=prompt, latent_image=image, **spacing)


def sampled(model: Any, prompt: Any, noise: Any, rows: int = 1, steps: int = STEPS) -> Tensor:
    """What SamplerCustomAdvanced makes of a NOISE over an empty latent, with euler."""
    empty = {"samples": torch.zeros(rows, *noise.x.shape[1:])}
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(prompt, prompt)
    guider.set_cfg(1.0)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, SPACING["scheduler"], steps)
    sampler = comfy.samplers.sampler_object("euler")
    inputs = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas, "latent_image": empty}
    return stock(SamplerCustomAdvanced, **inputs)[0]["samples"]


def away(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def assert_the_image_comes_back(model: Any, prompt: Any, image: Any, inverted: Any, steps: int = STEPS) -> None:
    """From pure noise, and from other noise it does not."""
    noise = inverted[3]
    assert float(noise.sigma) == pytest.approx(float(model.get_model_object("model_sampling").sigma_max), rel=1e-3)
    assert away(sampled(model, prompt, noise, steps=steps), image["samples"]) < 1e-4
    other = replace(noise, x=noise.x + 0.1)
    assert away(sampled(model, prompt, other, steps=steps), image["samples"]) > 1e-3


def noise_for(model: Any, rows: int = 4) -> Tensor:
    return normal(rows, *image_for(model)["samples"].shape[1:], seed=3)


def frames_of(model: Any, patched: Any, prompt: Any = None, **settings: Any) -> Tensor:
    return sample(patched, prompt or prompt_for(model), noise_for(model), **{**SETTINGS, **settings})


def injected(model: Any, **changes: Any) -> Any:
    return run("AttentionKVInject", model=model, **{"alphas": ALPHAS, **WHOLE, **changes})[0]


def with_override(model: Any, override: Any) -> Any:
    patched = model.clone()
    patched.model_options["transformer_options"][OVERRIDE] = override
    return patched


def by_hand(image: int, text: int) -> Callable[..., Tensor]:
    """Softmax attention, row by row, whose `image` tokens' keys and values are the ends' by the row's alpha.

    text: how many tokens the text has where it is alone.
    """

    def attention(func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Any = None, **kwargs: Any) -> Tensor:
        if not kwargs.get("skip_reshape"):
            q, k, v = (x.flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        mixed = list(zip(k, v, strict=True)) if k.shape[2] == text else _mixed(k, v, k.shape[2] - image)
        rows = []
        for row, (keys, values) in enumerate(mixed):
            scores = q[row] @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if mask is not None:
                scores = scores.masked_fill(~mask[row], -torch.inf) if mask.dtype == torch.bool else scores + mask[row]
            rows.append(scores.softmax(-1) @ values)
        result = torch.stack(rows)
        return result if kwargs.get("skip_output_reshape") else result.transpose(1, 2).flatten(2)

    return attention


def _mixed(k: Tensor, v: Tensor, text: int) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of every row, those after the text's mixed from the ends'."""
    rows = []
    for row, alpha in enumerate(ALPHAS * (len(k) // len(ALPHAS))):
        first = len(ALPHAS) * (row // len(ALPHAS))
        own = []
        for part in (k, v):
            ends = (1 - alpha) * part[first, :, text:] + alpha * part[first + len(ALPHAS) - 1, :, text:]
            own.append(torch.cat([part[row, :, :text], ends], dim=1))
        rows.append((own[0], own[1]))
    return rows


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def assert_it_is_attention_by_hand(model: Any, cfg: float, tokens: int = 7, **settings: Any) -> None:
    """Attention KV Inject's frames. tokens: of the text."""
    prompt = prompt_for(model, tokens=tokens)
    guided = {"cfg": cfg, "negative": prompt_for(model, seed=9, tokens=tokens), "prompt": prompt, **settings}
    actual = frames_of(model, injected(model), **guided)
    written = with_override(model, by_hand(image_tokens(model), padded(model, tokens)))
    assert distance(actual, frames_of(model, written, **guided)) < 2e-5
    assert distance(actual[1:3], frames_of(model, model, **guided)[1:3]) > 1e-3


def assert_the_order_does_not_matter(model: Any, loras: list[Any], first: str, **settings: Any) -> None:
    """Of Attention KV Inject, in parts, and LoRA Blend; first: which of them is put on the model first."""

    def blended(one: Any) -> Any:
        return run("LoraBlend", model=one, start=loras[0], end=loras[1], alphas=ALPHAS)[0]

    whole = frames_of(model, injected(blended(model)), **settings)
    order = (blended, lambda one: injected(one, frames_per_batch=1))
    patched = model
    for patch in order if first == "LoRA Blend" else order[::-1]:
        patched = patch(patched)
    assert distance(frames_of(model, patched, **settings), whole) < 5e-5
    assert distance(frames_of(model, injected(model), **settings), whole) > 1e-3
