"""What the patches keep for a run of a sampler, what is left of it, and patches that meet on one MODEL."""

from collections.abc import Iterator
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

import morph_pack.nodes.host.blended_loras as blended_loras
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.blend import StackedLoras
from morph_pack.morph_core.morphing.alphas import alpha_schedule
from morph_tests.nodes.graph import conditioning, hooks_on, normal, random_lora, run, sample

FRAMES = 4
ALPHAS = alpha_schedule(FRAMES)
NOISE = 10 * normal(FRAMES, 4, 8, 12)
STEPS = 5


def blend(model: Any) -> Any:
    return run("LoraBlend", model=model, start=random_lora(0), end=random_lora(1, rank=6), alphas=ALPHAS)[0]


def inject(
    model: Any, blocks: str = "all blocks", strength: float = 1.0, frames_per_batch: int = 0, end_percent: float = 1.0
) -> Any:
    settings = {"strength": strength, "end_percent": end_percent, "blocks": blocks}
    return run("AttentionKVInject", model=model, alphas=ALPHAS, frames_per_batch=frames_per_batch, **settings)[0]


def frames(model: Any, steps: int = STEPS, **settings: Any) -> Tensor:
    return sample(model, conditioning(), NOISE, steps, **settings)


def held(model: Any) -> list[Any]:
    """What each LoRA Blend of a MODEL has stacked now."""
    wrappers = model.wrappers[WrappersMP.OUTER_SAMPLE][blended_loras.KEY]
    assert wrappers
    return [wrapper.__self__.stacked for wrapper in wrappers]


def in_every_call(model: Any, act: Any) -> Any:
    """A clone that calls `act` with the number of the call, from 1, beside the network."""
    calls: list[int] = []

    def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        act(len(calls))
        return executor(*args, **kwargs)

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", wrapper)
    return watched


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[StackedLoras]]:
    """Every `StackedLoras` that the node makes."""
    made: list[StackedLoras] = []

    class Counted(StackedLoras):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(blended_loras, "StackedLoras", Counted)
    yield made


VARIANTS: dict[str, Any] = {
    "alone": blend,
    "cloned": lambda model: blend(model).clone(),
    "frame by frame": lambda model: inject(blend(model), frames_per_batch=1),
    "frame by frame, cloned": lambda model: inject(blend(model), frames_per_batch=1).clone().clone(),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_loras_are_stacked_once_a_run(model: Any, stacks: list[StackedLoras], variant: str) -> None:
    patched = VARIANTS[variant](model)
    first = frames(patched)
    assert len(stacks) == 1
    assert torch.equal(frames(patched), first)
    assert len(stacks) == 2


def test_loras_are_stacked_once_with_guidance(model: Any, stacks: list[StackedLoras]) -> None:
    frames(blend(model), negative=conditioning(5), cfg=2.5)
    assert len(stacks) == 1


def test_two_blends_on_one_model_stack_their_own(model: Any, stacks: list[StackedLoras]) -> None:
    frames(blend(blend(model)), steps=2)
    assert len(stacks) == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_held_after_a_run(model: Any, variant: str) -> None:
    during: list[Any] = []
    patched = VARIANTS[variant](model)
    watched = in_every_call(patched, lambda call: during.extend(held(watched)))
    assert held(patched) == [None]
    frames(watched)
    assert during and all(len(stacked) == 1 for stacked in during)
    assert held(watched) == held(patched) == [None]
    assert hooks_on(model) == []


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("error", [comfy.model_management.InterruptProcessingException, RuntimeError])
def test_nothing_is_held_after_a_run_that_ends_early(model: Any, variant: str, error: type[BaseException]) -> None:
    patched, calls = VARIANTS[variant](model), []
    expected = frames(patched, steps=2)

    def stop(call: int) -> None:
        calls.append(call)
        if call == 2:
            raise error

    stopped = in_every_call(patched, stop)
    with pytest.raises(error):
        frames(stopped)
    assert calls == [1, 2]
    assert held(stopped) == held(patched) == [None]
    assert hooks_on(model) == []
    assert torch.equal(frames(patched, steps=2), expected)


def test_a_clones_result_is_the_models_own(model: Any) -> None:
    """Cloning copies patches of attention but not wrappers."""
    patched = inject(blend(model))
    expected = frames(patched)
    assert torch.equal(frames(patched.clone()), expected)
    assert torch.equal(frames(patched.clone().clone()), expected)
    assert torch.equal(frames(patched), expected)
    for other in (blend(model), inject(model), model):
        assert (frames(other) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("between", ["nothing", "a clone"])
def test_two_attention_patches_on_one_model_both_act(model: Any, between: str) -> None:
    def then(patched: Any) -> Any:
        return patched.clone() if between == "a clone" else patched

    first, everywhere = frames(inject(model, "up blocks")), frames(inject(model, "all blocks"))
    assert (first - everywhere).abs().max() > 1e-3
    assert (first - frames(model)).abs().max() > 1e-3
    off = {"blocks": "all blocks", "strength": 0.0}
    assert torch.equal(frames(inject(then(inject(model, "up blocks")), **off)), first)
    assert torch.equal(frames(inject(then(inject(model, **off)), "up blocks")), first)
    both = frames(inject(then(inject(model, "up blocks")), "all blocks"))  # a mix of what is mixed already is that
    torch.testing.assert_close(both, everywhere, rtol=0, atol=1e-4)


def test_two_attention_patches_in_different_steps_both_act(model: Any) -> None:
    early, whole = {"end_percent": 0.4}, frames(inject(model))
    assert (frames(inject(model, **early)) - whole).abs().max() > 1e-3
    for patched in (inject(inject(model, **early)), inject(inject(model), **early)):
        torch.testing.assert_close(frames(patched), whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2])
def test_each_of_two_attention_patches_keeps_its_own_ends_for_the_parts(model: Any, size: int) -> None:
    """The second sees ends that the first has changed, as where every row looks at the first."""
    settings = {"strength": 0.7, "end_percent": 1.0, "blocks": "all blocks", "alphas": None}
    (first,) = run("AttentionKVInject", model=model, **settings)
    whole = frames(inject(first), steps=2)
    torch.testing.assert_close(frames(inject(first, frames_per_batch=size), steps=2), whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("frames_per_batch", [0, 2])
def test_a_layer_that_sees_other_rows_than_the_batch_is_refused_by_name(model: Any, frames_per_batch: int) -> None:
    doubled = model.clone()
    doubled.set_model_attn1_patch(lambda q, k, v, options: (q, torch.cat([k, k]), torch.cat([v, v])))
    seen = frames_per_batch or FRAMES
    with pytest.raises(InvalidInput, match=f"^Attention KV Inject: a layer sees {2 * seen} rows of a batch of {seen}"):
        frames(inject(doubled, frames_per_batch=frames_per_batch))
    assert hooks_on(model) == []
