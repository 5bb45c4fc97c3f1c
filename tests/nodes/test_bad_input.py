"""What cannot be used is refused with a message that names the node and the input and says what to do."""

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import nodes
import pytest
import torch

from morph_pack.morph_core.dragging.latent import DragLatent
from morph_pack.morph_core.errors import InvalidInput, MorphError, UnsupportedModel
from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_tests.nodes import models
from morph_tests.nodes.graph import PREFIX, conditioning, latent, normal, random_lora, run, sample

ALPHAS = (0.0, 0.5, 1.0)
NAN = float("nan")
DRAG_NUMBERS = [field.name for field in fields(DragLatent) if field.name != "objective"]

GOOD: dict[str, dict[str, Any]] = {
    "FitImageLora": {
        **{"latent": latent(size=(8, 8)), "positive": conditioning()},
        **{"rank": 2, "steps": 1, "learning_rate": 1e-3, "seed": 0},
    },
    "DdimInvert": {
        **{"latent_image": latent(size=(8, 8)), "positive": conditioning()},
        **{"steps": 2, "scheduler": "ddim_uniform", "start_at_step": 0},
    },
    "SlerpLatents": {"start": latent(0), "end": latent(1), "alphas": ALPHAS},
    "AdaIN": {
        **{"frames": latent(2, rows=3), "start": latent(0), "end": latent(1)},
        **{"alphas": ALPHAS, "strength": 1.0},
    },
    "BlendConditioning": {"start": conditioning(0), "end": conditioning(1), "alphas": ALPHAS},
    "LoraBlend": {"start": random_lora(0), "end": random_lora(1), "alphas": ALPHAS},
    "AttentionKVInject": {"alphas": ALPHAS, "strength": 1.0, "end_percent": 1.0, "blocks": "all blocks"},
    "RescheduleAlphas": {
        **{"images": torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(0)), "alphas": ALPHAS},
        **{"frames": 0, "metric": "laplacian pyramid"},
    },
    "AlphaSchedule": {"frames": 3, "easing": "linear"},
    "DragLatentOptimize": {
        **{"latent": {"samples": 3 * normal(1, 4, 8, 8)}, "positive": conditioning()},
        **{"image": torch.full((1, 32, 32, 3), 0.5), "points": '[{"x": 8, "y": 8}, {"x": 11, "y": 8}]'},
        **{"steps": 10, "scheduler": "ddim_uniform", "start_at_step": 3, "objective": "DragDiffusion"},
    },
    "DragOptions": {
        **dict.fromkeys(DRAG_NUMBERS, -1),
        **{"feature_block": "second to last up block", "gradient_checkpointing": False},
    },
    "ToyDrawing": {"animal": "cat", "colour": "red", "mood": "happy", "background": "mint", "seed": 0},
}
TAKE_A_MODEL = ("FitImageLora", "DdimInvert", "LoraBlend", "AttentionKVInject", "DragLatentOptimize")
TAKE_ALPHAS = ("SlerpLatents", "AdaIN", "BlendConditioning", "LoraBlend", "AttentionKVInject", "RescheduleAlphas")


def execute(model: Any, node: str, **changes: Any) -> Any:
    inputs = {**GOOD[node], **changes}
    return run(node, **({"model": model} if node in TAKE_A_MODEL else {}) | inputs)


def refusal(model: Any, node: str, error: type[MorphError] = InvalidInput, **changes: Any) -> str:
    """The message that the node refuses its inputs with, without the node's name, which it must begin with."""
    with pytest.raises(error) as raised:
        execute(model, node, **changes)
    assert type(raised.value) is error
    name, _, message = str(raised.value).partition(": ")
    assert name == NODE_CLASS_MAPPINGS[PREFIX + node].GET_SCHEMA().display_name
    return message


def assert_says(message: str, *patterns: str) -> None:
    for pattern in patterns:
        assert re.search(pattern, message), f"{pattern!r} is not in: {message}"


