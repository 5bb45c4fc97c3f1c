"""A morph and a drag on every family of checkpoints, in a running ComfyUI, from two pictures to the saved result.

Checkpoints have random weights and few steps are made, so nothing is to be seen; that two ways to one result agree is.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from morph_tests.comfy_host import ComfyHost, Prompt, Run

FAMILIES = ("sd15", "sd21_768", "sdxl")  # sd21_base: the network of sd21_768, the prediction of sd15
STEPS, FRAMES = 4, 4
pytestmark = pytest.mark.slow
SIZE = (104, 72)  # pixels, odd multiples of 8
SPACING = {"steps": STEPS, "scheduler": "ddim_uniform"}
NUMBERS = ("learning_rate", "motion_radius", "drag_distance", "tracking_radius", "drags_per_tracking", "levels")


@pytest.fixture(scope="module")
def pictures(comfyui: ComfyHost) -> None:
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        small = random.integers(0, 256, (9, 13, 3), dtype=np.uint8)
        Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC).save(comfyui.input_folder / name)


@pytest.fixture(scope="module", params=FAMILIES)
def family(
    request: pytest.FixtureRequest, comfyui: ComfyHost, pictures: None, checkpoint_file: Callable[[str], Path]
) -> Iterator[str]:
    """A checkpoint's name, whose memory ComfyUI gives back in the end."""
    folder = comfyui.input_folder.parent / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{request.param}.safetensors").symlink_to(checkpoint_file(request.param))
    yield request.param
    comfyui.free_memory()


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A link is written as "name" or "name.place"; other strings are given as they are."""
    return {"class_type": kind, "inputs": {name: _link(value) for name, value in inputs.items()}}


def _link(value: Any) -> Any:
    if not (isinstance(value, str) and value.startswith("@")):
        return value
    source, _, place = value[1:].partition(".")
    return [source, int(place or 0)]


def ksampler(model: str, positive: str, latent: str, **inputs: Any) -> dict[str, Any]:
    sampling = {"add_noise": "disable", "noise_seed": 0, "cfg": 1.0, "sampler_name": "ddim", **SPACING}
    sampling |= {"start_at_step": 0, "end_at_step": 1000, "return_with_leftover_noise": "disable", **inputs}
    return node("KSamplerAdvanced", model=model, positive=positive, negative="@text a", latent_image=latent, **sampling)


def source(end: str, family: str) -> Prompt:
    """A picture, encoded, with the LoRA that was fitted to it."""
    fit = {"rank": 2, "steps": 2, "learning_rate": 0.03, "seed": 0}
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=f"{family}.safetensors"),
        f"picture {end}": node("LoadImage", image=f"{end}.png"),
        f"text {end}": node("CLIPTextEncode", clip="@model.1", text=f"picture {end}"),
        f"encoded {end}": node("VAEEncode", pixels=f"@picture {end}", vae="@model.2"),
        f"image {end}": node("LatentMultiply", samples=f"@encoded {end}", multiplier=10.0),  # a trained VAE's variance
        f"lora {end}": node(
            "MorphDragFitImageLora", model="@model", latent=f"@image {end}", positive=f"@text {end}", **fit
        ),
        f"knowing {end}": node(
            "LoraModelLoader", model="@model", lora=f"@lora {end}", strength_model=1.0, bypass=False
        ),
    }


def inverted(end: str, start: int) -> Prompt:
    given = {"model": f"@knowing {end}", "positive": f"@text {end}", "latent_image": f"@image {end}"}
    return {f"noise {end}": node("MorphDragDdimInvert", **given, **SPACING, start_at_step=start)}


def morph(family: str, save_lora: str) -> Prompt:
    """Once with all frames at once and once frame by frame."""
    ends = {"start": "@noise a", "end": "@noise b", "alphas": "@alphas"}
    injected = {"model": "@blend", "alphas": "@alphas", "strength": 1.0, "end_percent": 1.0, "blocks": "up blocks"}
    prompt = {
        **source("a", family),
        **source("b", family),
        **inverted("a", 0),
        **inverted("b", 0),
        "alphas": node("MorphDragAlphaSchedule", frames=FRAMES, easing="linear"),
        "slerp": node("MorphDragSlerpLatents", **ends),
        "adain": node("MorphDragAdaIN", frames="@slerp", **ends, strength=1.0),
        "text": node("MorphDragBlendConditioning", start="@text a", end="@text b", alphas="@alphas"),
        "blend": node("MorphDragLoraBlend", model="@model", start="@lora a", end="@lora b", alphas="@alphas"),
    }
    for way, frames_per_batch in (("whole", 0), ("parts", 1)):
        prompt[f"{way} kv"] = node("MorphDragAttentionKVInject", **injected, frames_per_batch=frames_per_batch)
        prompt[way] = ksampler(f"@{way} kv", "@text", "@adain")
        prompt[f"{way} saved"] = node("SaveLatent", samples=f"@{way}", filename_prefix=f"latents/{family}_{way}")
    prompt["decoded"] = node("VAEDecode", samples="@whole", vae="@model.2")
    prompt["frames"] = node("SaveImage", images="@decoded", filename_prefix=family)
    prompt["lora file"] = node(save_lora, lora="@lora a", prefix=f"loras/{family}")
    return prompt


def drag(family: str) -> Prompt:
    options = {**dict.fromkeys((*NUMBERS, "mask_weight", "reach"), -1), "iterations": 2, "levels": 1}
    options |= {"feature_block": "second to last up block", "gradient_checkpointing": False}
    given = {"model": "@knowing a", "positive": "@text a", "latent": "@noise a", "image": "@picture a"}
    points = '[{"x": 30, "y": 30}, {"x": 70, "y": 40}]'
    injected = {"strength": 1.0, "end_percent": 1.0, "blocks": "last two up blocks"}
    return {
        **source("a", family),
        **inverted("a", 2),
        "options": node("MorphDragDragOptions", **options),
        "drag": node(
            "MorphDragDragLatentOptimize",
            **given,
            **SPACING,
            **{"points": points, "start_at_step": 2, "objective": "GoodDrag", "options": "@options"},
        ),
        "kv": node("MorphDragAttentionKVInject", model="@knowing a", **injected),
        "both": ksampler("@kv", "@text a", "@drag", start_at_step="@drag.1"),
        "both saved": node("SaveLatent", samples="@both", filename_prefix=f"latents/{family}_drag"),
        "alone": ksampler("@knowing a", "@text a", "@noise a", start_at_step=2),
        "alone saved": node("SaveLatent", samples="@alone", filename_prefix=f"latents/{family}_alone"),
        "decoded": node("VAEDecode", samples="@both", vae="@model.2"),
        "frames": node("SaveImage", images="@decoded", filename_prefix=f"{family}_drag"),
        "way": node("PreviewImage", images="@drag.2"),
    }


def run(host: ComfyHost, prompt: Prompt) -> Run:
    return host.wait(host.queue(prompt))


def latent(host: ComfyHost, run: Run, name: str) -> np.ndarray[Any, Any]:
    (file,) = run.entry["outputs"][name]["latents"]
    return load_file(host.output_folder / file["subfolder"] / file["filename"])["latent_tensor"]


def picture_sizes(host: ComfyHost, run: Run, name: str) -> list[tuple[int, int]]:
    files = run.entry["outputs"][name]["images"]
    return [picture_size(host.output_folder / file["subfolder"] / file["filename"]) for file in files]


def picture_size(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def assert_close(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def save_lora(comfyui: ComfyHost) -> str:
    """The id of Save LoRA Weights, which is another in newer ComfyUIs."""
    return next(name for name in ("SaveLoRA", "SaveLoRANode") if name in comfyui.object_info())


def test_a_morph_and_its_loras_file(comfyui: ComfyHost, family: str, save_lora: str) -> None:
    done = run(comfyui, morph(family, save_lora))
    whole = latent(comfyui, done, "whole saved")
    assert whole.shape == (FRAMES, 4, SIZE[1] // 8, SIZE[0] // 8) and np.isfinite(whole).all()
    assert_close(latent(comfyui, done, "parts saved"), whole)
    assert picture_sizes(comfyui, done, "frames") == [SIZE] * FRAMES

    folder = comfyui.input_folder.parent / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    (file,) = (comfyui.output_folder / "loras").glob(f"{family}_0*.safetensors")
    file.rename(folder / f"{family}.safetensors")
    loading = {"lora_name": f"{family}.safetensors"}
    prompt = {
        **morph(family, save_lora),
        "from file": node("LoraLoaderModelOnly", model="@model", strength_model=1.0, **loading),
        "weights": node("MorphDragLoadLoraWeights", **loading),
        "from weights": node(
            "MorphDragLoraBlend", model="@model", start="@weights", end="@weights", alphas="@one alpha"
        ),
        "one alpha": node("MorphDragAlphaSchedule", frames=2, easing="linear"),
        "two": node("RepeatLatentBatch", samples="@noise a", amount=2),
    }
    models = {"graph": "@knowing a", "file": "@from file", "from weights sampled": "@from weights", "without": "@model"}
    for name, model in models.items():
        prompt[name] = ksampler(model, "@text a", "@two")
        prompt[f"{name} saved"] = node("SaveLatent", samples=f"@{name}", filename_prefix=f"latents/{family}_{name}")
    done = run(comfyui, prompt)
    assert done.was_cached("lora a"), "what did not change is not done again"
    results = {name: latent(comfyui, done, f"{name} saved") for name in models}
    assert_close(results["file"], results["graph"])
    assert_close(results["from weights sampled"], results["graph"])
    assert np.abs(results["without"] - results["graph"]).max() > 1e-3


def test_a_drag(comfyui: ComfyHost, family: str) -> None:
    done = run(comfyui, drag(family))
    both, alone = latent(comfyui, done, "both saved"), latent(comfyui, done, "alone saved")
    assert_close(both[:1], alone)
    assert np.isfinite(both).all() and np.abs(both[1] - both[0]).max() > 1e-3
    assert picture_sizes(comfyui, done, "frames") == [SIZE] * 2
    assert "lora key not loaded" not in comfyui.log_text()
