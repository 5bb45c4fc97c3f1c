"""Nothing that comes into a node is changed: ComfyUI caches outputs and hands the same objects to others."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from morph_pack.morph_core.errors import InvalidInput
from morph_tests.nodes.graph import (
    conditioning,
    diffusion_model,
    drag_options,
    hooks_on,
    latent,
    normal,
    random_lora,
    run,
    sample,
    with_lora,
)

ALPHAS = (0.0, 0.5, 1.0)


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


def fit_inputs(model: Any, steps: int = 2) -> dict[str, Any]:
    settings = {"rank": 2, "steps": steps, "learning_rate": 1e-3, "seed": 0}
    return {"model": model, "latent": latent(size=(8, 8)), "positive": conditioning(), **settings}


def invert_inputs(model: Any, steps: int = 2) -> dict[str, Any]:
    settings = {"steps": steps, "scheduler": "ddim_uniform", "start_at_step": 0}
    image = {**latent(), "noise_mask": torch.ones(1, 1, 8, 12)}
    return {"model": model, "positive": conditioning(), "latent_image": image, **settings}


def drag_inputs(model: Any, steps: int = 2) -> dict[str, Any]:
    """steps: updates of the latent, which the progress bar counts."""
    noise = {"samples": 3 * normal(1, 4, 8, 12), "noise_mask": torch.ones(1, 1, 8, 12), "batch_index": [0]}
    mask = torch.zeros(1, 32, 48)
    mask[:, :16] = 1
    picture = torch.rand(1, 32, 48, 4, generator=torch.Generator().manual_seed(0))
    return {
        **{"model": model, "positive": conditioning(), "latent": noise, "image": picture, "mask": mask},
        **{"points": '[{"x": 8, "y": 8}, {"x": 40, "y": 24}]', "objective": "DragDiffusion"},
        **{"steps": 10, "scheduler": "ddim_uniform", "start_at_step": 3},
        "options": drag_options(iterations=steps, gradient_checkpointing=True),
    }


def trajectory_of(model: Any) -> dict[str, Any]:
    noise, trajectory, _ = run("DdimInvert", **invert_inputs(model))
    return {"trajectory": trajectory}


def null_text_inputs(model: Any, steps: int = 2) -> dict[str, Any]:
    """steps: updates, which the progress bar counts; all in the first sampling step."""
    settings = {"cfg": 2.0, "inner_steps": steps, "learning_rate": 0.01, "early_stop": 0.0, "budget": 0}
    inverted = run("DdimInvert", **{**invert_inputs(model), "steps": 1})[1]
    return {"model": model, "trajectory": inverted, "negative": conditioning(5), **settings}


@functools.cache
def load_toy() -> Any:
    return run("LoadToyModel")


def ends() -> dict[str, Any]:
    return {"start": latent(0), "end": latent(1), "alphas": [*ALPHAS]}


INPUTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "FitImageLora": fit_inputs,
    "DdimInvert": invert_inputs,
    "DragLatentOptimize": drag_inputs,
    "SlerpLatents": lambda model: ends(),
    "AdaIN": lambda model: {**ends(), "frames": {**latent(2, rows=3), "batch_index": [0, 1, 2]}, "strength": 0.5},
    "LoraBlend": lambda model: {
        **{"model": model, "start": random_lora(1), "end": random_lora(2, rank=6)},
        "alphas": torch.tensor(ALPHAS),
    },
    "AttentionKVInject": lambda model: {
        **{"model": model, "alphas": [*ALPHAS], "strength": 0.5, "end_percent": 0.6, "blocks": "up blocks"},
        "frames_per_batch": 2,
    },
    "DirectInversion": lambda model: {"model": model, **trajectory_of(model), "row": -1, "mask": torch.eye(16)[None]},
    "NullTextInversion": null_text_inputs,
    "PromptToPrompt": lambda model: {
        **{"model": model, "clip": load_toy()[1], "alignment": "refine", "cross_percent": 0.5, "self_percent": 0.5},
        **{"source_prompt": "a red cat", "edited_prompt": "a blue cat", "reweight": "blue: 2"},
        **{"blend_words": "red, blue", "blend_threshold": 0.5},
    },
    "BlendConditioning": lambda model: {
        "start": conditioning(0, pooled_output=normal(1, 6), strength=0.5),
        "end": conditioning(1, pooled_output=normal(1, 6, seed=1), strength=0.5),
        "alphas": [*ALPHAS],
    },
    "RescheduleAlphas": lambda model: {
        "images": torch.rand(3, 16, 16, 4, generator=torch.Generator().manual_seed(0)),
        **{"alphas": [*ALPHAS], "frames": 0, "metric": "laplacian pyramid"},
    },
}


@pytest.mark.parametrize("node", INPUTS)
def test_a_node_leaves_its_inputs_as_they_are(loaded: Any, node: str) -> None:
    inputs = INPUTS[node](loaded)
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


LONG_RUNS: dict[str, tuple[Callable[..., Any], Callable[..., dict[str, Any]]]] = {
    "Fit Image LoRA": (lambda **inputs: run("FitImageLora", **inputs), fit_inputs),
    "DDIM Invert": (lambda **inputs: run("DdimInvert", **inputs), invert_inputs),
    "Drag Latent Optimize": (lambda **inputs: run("DragLatentOptimize", **inputs), drag_inputs),
    "Null-text Inversion": (lambda **inputs: run("NullTextInversion", **inputs), null_text_inputs),
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
    model: Any, name: str, happens: Callable[[], None], error: type[BaseException]
) -> None:
    """And ends within one step: no third step is reported."""
    execute, make_inputs = LONG_RUNS[name]
    inputs = make_inputs(model, steps=6)
    before, picture = snapshot(inputs), sample(model, conditioning(), 10 * normal(1, 4, 8, 12), 2)
    progress = Progress(happens)
    with pytest.raises(error):
        execute(**inputs)
    assert progress == [1, 2]
    comfy.utils.set_progress_bar_global_hook(None)
    assert snapshot(inputs) == before
    assert torch.equal(sample(model, conditioning(), 10 * normal(1, 4, 8, 12), 2), picture)


@pytest.mark.parametrize("name", LONG_RUNS)
def test_progress_counts_every_step(model: Any, name: str) -> None:
    execute, make_inputs = LONG_RUNS[name]
    inputs = make_inputs(model, steps=4)
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
