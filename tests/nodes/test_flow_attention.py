"""Attention KV Inject on transformers: against attention written out by hand, in parts, among other patches."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_tests.nodes.flow_models import FAMILIES, flux, image_for, normal, prompt_for
from morph_tests.nodes.graph import run, sample

ALPHAS = (0.0, 0.3, 0.6, 1.0)
WHOLE = {"strength": 1.0, "end_percent": 1.0, "blocks": "all blocks"}
SETTINGS = {"steps": 3, "start": 1, "scheduler": "simple"}
IMAGE_TOKENS = 4 * 6  # of 8 by 12 cells, in patches of 2
OVERRIDE = "optimized_attention_override"
QUICK = "Flux"
TRANSFORMERS = [
    name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "a UNet"
]


@pytest.fixture(scope="module", params=TRANSFORMERS)
def model(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param]()


def noise_for(model: Any, rows: int = 4) -> Tensor:
    return normal(rows, *image_for(model)["samples"].shape[1:], seed=3)


def frames_of(model: Any, patched: Any, **settings: Any) -> Tensor:
    return sample(patched, prompt_for(model), noise_for(model), **SETTINGS, **settings)


def injected(model: Any, **changes: Any) -> Any:
    return run("AttentionKVInject", model=model, **{"alphas": ALPHAS, **WHOLE, **changes})[0]


def with_override(model: Any, override: Any) -> Any:
    patched = model.clone()
    patched.model_options["transformer_options"][OVERRIDE] = override
    return patched


def by_hand(func: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Any = None, **kwargs: Any) -> Tensor:
    """Softmax attention, row by row, whose image tokens' keys and values are the ends' by the row's alpha."""
    if not kwargs.get("skip_reshape"):
        q, k, v = (x.flatten(2).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    if k.shape[2] < IMAGE_TOKENS:  # of the text alone
        mixed = list(zip(k, v, strict=True))
    else:
        text = k.shape[2] - IMAGE_TOKENS
        mixed = []
        for row, alpha in enumerate(ALPHAS * (len(k) // len(ALPHAS))):
            first = len(ALPHAS) * (row // len(ALPHAS))
            own = []
            for part in (k, v):
                ends = (1 - alpha) * part[first, :, text:] + alpha * part[first + len(ALPHAS) - 1, :, text:]
                own.append(torch.cat([part[row, :, :text], ends], dim=1))
            mixed.append((own[0], own[1]))
    rows = []
    for row, (keys, values) in enumerate(mixed):
        scores = q[row] @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[row], -torch.inf) if mask.dtype == torch.bool else scores + mask[row]
        rows.append(scores.softmax(-1) @ values)
    result = torch.stack(rows)
    return result if kwargs.get("skip_output_reshape") else result.transpose(1, 2).flatten(2)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_it_is_attention_written_out_by_hand(model: Any, cfg: float) -> None:
    guided = {"cfg": cfg, "negative": prompt_for(model, seed=9)}
    actual = frames_of(model, injected(model), **guided)
    assert distance(actual, frames_of(model, with_override(model, by_hand), **guided)) < 2e-5
    assert distance(actual[1:3], frames_of(model, model, **guided)[1:3]) > 1e-3


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

    def blended(one: Any) -> Any:
        return run("LoraBlend", model=one, start=loras[0], end=loras[1], alphas=ALPHAS)[0]

    whole = frames_of(model, injected(blended(model)))
    order = (blended, lambda one: injected(one, frames_per_batch=1))
    patched = model
    for patch in order if first == "LoRA Blend" else order[::-1]:
        patched = patch(patched)
    assert distance(frames_of(model, patched), whole) < 5e-5
    assert distance(frames_of(model, injected(model)), whole) > 1e-3
