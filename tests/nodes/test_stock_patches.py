"""What is known to be true beside ComfyUI's own patches of a MODEL, its samplers and its guiders.

With LoRA Blend the first and the last frame are those of a MODEL with one LoRA merged into its weights; with Attention
KV Inject at full strength they are those of the MODEL without it; parts of the frames are the frames.
"""

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.samplers
import nodes
import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_tests.nodes.graph import conditioning, latent, normal, random_lora, run, stock, with_lora

EXTRAS = (
    *("advanced_samplers", "apg", "attention_multiply", "cfg", "custom_sampler", "differential_diffusion", "easycache"),
    *("eps", "fresca", "freelunch", "hypertile", "latent", "mahiro", "model_advanced", "model_downscale"),
    *("pag", "perpneg", "sag", "tcfg", "tomesd", "video_model"),
)
ALPHAS = (0.0, 0.5, 1.0)
START, END = random_lora(0), random_lora(1, rank=6)
STEPS = 2
STEPS_OF_CACHES = 4  # they skip none before the third
CFG = 2.5

# node id -> its inputs, chosen so that it acts on a model this small
PATCHES: dict[str, dict[str, Any]] = {
    "APG": {"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.3},
    "CFGNorm": {"strength": 1.0},
    "CFGZeroStar": {},
    "DifferentialDiffusion": {"strength": 1.0},
    "EasyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False},
    "Epsilon Scaling": {"scaling_factor": 1.05},
    "FreSca": {"scale_low": 1.0, "scale_high": 1.25, "freq_cutoff": 2},
    "FreeU": {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2},
    "FreeU_V2": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "HyperTile": {"tile_size": 32, "swap_size": 2, "max_depth": 0, "scale_depth": False},
    "LatentApplyOperationCFG": {},
    "LazyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False},
    "Mahiro": {},
    "ModelSamplingContinuousEDM": {"sampling": "eps", "sigma_max": 80.0, "sigma_min": 0.01},
    "ModelSamplingContinuousV": {"sampling": "v_prediction", "sigma_max": 80.0, "sigma_min": 0.03},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": True},
    "PatchModelAddDownscale": {
        **{"block_number": 2, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 1.0},
        **{"downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic"},
    },
    "PerpNeg": {"neg_scale": 1.0},
    "PerturbedAttentionGuidance": {"scale": 3.0},
    "RescaleCFG": {"multiplier": 0.7},
    "SelfAttentionGuidance": {"scale": 0.5, "blur_sigma": 2.0},
    "TCFG": {},
    "TomePatchModel": {"ratio": 0.5},
    "UNetCrossAttentionMultiply": {"q": 1.2, "k": 0.9, "v": 1.1, "out": 0.9},
    "UNetSelfAttentionMultiply": {"q": 1.2, "k": 0.9, "v": 1.1, "out": 0.9},
    "VideoLinearCFGGuidance": {"min_cfg": 1.0},
    "VideoTriangleCFGGuidance": {"min_cfg": 1.0},
}
BATCH_WIDE = ("EasyCache", "LazyCache", "Mahiro", "PerpNeg")
"""They compute one number over the whole batch, so that every row depends on all: their frames must all be alike."""
RANDOM_PER_CALL = ("HyperTile", "TomePatchModel")
"""They draw from PyTorch's global generator at every call: equal calls, seeded equally, are equal; parts are not."""
KEEP_OF_THE_BATCH = {"SelfAttentionGuidance": "Self-Attention Guidance keeps", "EasyCache": "EasyCache keeps"}

SAMPLERS = (
    *("euler", "euler_ancestral", "heun", "dpm_2", "lms", "dpmpp_2s_ancestral", "dpmpp_2m", "ddpm", "lcm", "ipndm"),
    *("deis", "ddim", "uni_pc"),
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _stock_nodes() -> None:
    folder = Path(nodes.__file__).parent / "comfy_extras"
    for name in EXTRAS:
        assert asyncio.run(nodes.load_custom_node(str(folder / f"nodes_{name}.py"), module_parent="comfy_extras"))


def stock_node(node_id: str, **inputs: Any) -> Any:
    """The first output of one of ComfyUI's own nodes."""
    return stock(nodes.NODE_CLASS_MAPPINGS[node_id], **inputs)[0]


def with_patch(model: Any, node_id: str) -> Any:
    inputs = dict(PATCHES[node_id])
    if node_id == "PerpNeg":
        inputs["empty_conditioning"] = conditioning(9)
    if node_id == "LatentApplyOperationCFG":
        inputs["operation"] = stock_node("LatentOperationTonemapReinhard", multiplier=0.5)
    return stock_node(node_id, model=model, **inputs)


def sampled(model: Any, node_id: str | None = None, sampler: str = "euler", rows: int = len(ALPHAS)) -> Tensor:
    """KSampler's result with what this patch needs, and with all that is random drawn anew from the same seeds."""
    image = latent(3, rows=rows)
    if node_id == "DifferentialDiffusion":  # it acts on a mask only
        image["noise_mask"] = torch.rand(1, 8, 12, generator=torch.Generator().manual_seed(0))
    steps = STEPS_OF_CACHES if node_id in ("EasyCache", "LazyCache") else STEPS
    cfg = 1.0 if node_id == "EasyCache" else CFG  # ComfyUI 0.3.64's fails with two prompts in one batch
    prompts = conditioning(0), conditioning(5)
    torch.manual_seed(0)
    with torch.inference_mode():
        (result,) = nodes.common_ksampler(model, 1, steps, cfg, sampler, "normal", *prompts, image)
    return result["samples"]


def blend(model: Any, alphas: tuple[float, ...] = ALPHAS) -> Any:
    return run("LoraBlend", model=model, start=START, end=END, alphas=alphas)[0]


def inject(model: Any, alphas: tuple[float, ...] = ALPHAS, frames_per_batch: int = 0) -> Any:
    settings = {"strength": 1.0, "end_percent": 1.0, "blocks": "all blocks", "frames_per_batch": frames_per_batch}
    return run("AttentionKVInject", model=model, alphas=alphas, **settings)[0]


def away(actual: Tensor, expected: Tensor) -> float:
    """How far, in the expected result's own deviation."""
    return ((actual - expected).square().mean().sqrt() / expected.std()).item()


def assert_same(actual: Tensor, expected: Tensor, other: Tensor, tolerance: float = 5e-5) -> None:
    """Equal but for rounding, which is told from another result by a factor of 50 at least."""
    assert away(actual, expected) < tolerance
    assert away(other, expected) > 50 * tolerance


def assert_only_the_inner_frame_differs(actual: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(actual[[0, -1]], other[[0, -1]], rtol=0, atol=1e-6)
    assert away(actual[1], other[1]) > 1e-3


Results = Callable[[str], Tensor]


@pytest.fixture(scope="module")
def plain(model: Any) -> Results:
    """The results with each patch alone."""
    return functools.cache(lambda node_id: sampled(with_patch(model, node_id), node_id))


@pytest.fixture(scope="module")
def injected(model: Any) -> Results:
    """The results with each patch and Attention KV Inject."""
    return functools.cache(lambda node_id: sampled(inject(with_patch(model, node_id)), node_id))


ROW_BY_ROW = [node_id for node_id in PATCHES if node_id not in BATCH_WIDE]


@pytest.mark.parametrize("node_id", PATCHES)
def test_the_patch_does_something(model: Any, plain: Results, node_id: str) -> None:
    """Otherwise all the other tests with it would be about nothing."""
    assert away(plain(node_id), sampled(model, node_id)) > 1e-3


@pytest.mark.parametrize("node_id", ROW_BY_ROW)
def test_lora_blends_ends_are_the_loras_merged(model: Any, node_id: str) -> None:
    patched = with_patch(model, node_id)
    start, end = (sampled(with_lora(patched, lora), node_id) for lora in (START, END))
    frames = sampled(blend(patched), node_id)
    assert_same(frames[0], start[0], end[0])
    assert_same(frames[-1], end[-1], start[-1])


@pytest.mark.parametrize("node_id", BATCH_WIDE)
def test_lora_blend_with_one_alpha_for_all_is_a_lora_merged(model: Any, node_id: str) -> None:
    patched = with_patch(model, node_id)
    start, end = (sampled(with_lora(patched, lora), node_id) for lora in (START, END))
    assert_same(sampled(blend(patched, (0.0, 0.0, 0.0)), node_id), start, end)
    assert_same(sampled(blend(patched, (1.0, 1.0, 1.0)), node_id), end, start)


@pytest.mark.parametrize("node_id", ROW_BY_ROW)
def test_attention_kv_inject_leaves_the_ends_as_they_are(plain: Results, injected: Results, node_id: str) -> None:
    assert_only_the_inner_frame_differs(injected(node_id), plain(node_id))


@pytest.mark.parametrize("node_id", BATCH_WIDE)
def test_attention_kv_inject_changes_nothing_where_all_rows_are_ends(model: Any, node_id: str) -> None:
    patched = with_patch(model, node_id)
    alone, ends = (sampled(one, node_id, rows=2) for one in (patched, inject(patched, (0.0, 1.0))))
    torch.testing.assert_close(ends, alone, rtol=0, atol=1e-6)
    assert away(sampled(inject(patched, (0.0, 0.5)), node_id, rows=2), alone) > 1e-3


@pytest.mark.parametrize("node_id", [name for name in PATCHES if name not in (*RANDOM_PER_CALL, *KEEP_OF_THE_BATCH)])
def test_frames_in_parts_are_those_at_once(model: Any, plain: Results, injected: Results, node_id: str) -> None:
    parts = sampled(inject(with_patch(model, node_id), frames_per_batch=1), node_id)
    assert_same(parts[1], injected(node_id)[1], plain(node_id)[1], tolerance=2e-5)
    assert_same(parts[0], injected(node_id)[0], injected(node_id)[1], tolerance=2e-5)


@pytest.mark.parametrize("node_id", KEEP_OF_THE_BATCH)
def test_parts_are_refused_where_a_patch_needs_the_whole_batch(model: Any, node_id: str) -> None:
    patched = with_patch(model, node_id)
    with pytest.raises(InvalidInput, match=f"^Attention KV Inject: frames_per_batch .* {KEEP_OF_THE_BATCH[node_id]}"):
        sampled(inject(patched, frames_per_batch=1), node_id)
    sampled(inject(patched, frames_per_batch=len(ALPHAS)), node_id)  # all frames fit: nothing is parted


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers(model: Any, sampler: str) -> None:
    start, end, alone = (
        sampled(one, sampler=sampler) for one in (with_lora(model, START), with_lora(model, END), model)
    )
    frames = sampled(blend(model), sampler=sampler)
    assert_same(frames[0], start[0], end[0])
    assert_same(frames[-1], end[-1], start[-1])
    assert_only_the_inner_frame_differs(sampled(inject(model), sampler=sampler), alone)


GUIDERS: dict[str, dict[str, Any]] = {
    "BasicGuider": {"conditioning": conditioning(0)},
    "CFGGuider": {"positive": conditioning(0), "negative": conditioning(5), "cfg": CFG},
    "DualCFGGuider": {
        **{"cond1": conditioning(0), "cond2": conditioning(7), "negative": conditioning(5)},
        **{"cfg_conds": CFG, "cfg_cond2_negative": 1.5, "style": "regular"},
    },
    "PerpNegGuider": {
        **{"positive": conditioning(0), "negative": conditioning(5), "empty_conditioning": conditioning(9)},
        **{"cfg": CFG, "neg_scale": 1.0},
    },
}


def guided(model: Any, guider: str, rows: int = len(ALPHAS)) -> Tensor:
    inputs = {**GUIDERS[guider], "model": model}
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)
    with torch.inference_mode():
        sampler = comfy.samplers.sampler_object("euler")
        noise = normal(rows, 4, 8, 12, seed=4)
        return stock_node(guider, **inputs).sample(noise, torch.zeros_like(noise), sampler, sigmas, seed=1)


@pytest.mark.parametrize("guider", [name for name in GUIDERS if name != "PerpNegGuider"])
def test_guiders(model: Any, guider: str) -> None:
    start, end, alone = (guided(one, guider) for one in (with_lora(model, START), with_lora(model, END), model))
    frames = guided(blend(model), guider)
    assert_same(frames[0], start[0], end[0])
    assert_same(frames[-1], end[-1], start[-1])
    assert_only_the_inner_frame_differs(guided(inject(model), guider), alone)


def test_the_perp_neg_guider(model: Any) -> None:
    """It projects on a prompt over the whole batch, and amplifies rounding more than the others do."""
    start, end = (guided(with_lora(model, lora), "PerpNegGuider") for lora in (START, END))
    assert_same(guided(blend(model, (0.0, 0.0, 0.0)), "PerpNegGuider"), start, end, tolerance=5e-4)
    assert_same(guided(blend(model, (1.0, 1.0, 1.0)), "PerpNegGuider"), end, start, tolerance=5e-4)
    alone, ends = (guided(one, "PerpNegGuider", rows=2) for one in (model, inject(model, (0.0, 1.0))))
    torch.testing.assert_close(ends, alone, rtol=0, atol=1e-6)
    assert away(guided(inject(model, (0.0, 0.5)), "PerpNegGuider", rows=2), alone) > 1e-3