@pytest.mark.parametrize("node", GOOD)
def test_the_inputs_that_the_others_are_made_from_are_good(model: Any, node: str) -> None:
    execute(model, node)


@pytest.mark.parametrize("node", ["SlerpLatents", "AdaIN"])
@pytest.mark.parametrize(
    ("end", "sizes"),
    [(latent(size=(12, 8)), ("12x8", "8x12")), (latent(channels=16), ("4 channels", "16 channels"))],
    ids=["size", "channels"],
)
def test_ends_of_different_shapes(model: Any, node: str, end: Any, sizes: tuple[str, str]) -> None:
    assert_says(refusal(model, node, end=end), "start and end", *sizes, "scale or crop")


@pytest.mark.parametrize(
    ("node", "name"),
    [
        *[("FitImageLora", "latent"), ("DdimInvert", "latent_image"), ("DragLatentOptimize", "latent")],
        *[("SlerpLatents", "start"), ("SlerpLatents", "end")],
    ],
)
class TestLatents:
    def test_several_images(self, model: Any, node: str, name: str) -> None:
        message = refusal(model, node, **{name: latent(rows=2)})
        assert_says(message, rf"^{name} ", "one image", "batch of 2", "Latent From Batch")

    @pytest.mark.parametrize("value", [NAN, float("inf")])
    def test_not_finite(self, model: Any, node: str, name: str, value: float) -> None:
        broken = latent()
        broken["samples"][0, 1, 2, 3] = value
        assert_says(refusal(model, node, **{name: broken}), rf"^{name} ", "NaN", "check the node that made it")

    def test_a_video(self, model: Any, node: str, name: str) -> None:
        video = {"samples": normal(1, 4, 3, 8, 8)}
        assert_says(refusal(model, node, **{name: video}), rf"^{name} ", "latent of images", r"\(1, 4, 3, 8, 8\)")


@pytest.mark.parametrize(
    ("node", "name"),
    [("FitImageLora", "latent"), ("DdimInvert", "latent_image"), ("DragLatentOptimize", "latent")],
)
def test_a_latent_of_another_kind_of_model(model: Any, node: str, name: str) -> None:
    assert_says(refusal(model, node, **{name: latent(channels=16, size=(8, 8))}), name, "16", "4", "VAE")


@pytest.mark.parametrize("node", ["FitImageLora", "DdimInvert", "DragLatentOptimize"])
def test_a_prompt_of_another_text_encoder(model: Any, node: str) -> None:
    assert_says(refusal(model, node, positive=[[normal(1, 8, 96), {}]]), "positive", "96", "CLIP|text encoder")


@pytest.mark.parametrize(
    ("alphas", "advice"),
    [
        ((), "give one weight a frame.*Alpha Schedule"),
        ((0.0, 1.0, 0.5), "never fall.*sort them"),
        ((0.0, 0.5, 1.5), "between 0 and 1.*1.5"),
        ((-0.5, 0.5, 1.0), "between 0 and 1.*-0.5"),
        ((0.0, NAN, 1.0), "between 0 and 1.*nan"),
        (None, "Alpha Schedule|one weight a frame"),
        (0.5, "Alpha Schedule|one weight a frame"),
        ("011", "Alpha Schedule|one weight a frame"),
        (["a", "b", "c"], "Alpha Schedule|one weight a frame"),
        (torch.zeros(3, 2), "Alpha Schedule|one weight a frame"),
        ({"samples": 1}, "Alpha Schedule|one weight a frame"),
    ],
    ids=["empty", "unsorted", "above", "below", "NaN", "None", "number", "text", "texts", "matrix", "dict"],
)
def test_alphas(model: Any, alphas: Any, advice: str) -> None:
    without_alphas_it_is_for_a_drag = {"AttentionKVInject"} if alphas is None else set()
    for node in {*TAKE_ALPHAS} - without_alphas_it_is_for_a_drag:
        assert_says(refusal(model, node, alphas=alphas), "^alphas", advice)


