"""Frames that go through the model in parts come out as those that go through at once."""

from collections.abc import Callable
from typing import Any

import comfy.sampler_helpers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.alphas import alpha_schedule
from morph_pack.nodes.host.frame_batches import PART, InParts
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, normal, random_lora, run, sample

FRAMES = 7
ALPHAS = alpha_schedule(FRAMES)
NOISE = 10 * normal(FRAMES, 4, 8, 12)


def inject(model: Any, alphas: Any, frames_per_batch: int) -> Any:
    settings = {"strength": 0.8, "end_percent": 1.0, "blocks": "all blocks"}
    return run("AttentionKVInject", model=model, alphas=alphas, frames_per_batch=frames_per_batch, **settings)[0]


def blend(model: Any) -> Any:
    return run("LoraBlend", model=model, start=random_lora(0), end=random_lora(1, rank=6), alphas=ALPHAS)[0]


ORDERS: dict[str, Callable[[Any, int], Any]] = {
    "LoRA Blend first": lambda model, size: inject(blend(model), ALPHAS, size),
    "Attention KV Inject first": lambda model, size: blend(inject(model, ALPHAS, size)),
}


def prompts(**pooled: Any) -> Any:
    """One a frame, so that a row with another row's prompt would show."""
    starts = [conditioning(i, **{name: normal(*shape, seed=i) for name, shape in pooled.items()}) for i in range(2)]
    return run("BlendConditioning", start=starts[0], end=starts[1], alphas=ALPHAS)[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("cfg", [1.0, pytest.param(2.5, marks=pytest.mark.slow)])
def test_the_result_is_that_of_all_frames_at_once(model: Any, order: str, size: int, cfg: float) -> None:
    patched = ORDERS[order]
    settings = {"positive": prompts(), "negative": conditioning(5), "noise": NOISE, "steps": 3, "cfg": cfg}
    whole = sample(patched(model, 0), **settings)
    torch.testing.assert_close(sample(patched(model, size), **settings), whole, rtol=0, atol=1e-4)
    assert (whole - sample(blend(model), **settings)).abs().max() > 0.01


def test_the_result_is_the_same_for_sdxl() -> None:
    """Every row has a vector of its own."""
    model, positive = models.sdxl(), prompts(pooled_output=(1, models.POOLED_WIDTH))
    whole = sample(inject(model, ALPHAS, 0), positive, NOISE, 2)
    torch.testing.assert_close(sample(inject(model, ALPHAS, 2), positive, NOISE, 2), whole, rtol=0, atol=1e-4)


def test_every_row_of_a_drag_looks_at_the_first(model: Any) -> None:
    whole = sample(inject(model, None, 0), conditioning(), NOISE, 3)
    torch.testing.assert_close(sample(inject(model, None, 2), conditioning(), NOISE, 3), whole, rtol=0, atol=1e-4)
    assert (whole - sample(model, conditioning(), NOISE, 3)).abs().max() > 0.01


@pytest.mark.parametrize(
    ("size", "expected"), [(0, [7]), (1, [2, 1, 1, 1, 1, 1]), (2, [2, 2, 2, 1]), (4, [2, 4, 1]), (6, [2, 5]), (7, [7])]
)
def test_no_more_rows_go_through_the_network_at_a_time(model: Any, size: int, expected: list[int]) -> None:
    rows: list[int] = []

    def watch(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rows.append(len(x))
        return executor(x, *args, **kwargs)

    watched = inject(model, ALPHAS, size)
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
    sample(watched, conditioning(), NOISE, 1)
    assert rows == expected


@pytest.mark.slow
def test_the_larger_of_two_patches_numbers_does_not_matter(model: Any) -> None:
    """The outer one parts the frames; parts are not parted again."""
    whole = sample(inject(inject(model, ALPHAS, 0), ALPHAS, 0), conditioning(), NOISE, 2)
    for sizes in ((2, 3), (3, 2), (0, 2)):
        parted = inject(inject(model, ALPHAS, sizes[0]), ALPHAS, sizes[1])
        torch.testing.assert_close(sample(parted, conditioning(), NOISE, 2), whole, rtol=0, atol=1e-4)


def test_all_that_belongs_to_a_row_goes_with_it() -> None:
    """A ControlNet's residuals, for one, of which some layers have none and a T2I-Adapter has one row for all."""
    x, shared = torch.arange(8.0).reshape(8, 1), torch.ones(1, 1)
    options = {"cond_or_uncond": [1, 0], "other": 5}
    seen: list[tuple[int, ...]] = []

    def execute(
        x: Tensor, t: Tensor, concat: Any, context: Tensor, control: Any, options: dict[str, Any], y: Tensor
    ) -> Tensor:
        seen.append(tuple(int(value) for value in x))
        for value in (t, context, control["input"][0], y):
            assert torch.equal(value, x)
        assert concat is None and control["input"][1] is None and control["output"][0] is shared
        assert options["other"] == 5 and options[PART].total == 4
        assert options["ad_params"] == {"sub_idxs": [int(row) for row in x[: len(x) // 2]], "full_length": 4}
        return x + 1

    control = {"input": [x, None], "output": [shared]}
    result = InParts(1)(execute, x, x, None, x, control, options, y=x)
    assert torch.equal(result, x + 1)
    assert seen == [(0, 3, 4, 7), (1, 5), (2, 6)]
    assert PART not in options


def test_memory_is_asked_for_one_part(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = comfy.sampler_helpers.estimate_memory

    def estimate(model: Any, noise_shape: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(noise_shape[0])
        return original(model, noise_shape, *args, **kwargs)

    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", estimate)
    for size in (0, 1, 3, 100):
        sample(inject(model, ALPHAS, size), conditioning(), NOISE, 1)
    assert asked == [7, 2, 3, 7]


def test_gligen_is_refused(model: Any) -> None:
    patched = inject(model, ALPHAS, 2)
    patched.set_model_patch(lambda x, options: x, "middle_patch")
    with pytest.raises(InvalidInput, match="Attention KV Inject: frames_per_batch cannot part what GLIGEN adds"):
        sample(patched, conditioning(), NOISE, 1)


@pytest.mark.parametrize("size", [0, -1, -2])
def test_parts_of_no_frames_are_refused(model: Any, size: int) -> None:
    with pytest.raises(InvalidInput, match=f"frames_per_batch must be at least 1 .* got {size}"):
        InParts(size)
    if size:  # 0 is all at once
        with pytest.raises(InvalidInput, match="^Attention KV Inject: frames_per_batch must be between 0 and 1024"):
            inject(model, ALPHAS, size)


def test_alphas_of_another_number_are_refused_by_name(model: Any) -> None:
    with pytest.raises(InvalidInput, match="Attention KV Inject: alphas is for 7 frames but .* a batch of 5"):
        sample(inject(model, ALPHAS, 2), conditioning(), NOISE[:5], 2)
    with pytest.raises(InvalidInput, match="LoRA Blend: alphas is for 7 frames but .* a batch of 5"):
        sample(blend(inject(model, ALPHAS[:5], 2)), conditioning(), NOISE[:5], 2)
