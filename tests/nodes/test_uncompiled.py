"""TorchCompileModel before and after LoRA Blend and Attention KV Inject: the result is that without it.

Compiled code is kept by PyTorch, so that what a network was compiled for before matters: here always for itself alone.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import comfy.supported_models
import pytest
import torch
from comfy.model_base import ModelType
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras import nodes_torch_compile
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.nodes.host.uncompiled import EAGER
from morph_tests.nodes import models
from morph_tests.nodes.graph import ATTENTION, conditioning, normal, run, sample, with_lora

SMALL = {
    **models.UNET,
    **{"channel_mult": [1, 1], "num_res_blocks": [1, 1], "transformer_depth": [0, 1]},
    **{"transformer_depth_output": [0, 0, 0, 1]},
}
NOISE = 10 * normal(2, 4, 8, 12)
ALPHAS = (0.0, 1.0)
LAYER = "diffusion_model.middle_block.1.transformer_blocks.0.attn1"
FORCED = "runs uncompiled"
needs_a_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler on the PATH"
)
BACKENDS = ["eager", pytest.param("inductor", marks=needs_a_compiler)]


@pytest.fixture(scope="module")
def small() -> Any:
    """As few layers as a UNet has, because each takes its time to compile."""
    model = models.patcher(comfy.supported_models.SD15, SMALL, ModelType.EPS)
    with torch.inference_mode():
        for name, weight in model.model.diffusion_model.named_parameters():
            if ".attn1." in name:
                weight *= 9  # so that self-attention matters
    return model


@pytest.fixture(autouse=True)
def _nothing_compiled() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def lora(model: Any, seed: int) -> dict[str, Tensor]:
    weights = {}
    for place, (name, layer) in enumerate(model.model.diffusion_model.named_modules()):
        if name.endswith(ATTENTION):
            out, inner = layer.weight.shape
            weights[f"diffusion_model.{name}.lora_A.weight"] = 0.3 * normal(2, inner, seed=1000 * seed + 2 * place)
            weights[f"diffusion_model.{name}.lora_B.weight"] = 0.3 * normal(out, 2, seed=1000 * seed + 2 * place + 1)
    return weights


def blend(model: Any) -> Any:
    return run("LoraBlend", model=model, start=lora(model, 0), end=lora(model, 1), alphas=ALPHAS)[0]


def inject(model: Any) -> Any:
    """Of a drag: every row looks at the first."""
    return run("AttentionKVInject", model=model, strength=1.0, end_percent=1.0, blocks="all blocks")[0]


def compiled(model: Any, backend: str, part: str = "diffusion_model") -> Any:
    """As TorchCompileModel of this ComfyUI does it, with any backend."""
    patched = model.clone()
    keep = getattr(nodes_torch_compile, "skip_torch_compile_dict", None)
    options = {"guard_filter_fn": keep} if keep else None
    set_torch_compile_wrapper(patched, backend=backend, options=options, keys=[part])
    return patched


def sampled(model: Any) -> Tensor:
    return sample(model, conditioning(), NOISE, 2)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.std().item())


def expected_of(model: Any) -> Tensor:
    """Row 0 of one LoRA merged into the weights, row 1 of the other."""
    merged = [sampled(with_lora(model, lora(model, seed))) for seed in (0, 1)]
    return torch.stack([merged[0][0], merged[1][1]])


def check(model: Any, patch: Callable[[Any], Any], expected: Tensor, backend: str, part: str) -> None:
    plain = sampled(model)
    assert (plain - expected).abs().max() > 1e-3 * expected.std()
    before = compiled(model, backend, part)
    assert_close(sampled(before), plain)
    assert_close(sampled(patch(before)), expected)
    assert_close(sampled(compiled(patch(model), backend, part)), expected)
    assert_close(sampled(before), plain)


@pytest.mark.slow
@pytest.mark.parametrize("patch", [blend, inject])
def test_a_whole_network_that_was_compiled_before(small: Any, patch: Callable[[Any], Any]) -> None:
    expected = expected_of(small) if patch is blend else sampled(patch(small))
    check(small, patch, expected, "eager", "diffusion_model")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_part_of_a_network_that_was_compiled_before(small: Any, backend: str) -> None:
    check(small, blend, expected_of(small), backend, LAYER)


@pytest.mark.slow
def test_a_network_that_is_first_used_with_lora_blend(small: Any) -> None:
    """Nothing is compiled then, so that nothing of LoRA Blend stays in what is compiled later."""
    plain, expected = sampled(small), expected_of(small)
    model = compiled(small, "eager", LAYER)
    assert_close(sampled(blend(model)), expected)
    assert_close(sampled(model), plain)
    assert_close(sampled(blend(model)), expected)


def test_it_is_said_once_and_only_of_a_compiled_model(small: Any, caplog: pytest.LogCaptureFixture) -> None:
    patched = blend(small)
    sampled(patched)
    assert FORCED not in caplog.text
    with caplog.at_level(logging.WARNING):
        model = compiled(patched, "eager", LAYER)
        sampled(model)
        sampled(model)
    assert [record.message for record in caplog.records if FORCED in record.message] == [
        "LoRA Blend: the model runs uncompiled, because a compiled one does not see this patch"
    ]


def test_a_pytorch_that_cannot_run_uncompiled_is_named(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.compiler, "set_stance")
    sampled(blend(small))
    model = compiled(blend(small), "eager")
    with pytest.raises(InvalidInput, match="^LoRA Blend: a compiled model needs PyTorch 2.6 .* TorchCompileModel"):
        sampled(model)


def test_compiling_goes_on_after_an_error(small: Any) -> None:
    """And after every thread has left: ComfyUI runs one for each GPU."""

    def fail(executor: Any, *args: Any, **kwargs: Any) -> Any:
        assert not compiles()
        raise KeyboardInterrupt

    patched = blend(small)
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "fail", fail)
    assert compiles()
    with pytest.raises(KeyboardInterrupt):
        sampled(patched)
    assert compiles()


def test_the_first_of_two_threads_to_leave_takes_nothing_from_the_other() -> None:
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with EAGER:
            entered.set()
            left.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(60)
    with EAGER:
        assert not compiles()
    assert not compiles()
    left.set()
    thread.join(60)
    assert compiles()


def compiles() -> bool:
    """Whether a function that is called now is compiled."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compile(lambda x: x + 1, backend=backend)(torch.ones(1))
    return bool(graphs)