def test_frames_of_another_number_than_alphas(model: Any) -> None:
    assert_says(refusal(model, "AdaIN", frames=latent(rows=4)), "frames", "3 alphas", "4")
    assert_says(refusal(model, "RescheduleAlphas", alphas=(0.0, 1.0)), "images", "3 frames", "alphas", "2 weights")


def test_adain_of_frames_of_another_shape_than_the_ends(model: Any) -> None:
    message = refusal(model, "AdaIN", frames=latent(rows=3, size=(4, 4)))
    assert_says(message, "frames, start and end", "same channels and size")


def test_adain_of_a_single_cell(model: Any) -> None:
    """It has no deviation. torch would complain of a batch that is too small to train on."""
    cells = {name: latent(rows=rows, size=(1, 1)) for name, rows in (("frames", 3), ("start", 1), ("end", 1))}
    assert_says(refusal(model, "AdaIN", **cells), "frames|start")


def test_slerp_of_latents_without_a_direction(model: Any) -> None:
    opposite = {"samples": -GOOD["SlerpLatents"]["start"]["samples"]}
    assert_says(refusal(model, "SlerpLatents", end=opposite), "start", "end", "opposite")
    assert_says(refusal(model, "SlerpLatents", start={"samples": torch.zeros(1, 4, 8, 12)}), "start", "zero")


@pytest.mark.parametrize(
    ("changes", "patterns"),
    [
        ({"images": torch.zeros(3, 1, 1, 3)}, ("images", r"\b8 pixels")),
        ({"images": torch.zeros(1, 16, 16, 3), "alphas": (0.0,)}, ("images", "at least 2")),
        ({"images": torch.full((3, 16, 16, 3), NAN)}, ("images", "NaN")),
        ({"frames": 1}, ("frames = 1", "at least 2")),
    ],
    ids=["1x1 pixel", "one frame", "NaN", "frames = 1"],
)
def test_reschedule_alphas(model: Any, changes: dict[str, Any], patterns: tuple[str, ...]) -> None:
    assert_says(refusal(model, "RescheduleAlphas", **changes), *patterns)


