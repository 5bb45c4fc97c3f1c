"""What cannot be used is refused with a message that names the node and the input and says what to do."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nodes
import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput, UnsupportedModel
from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_tests.nodes import models
from morph_tests.nodes.good_inputs import good_inputs, nodes_with
from morph_tests.nodes.graph import PREFIX, conditioning, latent, normal, random_lora, sample
from morph_tests.nodes.refusals import assert_says, display_name, execute, refusal

NAN = float("nan")
TAKE_A_MODEL = nodes_with("model")
OF_SEQUENCES = {"BlendKeyframes", "ArrangeFrames"}
TAKE_ALPHAS = {*nodes_with("alphas")} - OF_SEQUENCES - {"MorphReport"}  # to which any numbers are places


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
        assert_says(refusal(model, node, **{name: video}), name, "5 axes|of 3 frames|same channels and size")

    def test_a_row_of_numbers(self, model: Any, node: str, name: str) -> None:
        row = {"samples": normal(1, 4, 8)}
        assert_says(refusal(model, node, **{name: row}), rf"^{name} ", "latent of images", r"\(1, 4, 8\)")


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
    for node in TAKE_ALPHAS - without_alphas_it_is_for_a_drag:
        assert_says(refusal(model, node, alphas=alphas), "^alphas", advice)
    for node in OF_SEQUENCES:
        assert_says(refusal(model, node, alphas=alphas), "^alphas", "Sequence Schedule")


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
    opposite = {"samples": -good_inputs("SlerpLatents", model)["start"]["samples"]}
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


@pytest.mark.parametrize("node", ["DragLatentOptimize", "PromptToPrompt"])
def test_transformers_where_a_method_is_of_unets(node: str) -> None:
    assert_says(refusal(models.dit(), node, UnsupportedModel), "^model ", "not a UNet", "load a Stable Diffusion")


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
    assert_says(str(raised.value), f"^{display_name(node)}: ", "3 frames", "as many frames as there are alphas")


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
    ends = {"start": conditioning(0, **options[0]), "end": conditioning(1, **options[1]), "middle": None}
    (blend,) = execute(model, "BlendConditioning", **ends)
    assert blend[0][1]["mask"] is options[0]["mask"]


def test_only_one_prompt_with_a_pooled_output(model: Any) -> None:
    pooled = conditioning(pooled_output=normal(1, 6))
    for changes in ({"start": pooled, "end": conditioning(1)}, {"start": conditioning(), "end": pooled}):
        assert_says(refusal(model, "BlendConditioning", **changes), "start and end", "pooled")


def test_prompts_of_different_text_encoders(model: Any) -> None:
    ends = {"start": conditioning(), "end": [[normal(1, 8, 96), {}]], "middle": None}
    assert_says(refusal(model, "BlendConditioning", **ends), "same text encoder", "96")


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
    model: Any, monkeypatch: pytest.MonkeyPatch, node: str, name: str, value: Any
) -> None:
    import execution

    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", {**nodes.NODE_CLASS_MAPPINGS, **NODE_CLASS_MAPPINGS})
    widgets = {key: x for key, x in good_inputs(node, model).items() if isinstance(x, int | float | str)}
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
