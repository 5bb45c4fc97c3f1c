"""Nothing that comes into a node is changed: ComfyUI caches outputs and hands the same objects to others."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from morph_pack.morph_core.errors import InvalidInput
from morph_tests.nodes.good_inputs import ALPHAS, LASTING, NODES, good_inputs, lasting_inputs
from morph_tests.nodes.graph import (
    conditioning,
    diffusion_model,
    hooks_on,
    normal,
    random_lora,
    run,
    sample,
    with_lora,
)


def snapshot(value: Any) -> Any:
    """All that could be changed in a value, in a form that `==` compares."""
    if isinstance(value, torch.Tensor):
        content = value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return value.dtype, value.shape, value.requires_grad, hashlib.sha256(content).hexdigest()
    if isinstance(value, ModelPatcher):
        network = diffusion_model(value)
        return {
            "weights": snapshot(dict(network.state_dict(keep_vars=True))),
            "layers": [(name, type(module)) for name, module in network.named_modules()],
            "hooks": hooks_on(value),
            **{name: snapshot(getattr(value, name)) for name in ("model_options", "patches", "object_patches")},
            **{name: snapshot(getattr(value, name)) for name in ("wrappers", "callbacks", "attachments", "injections")},
        }
    if isinstance(value, comfy.sd.CLIP):
        return snapshot(value.cond_stage_model.state_dict(keep_vars=True)), snapshot(value.patcher.patches)
    if dataclasses.is_dataclass(value):
        return {field.name: snapshot(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [snapshot(item) for item in value]
    return value


@pytest.fixture(scope="module")
def loaded(model: Any) -> Any:
    """A MODEL that has something in all of its lists: a LoRA, a wrapper and an attention patch."""
    lora = random_lora(0)
    carrying = with_lora(model, lora)
    sample(carrying, conditioning(), normal(1, 4, 8, 12), 1)  # when it first merges a LoRA, ComfyUI freezes weights
    (blend,) = run("LoraBlend", model=carrying, start=lora, end=lora, alphas=(0.0,))
    settings = {"strength": 1.0, "end_percent": 1.0, "blocks": "all blocks"}
    return run("AttentionKVInject", model=blend, alphas=(0.0,), **settings)[0]


@pytest.mark.parametrize("node", NODES)
def test_a_node_leaves_its_inputs_as_they_are(loaded: Any, node: str) -> None:
    inputs = good_inputs(node, loaded)
    before = snapshot(inputs)
    run(node, **inputs)
    assert snapshot(inputs) == before


def test_the_snapshot_sees_what_a_node_could_change(model: Any) -> None:
    before = snapshot(model.clone())
    for change in (
        lambda patched: patched.set_model_attn1_patch(print),
        lambda patched: patched.add_wrapper_with_key("diffusion_model", "key", print),
        lambda patched: patched.add_object_patch("model_sampling", None),
        lambda patched: patched.add_patches({"diffusion_model.out.2.weight": ("diff", (torch.zeros(4, 64, 3, 3),))}),
    ):
        patched = model.clone()
        change(patched)
        assert snapshot(patched) != before
    weight = model.model.diffusion_model.out[2].weight
    original = weight.detach().clone()
    with torch.inference_mode():
        weight[0, 0, 0, 0] += 1e-3
        assert snapshot(model.clone()) != before
        weight.copy_(original)
    assert snapshot(model.clone()) == before


def patched_model(model: Any) -> Any:
    (blend,) = run("LoraBlend", model=model, start=random_lora(1), end=random_lora(2), alphas=ALPHAS)
    settings = {"strength": 1.0, "end_percent": 1.0, "blocks": "all blocks"}
    return run("AttentionKVInject", model=blend, alphas=ALPHAS, **settings)[0]


def ksampler_inputs(model: Any, steps: int) -> dict[str, Any]:
    return {"model": patched_model(model), "positive": conditioning(), "noise": normal(3, 4, 8, 12), "steps": steps}


def a_node(name: str) -> tuple[Callable[..., Any], Callable[[Any, int], dict[str, Any]]]:
    return functools.partial(run, name), functools.partial(lasting_inputs, name)


LONG_RUNS: dict[str, tuple[Callable[..., Any], Callable[[Any, int], dict[str, Any]]]] = {
    **{name: a_node(name) for name in LASTING},
    "KSampler": (sample, ksampler_inputs),
}


class Progress(list[int]):
    """A progress hook as ComfyUI's server has it; at the second step something happens."""

    def __init__(self, at_second_step: Callable[[], None]) -> None:
        self.at_second_step = at_second_step
        comfy.utils.set_progress_bar_global_hook(self)

    def __call__(self, value: int, total: int, preview: Any, **_: Any) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self += [value] if value else []  # some bars begin with 0 of so many steps
        if value == 2:
            self.at_second_step()


def interrupt() -> None:
    comfy.model_management.interrupt_current_processing(True)


def fail() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("name", LONG_RUNS)
@pytest.mark.parametrize(
    ("happens", "error"),
    [(interrupt, comfy.model_management.InterruptProcessingException), (fail, ZeroDivisionError)],
    ids=["cancelled", "failed"],
)
def test_a_run_that_ends_early_leaves_its_inputs_as_they_are(
    model: Any, alexnet: None, name: str, happens: Callable[[], None], error: type[BaseException]
) -> None:
    """And ends within one step: no third step is reported."""
    execute, make_inputs = LONG_RUNS[name]
    inputs = make_inputs(model, 6)
    before, picture = snapshot(inputs), sample(model, conditioning(), 10 * normal(1, 4, 8, 12), 2)
    progress = Progress(happens)
    with pytest.raises(error):
        execute(**inputs)
    assert progress == [1, 2]
    comfy.utils.set_progress_bar_global_hook(None)
    assert snapshot(inputs) == before
    assert torch.equal(sample(model, conditioning(), 10 * normal(1, 4, 8, 12), 2), picture)


@pytest.mark.parametrize("name", LONG_RUNS)
def test_progress_counts_every_step(model: Any, alexnet: None, name: str) -> None:
    execute, make_inputs = LONG_RUNS[name]
    inputs = make_inputs(model, 4)
    progress = Progress(lambda: None)
    execute(**inputs)
    assert progress == [1, 2, 3, 4]


def test_an_error_inside_the_patched_network_leaves_no_hooks(model: Any) -> None:
    """Here from the second layer that LoRA Blend hooks: it is given one row too many."""
    patched = patched_model(model)
    before = snapshot(patched)
    with pytest.raises(InvalidInput):
        sample(patched, conditioning(), normal(4, 4, 8, 12), 2)
    assert hooks_on(model) == []
    assert snapshot(patched) == before


def test_patched_models_do_not_leak_into_the_one_they_came_from(model: Any) -> None:
    noise = 10 * normal(3, 4, 8, 12)
    before = sample(model, conditioning(), noise, 3)
    assert not torch.equal(sample(patched_model(model), conditioning(), noise, 3), before)
    assert hooks_on(model) == []
    assert torch.equal(sample(model, conditioning(), noise, 3), before)