def test_lpips_without_its_weights(model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    message = refusal(model, "RescheduleAlphas", metric="lpips (alex)")
    assert_says(message, "Put alexnet-owt-7be5be79.pth at", "laplacian pyramid")


@pytest.mark.parametrize("node", TAKE_A_MODEL)
@pytest.mark.parametrize(
    ("make", "patterns"),
    [
        (models.dit, ("not a UNet", "load a Stable Diffusion")),
        (models.flow, ("sampled by flow matching", "load a Stable Diffusion")),
    ],
    ids=["transformer", "flow matching"],
)
def test_models_of_other_kinds(node: str, make: Callable[[], Any], patterns: tuple[str, ...]) -> None:
    assert_says(refusal(make(), node, UnsupportedModel), "^model ", *patterns)


@pytest.mark.parametrize("node", ["FitImageLora", "DdimInvert"])
def test_a_prompt_without_what_sdxl_needs(node: str) -> None:
    assert_says(refusal(models.sdxl(), node, InvalidInput), "positive has no pooled_output", "own CLIP")


@pytest.mark.parametrize("node", ["LoraBlend", "AttentionKVInject"])
@pytest.mark.parametrize(("rows", "cfg"), [(1, 1.0), (2, 1.0), (4, 1.0), (1, 2.0), (6, 1.0), (4, 2.0)])
def test_a_batch_of_another_size_than_alphas(model: Any, node: str, rows: int, cfg: float) -> None:
    """Six rows are not two runs of three frames, and four with guidance are not eight of them."""
    (patched,) = execute(model, node)
    with pytest.raises(InvalidInput) as raised:
        sample(patched, conditioning(), normal(rows, 4, 8, 12), 2, negative=conditioning(1), cfg=cfg)
    name = NODE_CLASS_MAPPINGS[PREFIX + node].GET_SCHEMA().display_name
    assert_says(str(raised.value), f"^{name}: ", "3 frames", "as many frames as there are alphas")


@pytest.mark.parametrize("node", ["LoraBlend", "AttentionKVInject"])
def test_a_batch_with_guidance_that_has_as_many_rows_as_there_are_alphas(model: Any, node: str) -> None:
    """Two frames with and without the prompt make four rows, which are not four frames."""
    (patched,) = execute(model, node, alphas=(0.0, 0.3, 0.6, 1.0))
    with pytest.raises(InvalidInput, match="as many frames as there are alphas"):
        sample(patched, conditioning(), normal(2, 4, 8, 12), 2, negative=conditioning(1), cfg=2.0)


def half_a_lora() -> dict[str, Any]:
    lora = random_lora(0)
    del lora[next(key for key in lora if key.endswith("lora_down.weight"))]
    return lora


def lora_of_another_width() -> dict[str, Any]:
    return {key: value if value.ndim == 0 else value.repeat(2, 2) for key, value in random_lora(0).items()}


def with_layer(name: str, **tensors: Any) -> dict[str, Any]:
    return {**random_lora(0), **{f"lora_unet_{name}.{key.replace('__', '.')}": x for key, x in tensors.items()}}


@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"conv.weight": torch.zeros(3, 3)},
        {
            "lora_unet_nowhere.lora_up.weight": torch.zeros(4, 1),
            "lora_unet_nowhere.lora_down.weight": torch.zeros(1, 4),
        },
        with_layer("nowhere", lora_up__weight=torch.zeros(4, 1), lora_down__weight=torch.zeros(1, 4)),
        lora_of_another_width(),
        half_a_lora(),
        with_layer("conv_in", diff=torch.zeros(64, 4, 3, 3)),
        with_layer("conv_in", diff_b=torch.zeros(64)),
        with_layer(
            "mid_block_attentions_0_proj_in",
            **{"hada_w1_a": torch.zeros(128, 2), "hada_w1_b": torch.zeros(2, 128)},
            **{"hada_w2_a": torch.zeros(128, 2), "hada_w2_b": torch.zeros(2, 128)},
        ),
        with_layer(
            "mid_block_attentions_0_proj_in",
            **{"lora_up__weight": torch.zeros(128, 2, 1, 1), "lora_down__weight": torch.zeros(2, 128, 1, 1)},
            dora_scale=torch.ones(128, 1, 1, 1),
        ),
    ],
    ids=["empty", "no LoRA", "stranger", "one stranger", "wide", "half", "difference", "bias", "LoHa", "DoRA"],
)
def test_loras_that_do_not_fit(model: Any, name: str, lora: dict[str, Any]) -> None:
    message = refusal(model, "LoraBlend", **{name: lora})
    assert_says(message, rf"\b{name}\b", "use a|not a LoRA|Fit Image LoRA")


@pytest.mark.parametrize("start_at_step", [2, 3, 998])
def test_starting_after_the_last_step(model: Any, start_at_step: int) -> None:
    message = refusal(model, "DdimInvert", start_at_step=start_at_step)
    assert_says(message, r"^start_at_step must be below steps \(2\)", f"got {start_at_step}")


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("FitImageLora", "positive"),
        ("DdimInvert", "positive"),
        ("DragLatentOptimize", "positive"),
        ("BlendConditioning", "start"),
        ("BlendConditioning", "end"),
    ],
)
def test_combined_and_batched_prompts(model: Any, node: str, name: str) -> None:
    combined = refusal(model, node, **{name: conditioning(0) + conditioning(1)})
    batched = refusal(model, node, **{name: conditioning(rows=3)})
    assert_says(combined, rf"^{name} must be one prompt", "2 combined")
    assert_says(batched, rf"^{name} must be one prompt", "batch of 3")
    assert_says(refusal(model, node, **{name: []}), rf"^{name} is not a CONDITIONING", r"got \[\]")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ({"strength": 0.5}, {}),
        ({}, {"strength": 0.5}),
        ({"area": (4, 4, 0, 0)}, {"area": (4, 4, 2, 2)}),
        ({"mask": torch.zeros(1, 8, 8)}, {"mask": torch.ones(1, 8, 8)}),
        ({"reference_latents": [torch.zeros(1, 4, 8, 8)]}, {"reference_latents": [torch.ones(1, 4, 8, 8)]}),
    ],
    ids=["start only", "end only", "area", "mask", "tensors in a list"],
)
def test_prompts_with_other_options(model: Any, start: dict[str, Any], end: dict[str, Any]) -> None:
    message = refusal(model, "BlendConditioning", start=conditioning(**start), end=conditioning(1, **end))
    assert_says(message, "start and end differ", repr(next(iter({**start, **end}))), "set it after Blend Conditioning")


def test_prompts_with_equal_options_are_blended(model: Any) -> None:
    """Equal, not the same object; also where a list of tensors is compared."""
    options = [{"mask": torch.ones(1, 8, 8), "reference_latents": [torch.ones(1, 4, 8, 8)]} for _ in range(2)]
    (blend,) = execute(
        model, "BlendConditioning", start=conditioning(0, **options[0]), end=conditioning(1, **options[1])
    )
    assert blend[0][1]["mask"] is options[0]["mask"]


def test_only_one_prompt_with_a_pooled_output(model: Any) -> None:
    pooled = conditioning(pooled_output=normal(1, 6))
    for changes in ({"start": pooled}, {"end": pooled}):
        assert_says(refusal(model, "BlendConditioning", **changes), "start and end", "pooled")


def test_prompts_of_different_text_encoders(model: Any) -> None:
    assert_says(refusal(model, "BlendConditioning", end=[[normal(1, 8, 96), {}]]), "same text encoder", "96")


@pytest.mark.parametrize("text", ["a happy dragon", "cat <end>"])
def test_words_that_the_toy_model_does_not_know(toy: tuple[Any, Any, Any], text: str) -> None:
    with torch.inference_mode(), pytest.raises(InvalidInput) as raised:
        nodes.CLIPTextEncode().encode(toy[1], text)
    assert_says(str(raised.value), "toy model does not know the word", text.split()[-1], "it knows: .*cat.*rabbit")


@pytest.mark.parametrize("frames", [0, 1, -3])
def test_too_few_frames(model: Any, frames: int) -> None:
    assert_says(refusal(model, "AlphaSchedule", frames=frames), "^frames must be between 2", f"got {frames}")


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("AlphaSchedule", "frames", 0),
        ("RescheduleAlphas", "frames", -1),
        ("FitImageLora", "rank", 0),
        ("FitImageLora", "steps", 0),
        ("FitImageLora", "learning_rate", 0.0),
        ("DdimInvert", "steps", 0),
        ("DdimInvert", "steps", 1000),
        ("DragLatentOptimize", "start_at_step", -1),
        ("DragOptions", "iterations", -2),
        ("DragOptions", "learning_rate", 1.5),
        ("AdaIN", "strength", 1.5),
        ("AttentionKVInject", "end_percent", -0.5),
    ],
)
def test_comfyui_refuses_values_out_of_range_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, node: str, name: str, value: Any
) -> None:
    import execution

    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", {**nodes.NODE_CLASS_MAPPINGS, **NODE_CLASS_MAPPINGS})
    widgets = {key: x for key, x in GOOD[node].items() if isinstance(x, int | float | str)}
    prompt = {"1": {"class_type": PREFIX + node, "inputs": {**widgets, name: value}}}
    validating = execution.validate_inputs("prompt", prompt, "1", {})
    with ThreadPoolExecutor(1) as thread:  # the main one may have an event loop running: a browser's
        _, errors, _ = thread.submit(asyncio.run, validating).result()
    complaints = [
        error["extra_info"].get("input_name") for error in errors if error["type"] != "required_input_missing"
    ]
    assert complaints == [name]


@pytest.mark.parametrize(("name", "value"), [("rank", 0), ("steps", 0), ("learning_rate", 0.0)])
def test_fitting_with_settings_out_of_range(model: Any, name: str, value: float) -> None:
    """Values of links are not validated by ComfyUI."""
    assert_says(refusal(model, "FitImageLora", **{name: value}), f"^{name} must be between")


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("AlphaSchedule", "easing"),
        ("RescheduleAlphas", "metric"),
        ("AttentionKVInject", "blocks"),
        ("DdimInvert", "scheduler"),
        ("DragLatentOptimize", "scheduler"),
        ("DragLatentOptimize", "objective"),
        ("DragOptions", "feature_block"),
        ("ToyDrawing", "animal"),
    ],
)
def test_choices_that_do_not_exist(model: Any, node: str, name: str) -> None:
    """ComfyUI 0.3.64 does not validate the choices of nodes of the new kind."""
    offered = NODE_CLASS_MAPPINGS[PREFIX + node].INPUT_TYPES()["required"][name][1]["options"]
    patterns = map(re.escape, (name, "nothing", offered[0], offered[-1]))
    assert_says(refusal(model, node, **{name: "nothing"}), *patterns)


HUGE = 10**400
DEEP = 100_000
POINTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "odd": ('[{"x": 1, "y": 1}, {"x": 9, "y": 1}, {"x": 1, "y": 9}]', ("3 points", "odd number", "its target")),
    "handle is target": ('[{"x": 1, "y": 1}, {"x": 1, "y": 1}]', ("pair 1", "same place", "move or remove")),
    "handle outside": ('[{"x": -1, "y": 1}, {"x": 9, "y": 1}]', ("handle of pair 1", "outside the image")),
    "target outside": ('[{"x": 1, "y": 1}, {"x": 9, "y": 33}]', ("target of pair 1", "outside the image")),
    "share outside": ('{"points": [{"handle": [0, 0], "target": [1.5, 0]}]}', ("target of pair 1", "outside")),
    "NaN": ('[{"x": NaN, "y": 1}, {"x": 9, "y": 1}]', ("point 1", "numbers", "nan")),
    "NaN as a share": ('{"points": [{"handle": [NaN, 0], "target": [1, 0]}]}', ("handle of pair 1", "numbers", "nan")),
    "infinite": ('[{"x": 1, "y": 1}, {"x": -Infinity, "y": 1}]', ("point 2", "numbers", "inf")),
    "above all floats": ('[{"x": 1e999, "y": 1}, {"x": 9, "y": 1}]', ("point 1", "numbers", "inf")),
    "above all numbers": (f'[{{"x": {HUGE}, "y": 1}}, {{"x": 9, "y": 1}}]', ("point 1", "numbers", "1000")),
    "more digits than Python reads": (f'[{{"x": {"9" * 9999}}}]', ("not JSON|numbers",)),
    "texts": ('[{"x": "1", "y": 1}, {"x": 9, "y": 1}]', ("point 1", "numbers", "'1'")),
    "booleans": ('[{"x": true, "y": 1}, {"x": 9, "y": 1}]', ("point 1", "numbers", "True")),
    "numbers only": ("[1, 2, 3, 4]", ("point 1", "x and y")),
    "one coordinate": ('{"points": [{"handle": [0.5], "target": [0, 0]}]}', ("handle of pair 1", r"\[x, y\]")),
    "three coordinates": ('{"points": [{"handle": [0, 0], "target": [1, 1, 1]}]}', ("target of pair 1", r"\[x, y\]")),
    "no target": ('{"points": [{"handle": [0, 0]}]}', ("handle of pair 1 has no target", "place it or remove")),
    "no handle": ('{"points": [{"target": [0, 0]}]}', ("handle of pair 1", "None")),
    "no pairs": ('{"points": [null]}', ("pair 1", "handle and a target")),
    "an empty list": ("[]", ("empty", "pick a handle")),
    "an empty object": ("{}", ("must be JSON like", "handle", "target")),
    "points that are none": ('{"v": 1, "points": {"handle": [0, 0]}}', ("must be JSON like",)),
    "a number": ("7", ("must be JSON like",)),
    "null": ("null", ("must be JSON like",)),
    "another version": ('{"v": 2, "points": []}', ("version 2", "update")),
    "a long version": (json.dumps({"v": "x" * 10_000, "points": []}), ("version 'xxx", "update")),
    "no JSON": ("here, then there", ("not JSON", "pick the points anew")),
    "Python": ("[{'x': 1, 'y': 1}]", ("not JSON", "pick the points anew")),
    "half of it": ('[{"x": 1, "y"', ("not JSON", "pick the points anew")),
    "deep lists": ("[" * DEEP, ("not JSON", "pick the points anew")),
    "deep objects": ('{"a":' * DEEP, ("not JSON", "pick the points anew")),
    "a deep list that is JSON": ("[" * 300 + "]" * 300, ("point 1", "x and y")),
    "a deep coordinate": ('{"points": [{"handle": %s, "target": [0, 0]}]}' % ("[" * 300 + "]" * 300), ("pair 1",)),
    "very long": (f"[{' ' * 2_000_000}]", ("2000002 characters", "far less")),
    "too many": (json.dumps([{"x": 1 + i % 2, "y": 1} for i in range(2002)]), ("1001 pairs", "at most 1000")),
}


@pytest.mark.parametrize("kind", POINTS)
def test_points(model: Any, kind: str) -> None:
    points, patterns = POINTS[kind]
    message = refusal(model, "DragLatentOptimize", points=points)
    assert_says(message, "^points", *patterns)
    assert len(message) < 500


@pytest.mark.parametrize("points", [None, 7, [{"x": 1, "y": 1}]], ids=["None", "number", "list"])
def test_points_that_are_no_text(model: Any, points: Any) -> None:
    """Values of links may be anything."""
    assert_says(refusal(model, "DragLatentOptimize", points=points), "^points must be text")


def spotted(value: float) -> torch.Tensor:
    mask = torch.zeros(1, 32, 32)
    mask[0, 3, 3] = value
    return mask


@pytest.mark.parametrize(
    ("mask", "patterns"),
    [
        (torch.ones(1, 64, 64), ("64x64", "32x32", "of the image's size")),
        (torch.ones(1, 32, 48), ("48x32", "32x32", "of the image's size")),
        (torch.ones(2, 32, 32), ("batch of 2", "one mask")),
        (torch.full((1, 32, 32), NAN), ("NaN", "check the node that made it")),
        (spotted(NAN), ("NaN", "check the node that made it")),
        (spotted(float("inf")), ("infinite", "check the node that made it")),
    ],
    ids=["another size", "another shape", "batch", "NaN", "one NaN", "infinite"],
)
def test_masks(model: Any, mask: Any, patterns: tuple[str, ...]) -> None:
    assert_says(refusal(model, "DragLatentOptimize", mask=mask), "^mask ", *patterns)


@pytest.mark.parametrize(
    ("image", "patterns"),
    [
        (torch.zeros(1, 32, 48, 3), ("48x32 pixels", "8x8 cells", "the image that was encoded")),
        (torch.zeros(1, 4, 4, 3), ("4x4 pixels", "8x8 cells", "the image that was encoded")),
        (torch.zeros(2, 32, 32, 3), ("one picture", "batch of 2", "ImageFromBatch")),
        (torch.zeros(0, 32, 32, 3), ("is empty", r"\(0, 32, 32, 3\)")),
        (torch.full((1, 32, 32, 3), NAN), ("NaN", "check the node that made it")),
        (torch.zeros(1, 32, 32), ("must be an IMAGE", r"\(1, 32, 32\)")),
        (torch.zeros(1, 32, 32, 1), ("must be an IMAGE", r"\(1, 32, 32, 1\)")),
    ],
    ids=["another aspect", "tiny", "batch", "empty batch", "NaN", "mask", "grey"],
)
def test_images(model: Any, image: Any, patterns: tuple[str, ...]) -> None:
    assert_says(refusal(model, "DragLatentOptimize", image=image), "^image ", *patterns)


def test_images_when_there_are_no_points_yet(model: Any) -> None:
    """The picker is shown none that cannot be used."""
    batch = torch.zeros(2, 32, 32, 3)
    assert_says(refusal(model, "DragLatentOptimize", image=batch, points=""), "^image ", "batch of 2")


def inverted(model: Any, start_at_step: int) -> Any:
    noise, *_ = execute(model, "DdimInvert", steps=10, start_at_step=start_at_step)
    return noise


@pytest.mark.parametrize(("start", "told"), [(3, 2), (3, 4), (3, 9), (5, 0), (0, 1)])
def test_a_latent_inverted_to_another_step(model: Any, start: int, told: int) -> None:
    message = refusal(model, "DragLatentOptimize", latent=inverted(model, start), start_at_step=told)
    assert_says(message, "^latent ", rf"start_at_step {told}\b", "as in DDIM Invert")


def test_a_latent_inverted_with_other_steps_or_another_scheduler(model: Any) -> None:
    for change in ({"steps": 12}, {"scheduler": "karras"}):
        message = refusal(model, "DragLatentOptimize", latent=inverted(model, 3), **change)
        assert_says(message, "^latent ", "start_at_step 3", "steps, scheduler and start_at_step")


def test_a_latent_that_was_not_inverted(model: Any) -> None:
    """From VAE Encode; from KSampler, whose output still says what its input was inverted to; an empty one."""
    noise = inverted(model, 3)
    sampled = {**noise, "samples": sample(model, conditioning(), noise["samples"], 10, start=3)}
    for clean in (latent(size=(8, 8)), sampled, {"samples": torch.zeros(1, 4, 8, 8)}):
        message = refusal(model, "DragLatentOptimize", latent=clean)
        assert_says(message, "^latent is not at start_at_step 3", "deviation", "connect DDIM Invert's output")


@pytest.mark.parametrize("start_at_step", [10, 11, 998])
def test_dragging_after_the_last_step(model: Any, start_at_step: int) -> None:
    message = refusal(model, "DragLatentOptimize", start_at_step=start_at_step)
    assert_says(message, r"^start_at_step must be below steps \(10\)", f"got {start_at_step}")


def test_more_levels_than_steps_remain(model: Any) -> None:
    changes = {"latent": inverted(model, 4), "start_at_step": 4, "objective": "GoodDrag"}
    assert_says(refusal(model, "DragLatentOptimize", **changes), "^levels is 7", "6 sampling steps remain")


MAY_BE_ZERO = {"motion_radius", "mask_weight"}


@pytest.mark.parametrize("name", DRAG_NUMBERS)
def test_drag_options_out_of_range(model: Any, name: str) -> None:
    """Values of links are not validated by ComfyUI."""
    for value in (-2, NAN) if name in MAY_BE_ZERO else (-2, NAN, 0):
        assert_says(refusal(model, "DragOptions", **{name: value}), f"^{name} must", str(value))


@pytest.mark.parametrize("options", [{}, 5, "published"])
def test_drag_options_of_another_making(model: Any, options: Any) -> None:
    assert_says(refusal(model, "DragLatentOptimize", options=options), "^options must come from Drag Options")
