"""Drag Latent Optimize is the core's drag, and KSampler goes on from there beside the original."""

import json
import math
import uuid
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import comfy.samplers
import comfy.utils
import nodes
import numpy as np
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

import morph_pack.nodes.drag as drag_node
from morph_pack.morph_core.attention.end_frames import mixed_self_attention
from morph_pack.morph_core.denoise import Denoise
from morph_pack.morph_core.dragging.latent import PUBLISHED, DragLatent, DragResult, drag_latent, published
from morph_pack.morph_core.dragging.points import parse_points
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.blend import blended_loras, read_lora
from morph_pack.morph_core.models.features import FEATURE_BLOCKS, up_block_features
from morph_pack.morph_core.models.unet import attention_layers
from morph_pack.morph_core.pictures.handle_tracks import as_image, colour_of
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_pack.nodes.host.backbone import scaled_latent
from morph_tests.comfy_host import ComfyHost, Prompt, RunFailed, running_comfyui
from morph_tests.networks import denoiser_of
from morph_tests.nodes import models
from morph_tests.nodes.diffusers_twin import diffusers_twin
from morph_tests.nodes.graph import conditioning, latent, normal, random_lora, run, sample, with_lora

STEPS, START = 10, 3
SPACING = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": START}
SIZE = (48, 32)  # of the image in pixels; its latent is 12x8
PAIRS = (((14, 13), (33, 19)), ((29, 6), (24, 25)))  # handle and target, in pixels
NUMBERS = [field.name for field in fields(DragLatent) if field.name != "objective"]
SHORT: dict[str, dict[str, Any]] = {"DragDiffusion": {"iterations": 4}, "GoodDrag": {"iterations": 3, "levels": 2}}
NOSE = (34.2, 40.1)  # of `drawing`, in pixels
KV_INJECT = {"strength": 1.0, "end_percent": 1.0, "blocks": "last two up blocks"}


class Dragged(NamedTuple):
    """The node's outputs."""

    latent: dict[str, Any]
    next_step: int
    paths: Tensor
    tracks: str

    @property
    def samples(self) -> Tensor:
        return self.latent["samples"]

    @property
    def ways(self) -> Tensor:
        """(N, I, 2) in pixels."""
        return torch.tensor([[[place["x"], place["y"]] for place in way] for way in json.loads(self.tracks)])


def as_text(pairs: Any, shift: float = 0) -> str:
    """Pairs of pixels as `points`."""
    return json.dumps([{"x": x + shift, "y": y + shift} for pair in pairs for x, y in pair])


def options(block: str = "second to last up block", checkpointing: bool = False, **numbers: float) -> Any:
    """From Drag Options; what is not given is as published."""
    published_ones = dict.fromkeys(NUMBERS, -1)
    others = {"feature_block": block, "gradient_checkpointing": checkpointing}
    return run("DragOptions", **{**published_ones, **numbers}, **others)[0]


def drag_inputs(model: Any, image_latent: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        **{"model": model, "positive": conditioning(), "latent": image_latent},
        **{"image": torch.full((1, SIZE[1], SIZE[0], 3), 0.5), "points": as_text(PAIRS)},
        **{**SPACING, "objective": "DragDiffusion", "options": options(iterations=4)},
        **changes,
    }


def drag(model: Any, image_latent: dict[str, Any], **changes: Any) -> Dragged:
    return Dragged(*run("DragLatentOptimize", **drag_inputs(model, image_latent, **changes)))


def invert(model: Any, start: int = START) -> dict[str, Any]:
    inputs = {"model": model, "positive": conditioning(), "latent_image": latent()}
    return run("DdimInvert", **inputs, **{**SPACING, "start_at_step": start})[0]


@pytest.fixture(scope="module")
def inverted(model: Any) -> dict[str, Any]:
    return invert(model)


def half_a_mask() -> Tensor:
    mask = torch.zeros(1, SIZE[1], SIZE[0])
    mask[:, 5:20, 10:40] = 1
    return mask


def ksampler_sigmas(model: Any, start: int = START, steps: int = STEPS) -> Tensor:
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)[start:].clone()


def toy_denoiser(core: ToyModel, text: Any = None) -> Denoise:
    return denoiser_of(core.unet, (text or conditioning())[0][0], core.backbone.schedule.sigmas)


def core_drag(
    core: ToyModel,
    image_latent: dict[str, Any],
    sigmas: Tensor,
    config: DragLatent,
    mask: Tensor | None = None,
    lora: Any = None,
    block: str = "second to last up block",
) -> DragResult:
    """The core's drag of a LATENT on the diffusers UNet."""
    read = up_block_features(core.unet.up_blocks, toy_denoiser(core), block)
    x, points = image_latent["samples"].clone() * SCALE_FACTOR, parse_points(as_text(PAIRS), SIZE)
    with blended_loras(read_lora(lora, core.unet) if lora else {}, {}, (0.0,)):
        return drag_latent(
            read, core.backbone.schedule, x, sigmas, points, config, None if mask is None else mask[None]
        )


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def assert_is(dragged: Dragged, expected: DragResult) -> None:
    """The node's outputs are what the core returned."""
    rows = torch.cat([expected.original, expected.dragged]) / SCALE_FACTOR
    assert_close(dragged.samples, rows, 1e-3)
    assert (rows[1] - rows[0]).abs().max() > 0.02, "nothing was dragged"
    assert dragged.next_step == START + expected.level
    assert_close(dragged.ways, expected.tracks.movedim(1, 0) * torch.tensor(SIZE), 0.01)


class TestIsTheCores:
    @pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask"])
    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_drag(self, model: Any, core: ToyModel, inverted: Any, objective: str, masked: bool) -> None:
        mask, numbers = half_a_mask() if masked else None, SHORT[objective]
        config = replace(published(objective), **numbers)
        expected = core_drag(core, inverted, ksampler_sigmas(model), config, mask)
        actual = drag(model, inverted, objective=objective, mask=mask, options=options(**numbers))
        assert_is(actual, expected)
        assert expected.level == config.levels - 1

    @pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask"])
    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_drag_with_a_lora(self, model: Any, core: ToyModel, objective: str, masked: bool) -> None:
        mask, numbers, lora = half_a_mask() if masked else None, SHORT[objective], random_lora(0)
        carrying = with_lora(model, lora)
        noise, config = invert(carrying), replace(published(objective), **numbers)
        expected = core_drag(core, noise, ksampler_sigmas(model), config, mask, lora)
        changes = {"objective": objective, "mask": mask, "options": options(**numbers)}
        assert_is(drag(carrying, noise, **changes), expected)
        assert (drag(model, noise, **changes).samples[1] - expected.dragged[0]).abs().max() > 0.02

    def test_drag_of_other_predictions_and_latent_formats(self) -> None:
        """On a model of the Stable Diffusion 2 kind: v prediction, and latents that are scaled."""
        model, numbers = models.sd2(), SHORT["GoodDrag"]
        noise = {"samples": 3 * normal(1, 4, 8, 12) / 0.18215}
        actual = drag(model, noise, objective="GoodDrag", options=options(**numbers))
        with torch.inference_mode(), diffusers_twin(model) as twin:
            train_sigmas = twin.schedule.sigmas
            denoise = denoiser_of(twin.unet, conditioning()[0][0], train_sigmas, "v_prediction")
            config, points = replace(published("GoodDrag"), **numbers), parse_points(as_text(PAIRS), SIZE)
            read, x = up_block_features(twin.unet.up_blocks, denoise), scaled_latent(model, noise["samples"])
            expected = drag_latent(read, twin.schedule, x, ksampler_sigmas(model), points, config)
        assert_close(actual.samples * 0.18215, torch.cat([expected.original, expected.dragged]), 1e-3)

    @pytest.mark.parametrize("block", FEATURE_BLOCKS)
    def test_choice_of_the_feature_block(self, model: Any, core: ToyModel, inverted: Any, block: str) -> None:
        config = replace(published("DragDiffusion"), iterations=2)
        expected = core_drag(core, inverted, ksampler_sigmas(model), config, block=block)
        assert_is(drag(model, inverted, options=options(block, iterations=2)), expected)

    def test_choice_of_the_prompt(self, model: Any, inverted: Any) -> None:
        one, other = (drag(model, inverted, positive=conditioning(seed)).samples for seed in range(2))
        assert torch.equal(one[0], other[0]) and (one[1] - other[1]).abs().max() > 0.01


class TestWhatComesOut:
    def test_drag_diffusions_first_row_is_exactly_the_latent_that_came_in(self, model: Any, inverted: Any) -> None:
        dragged = drag(model, inverted)
        assert torch.equal(dragged.samples[:1], inverted["samples"])
        assert dragged.next_step == START

    def test_so_it_is_but_for_rounding_where_latents_are_scaled(self) -> None:
        noise = {"samples": normal(1, 4, 8, 12) * 17}
        assert_close(drag(models.sd1(), noise, options=options(iterations=1)).samples[:1], noise["samples"], 1e-5)

    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_sampling_goes_on_at_the_next_step(self, model: Any, inverted: Any, objective: str) -> None:
        """From there the first row becomes what the inverted latent becomes from its own step."""
        dragged = drag(model, inverted, objective=objective, options=options(**SHORT[objective]))
        further = sample(model, conditioning(), dragged.samples[:1], STEPS, start=dragged.next_step)
        assert_close(further, sample(model, conditioning(), inverted["samples"], STEPS, start=START), 1e-4)

    def test_handles_that_have_arrived_already_are_pointed_out(self, model: Any, inverted: Any) -> None:
        with pytest.raises(InvalidInput, match="^Drag Latent Optimize: every handle is within reach"):
            drag(model, inverted, options=options(reach=64))

    def test_what_else_the_latent_carries_is_kept(self, model: Any, inverted: Any) -> None:
        mask = torch.zeros(1, 1, 8, 12)
        assert drag(model, {**inverted, "noise_mask": mask}).latent["noise_mask"] is mask

    def test_a_latents_place_in_a_batch_is_known_of_both_rows(self, model: Any, inverted: Any) -> None:
        """Latent From Batch gives a latent such a place, and Repeat Latent Batch looks at it."""
        dragged = drag(model, {**inverted, "batch_index": [1]}, options=options(iterations=1))
        (row,) = nodes.LatentFromBatch().frombatch(dragged.latent, 1, 1)
        assert nodes.RepeatLatentBatch().repeat(row, 2)[0]["samples"].shape[0] == 2

    def test_a_dragged_row_can_be_dragged_again_from_its_step(self, model: Any, inverted: Any) -> None:
        first = drag(model, inverted, objective="GoodDrag", options=options(**SHORT["GoodDrag"]))
        (row,) = nodes.LatentFromBatch().frombatch(first.latent, 1, 1)
        second = drag(model, row, start_at_step=first.next_step)
        assert torch.equal(second.samples[:1], first.samples[1:])
        with pytest.raises(InvalidInput, match="start_at_step"):
            drag(model, row)

    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_tracks_are_pixels_that_begin_at_the_handles(self, model: Any, inverted: Any, objective: str) -> None:
        ways = drag(model, inverted, objective=objective, options=options(**SHORT[objective])).ways
        assert ways.shape[0] == len(PAIRS)
        assert_close(ways[:, 0], torch.tensor([handle for handle, _ in PAIRS]).float(), 0.01)
        assert ways.min() >= 0 and (ways <= torch.tensor(SIZE)).all()

    def test_points_may_be_shares_of_the_image(self, model: Any, inverted: Any) -> None:
        places = [[[x / SIZE[0], y / SIZE[1]] for x, y in pair] for pair in PAIRS]
        shares = {"v": 1, "points": [{"handle": handle, "target": target} for handle, target in places]}
        one, other = drag(model, inverted), drag(model, inverted, points=json.dumps(shares))
        assert torch.equal(one.samples, other.samples) and one.tracks == other.tracks

    def test_what_vae_encode_cut_off_makes_no_difference(self, model: Any, inverted: Any) -> None:
        """VAE Encode takes the middle of an image whose sides are no multiples of a latent cell's."""
        picture = torch.rand(1, SIZE[1] + 3, SIZE[0] + 2, 3, generator=torch.Generator().manual_seed(0))
        framed = {"image": picture, "mask": pad(half_a_mask(), (1, 1, 1, 2)), "points": as_text(PAIRS, shift=1)}
        whole, framed = drag(model, inverted, mask=half_a_mask()), drag(model, inverted, **framed)
        assert_close(framed.samples, whole.samples, 1e-4)
        assert_close(framed.ways, whole.ways + 1, 0.02)

    def test_paths_are_drawn_on_the_picture(self, model: Any, inverted: Any) -> None:
        dragged = drag(model, inverted, points=as_text(PAIRS[:1]))
        assert dragged.paths.shape == (1, 341, 512, 3)
        scale = 512 / SIZE[0]
        x, y = (dragged.ways[0, -1] * scale).round().int().tolist()
        assert_close(dragged.paths[0, y, x], torch.tensor(colour_of(0)) / 255, 0.02)
        x, y = (round(side * scale) for side in PAIRS[0][1])
        assert_close(dragged.paths[0, y, x], torch.tensor(colour_of(0)) / 255, 0.02)
        assert_close(dragged.paths[0, :20, -20:], torch.full((20, 20, 3), 0.5), 0.01)

    def test_two_hundred_points_can_be_dragged_at_once(self, model: Any, inverted: Any) -> None:
        pairs = [((1 + 2.3 * (i % 20), 2 + 2.9 * (i // 20)), (24.5, 16)) for i in range(200)]
        dragged = drag(model, inverted, points=as_text(pairs), options=options(iterations=2))
        assert dragged.ways.shape == (200, 3, 2)
        assert torch.isfinite(dragged.samples).all()

    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_the_same_inputs_give_the_same_outputs(self, model: Any, inverted: Any, objective: str) -> None:
        changes = {"objective": objective, "mask": half_a_mask(), "options": options(**SHORT[objective])}
        one, other = (drag(model, inverted, **changes) for _ in range(2))
        assert torch.equal(one.samples, other.samples) and one.tracks == other.tracks


class TestMask:
    @pytest.mark.parametrize(
        "mask",
        [torch.ones(1, 32, 48), torch.zeros(1, 32, 48), torch.zeros(1, 64, 64), torch.zeros(3, 5, 7)],
        ids=["white", "black", "black of another size", "black batch"],
    )
    def test_an_even_one_is_as_none(self, model: Any, inverted: Any, mask: Tensor) -> None:
        assert torch.equal(drag(model, inverted, mask=mask).samples, drag(model, inverted).samples)

    def test_the_more_it_weighs_the_less_changes_outside(self, model: Any, inverted: Any) -> None:
        def change(weight: float) -> float:
            numbers = {"iterations": 12, "mask_weight": weight}
            rows = drag(model, inverted, mask=half_a_mask(), options=options(**numbers)).samples
            sampled = sample(model, conditioning(), rows, STEPS, start=START)
            return float((sampled[1] - sampled[0])[:, 6:].abs().mean())

        assert change(10.0) < 0.7 * change(0.0)


class TestOptions:
    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_without_them_it_is_as_published(self, monkeypatch: pytest.MonkeyPatch, model: Any, objective: str) -> None:
        assert configuration(monkeypatch, model, objective, None) == published(objective)
        assert configuration(monkeypatch, model, objective, options()) == published(objective)

    def test_minus_one_everywhere_gives_what_none_give(
        self, monkeypatch: pytest.MonkeyPatch, model: Any, inverted: Any
    ) -> None:
        """Of a drag that is not as long as the published one."""
        monkeypatch.setattr(drag_node, "published", lambda objective: replace(published(objective), iterations=2))
        none, some = (drag(model, inverted, options=given) for given in (None, options()))
        assert torch.equal(none.samples, some.samples) and none.tracks == some.tracks
        assert none.ways.shape == (len(PAIRS), 3, 2)

    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_every_number_reaches_the_core(self, monkeypatch: pytest.MonkeyPatch, model: Any, objective: str) -> None:
        others = {name: 2 * getattr(published(objective), name) for name in NUMBERS}
        assert configuration(monkeypatch, model, objective, options(**others)) == DragLatent(objective, **others)

    @pytest.mark.parametrize("iterations", [1, 3])
    def test_iterations_are_updates(self, model: Any, inverted: Any, iterations: int) -> None:
        """A track has a place before each of them and one at the end."""
        ways = drag(model, inverted, options=options(iterations=iterations)).ways
        assert ways.shape == (len(PAIRS), iterations + 1, 2)

    @pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask"])
    def test_gradient_checkpointing_gives_the_same(
        self, monkeypatch: pytest.MonkeyPatch, model: Any, inverted: Any, masked: bool
    ) -> None:
        """And computes more: it is no switch that nothing is behind."""
        calls, mask = count_resnets(monkeypatch), half_a_mask() if masked else None
        plain = drag(model, inverted, mask=mask)
        calls_of_plain = len(calls)
        saving = drag(model, inverted, mask=mask, options=options(iterations=4, checkpointing=True))
        assert_close(saving.samples, plain.samples, 1e-4)
        assert len(calls) > 2.3 * calls_of_plain


class _Seen(Exception):
    pass


def configuration(monkeypatch: pytest.MonkeyPatch, model: Any, objective: str, given: Any) -> DragLatent:
    """What the core is asked for."""

    def catch(read: Any, x: Any, sigmas: Any, points: Any, config: Any, mask: Any, on_drag: Any) -> Any:
        raise _Seen(config)

    monkeypatch.setattr(drag_node, "drag_latent", catch)
    with pytest.raises(_Seen) as seen:
        drag(model, {"samples": 3 * normal(1, 4, 8, 12)}, objective=objective, options=given)
    return seen.value.args[0]


def count_resnets(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for every residual block that is computed from now on."""
    calls: list[None] = []
    original = ResBlock.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(*args, **kwargs)

    monkeypatch.setattr(ResBlock, "forward", counted)
    return calls


class Updates(list[tuple[int, int, Any]]):
    """What the progress bar is told: value, total and preview."""

    def __init__(self) -> None:
        comfy.utils.set_progress_bar_global_hook(self)

    def __call__(self, value: int, total: int, preview: Any, **_: Any) -> None:
        self.append((value, total, preview))


@pytest.mark.parametrize("objective", PUBLISHED)
def test_progress_counts_updates_and_shows_the_way_so_far(model: Any, inverted: Any, objective: str) -> None:
    updates, numbers = Updates(), SHORT[objective]
    dragged = drag(model, inverted, objective=objective, options=options(**numbers))
    most = numbers["iterations"] * numbers.get("levels", 1)
    assert sorted({value for value, _, _ in updates}) == [*range(most + 1)]
    assert [value for value, _, _ in updates] == sorted(value for value, _, _ in updates)
    assert {total for _, total, _ in updates} == {most}
    assert all(kind == "JPEG" and isinstance(picture, Image.Image) for _, _, (kind, picture, _) in updates)
    assert all(picture.size == (512, 341) and side > 0 for _, _, (_, picture, side) in updates)
    assert torch.equal(as_image(updates[-1][2][1]), dragged.paths)


def test_it_can_be_cancelled_where_nobody_watches_the_progress(model: Any, inverted: Any) -> None:
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        drag(model, inverted)


@pytest.fixture(scope="module")
def dragged(model: Any, inverted: Any) -> Dragged:
    """So roughly that the rows have little in common."""
    return drag(model, inverted, options=options(iterations=4, learning_rate=0.5))


class TestReferenceControl:
    """Attention KV Inject without alphas, under KSampler."""

    def test_is_the_cores(self, model: Any, core: ToyModel, dragged: Dragged) -> None:
        (patched,) = run("AttentionKVInject", model=model, **KV_INJECT)
        frames = sample(patched, conditioning(), dragged.samples, STEPS, start=START)
        rows = dragged.samples.clone() * SCALE_FACTOR
        with (
            torch.no_grad(),
            mixed_self_attention(core.backbone.attention_layers(), (0.0, 0.0), blocks="last two up blocks"),
        ):
            expected = ddim.sample(toy_denoiser(core), rows, ksampler_sigmas(model))
        assert_close(frames, expected / SCALE_FACTOR, 1e-3)
        plain = sample(model, conditioning(), dragged.samples, STEPS, start=START)
        assert_close(frames[:1], plain[:1], 1e-4)
        assert (frames[1] - plain[1]).abs().max() > 0.01

    def test_is_the_cores_where_more_than_two_up_blocks_have_attention(self) -> None:
        sd1, noise = models.sd1(), 10 * normal(2, 4, 8, 12)
        (patched,) = run("AttentionKVInject", model=sd1, **KV_INJECT)
        frames = sample(patched, conditioning(), noise, 2)
        with diffusers_twin(sd1) as twin, torch.no_grad():
            denoise = denoiser_of(twin.unet, conditioning()[0][0], twin.schedule.sigmas)
            with mixed_self_attention(attention_layers(twin.unet), (0.0, 0.0), blocks="last two up blocks"):
                expected = ddim.sample(denoise, scaled_latent(sd1, noise), ksampler_sigmas(sd1, 0, 2))
        assert_close(frames, expected / 0.18215, 1e-4)

    def test_leaves_the_original_as_it_is_alone(self, model: Any, dragged: Dragged) -> None:
        (patched,) = run("AttentionKVInject", model=model, **KV_INJECT)
        frames = sample(patched, conditioning(), dragged.samples, STEPS, start=START)
        alone = sample(model, conditioning(), dragged.samples[:1], STEPS, start=START)
        assert_close(frames[:1], alone, 1e-4)

    def test_with_guidance_each_prompts_rows_look_at_their_own_original(
        self, model: Any, core: ToyModel, dragged: Dragged
    ) -> None:
        """Cond and uncond are one batch of four rows."""
        cfg, chunks = 3.0, []

        def watch(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
            chunks.append(len(arguments["cond_or_uncond"]))
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

        (patched,) = run("AttentionKVInject", model=model, **KV_INJECT)
        patched.set_model_unet_function_wrapper(watch)
        settings = {"negative": conditioning(1), "cfg": cfg, "start": START}
        frames = sample(patched, conditioning(), dragged.samples, STEPS, **settings)
        assert chunks == [2] * (STEPS - START)
        cond, uncond = toy_denoiser(core), toy_denoiser(core, conditioning(1))

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            return uncond(x, sigma) + cfg * (cond(x, sigma) - uncond(x, sigma))

        rows = dragged.samples.clone() * SCALE_FACTOR
        with (
            torch.no_grad(),
            mixed_self_attention(core.backbone.attention_layers(), (0.0, 0.0), blocks="last two up blocks"),
        ):
            assert_close(frames, ddim.sample(guided, rows, ksampler_sigmas(model)) / SCALE_FACTOR, 1e-3)
        alone = sample(model, conditioning(), dragged.samples[:1], STEPS, **settings)
        assert_close(frames[:1], alone, 1e-3)


class Drawing(NamedTuple):
    """A toy drawing: IMAGE, CONDITIONING of its caption, and LATENT."""

    image: Tensor
    prompt: Any
    latent: dict[str, Any]


@pytest.fixture(scope="module")
def drawing(toy: tuple[Any, Any, Any]) -> Drawing:
    return make_drawing(toy, "cat", 1)


def make_drawing(toy: tuple[Any, Any, Any], animal: str, seed: int, **look: str) -> Drawing:
    look = {"colour": "red", "mood": "happy", "background": "mint", **look}
    image, caption = run("ToyDrawing", animal=animal, seed=seed, **look)
    with torch.inference_mode():
        (prompt,) = nodes.CLIPTextEncode().encode(toy[1], caption)
        (encoded,) = nodes.VAEEncode().encode(toy[2], image)
    return Drawing(image, prompt, encoded)


def drag_drawing(model: Any, drawing: Drawing, **changes: Any) -> Dragged:
    """Its nose, unless told otherwise."""
    spacing = {name: changes.pop(name, value) for name, value in SPACING.items()}
    noise, *_ = run("DdimInvert", model=model, positive=drawing.prompt, latent_image=drawing.latent, **spacing)
    own = {"positive": drawing.prompt, "image": drawing.image, "points": as_text([(NOSE, (40, 40))])}
    return drag(model, noise, **{**own, **spacing, **changes})


def psnr(one: Tensor, other: Tensor) -> float:
    return -10 * math.log10((one - other).square().mean().item())


@pytest.mark.parametrize("objective", PUBLISHED)
def test_the_first_row_becomes_the_image_again(toy: Any, drawing: Drawing, objective: str) -> None:
    """As the autoencoder gives it back; the second one does not."""
    model, _, vae = toy
    numbers = {"learning_rate": 0.03, **SHORT[objective]}
    dragged = drag_drawing(model, drawing, objective=objective, options=options(**numbers))
    (patched,) = run("AttentionKVInject", model=model, **KV_INJECT)
    rows = sample(patched, drawing.prompt, dragged.samples, STEPS, start=dragged.next_step)
    with torch.inference_mode():
        (known,) = nodes.VAEDecode().decode(vae, drawing.latent)
        (pictures,) = nodes.VAEDecode().decode(vae, {"samples": rows})
    assert psnr(pictures[:1], known) > 40
    assert psnr(pictures[1:], known) < psnr(pictures[:1], known) - 2


@pytest.mark.parametrize(
    ("objective", "numbers"),
    [("DragDiffusion", {"iterations": 12}), ("GoodDrag", {"iterations": 6, "levels": 2})],
)
def test_the_handle_comes_nearer_to_its_target(
    model: Any, drawing: Drawing, objective: str, numbers: dict[str, Any]
) -> None:
    target = (NOSE[0], NOSE[1] + 5)
    changes = {
        "points": as_text([(NOSE, target)]),
        "objective": objective,
        "options": options(learning_rate=0.05, **numbers),
    }
    (way,) = drag_drawing(model, drawing, **changes).ways
    left = (way - torch.tensor(target)).norm(dim=-1)
    assert left[-1] < 0.7 * left[0]


@pytest.mark.parametrize(("steps", "start"), [(10, 3), (50, 15), (50, 40)])
def test_the_latents_of_drawings_are_at_the_step_they_were_inverted_to(
    model: Any, drawing: Drawing, steps: int, start: int
) -> None:
    changes = {"steps": steps, "start_at_step": start, "options": options(iterations=1)}
    assert drag_drawing(model, drawing, **changes).next_step == start


def test_so_are_those_that_the_model_inverts_to_little_variance(toy: Any) -> None:
    rabbit = make_drawing(toy, "rabbit", 1, colour="blue", mood="sad", background="sand")
    assert drag_drawing(toy[0], rabbit, start_at_step=0, options=options(iterations=1)).next_step == 0


def node_output(inputs: dict[str, Any]) -> Any:
    """What ComfyUI gets from the node, with what is for the front end."""
    cls = NODE_CLASS_MAPPINGS["MorphDragDragLatentOptimize"].PREPARE_CLASS_CLONE({})
    with torch.inference_mode():
        return cls.EXECUTE_NORMALIZED(**inputs)


def shown_picture(output: Any) -> Tensor:
    """The picture for the picker, (H, W, 3) in 0..1."""
    import folder_paths

    (file,) = output.ui["picker_image"]
    path = Path(folder_paths.get_directory_by_type(file["type"])) / file["subfolder"] / file["filename"]
    return torch.from_numpy(np.asarray(Image.open(path), dtype=np.float32) / 255)


@pytest.mark.parametrize("points", ["", " \n\t"])
def test_without_points_it_shows_the_picture_and_nothing_runs_after_it(model: Any, inverted: Any, points: str) -> None:
    """The picker needs the picture to pick points on, so this is no exception."""
    picture = torch.rand(1, SIZE[1], SIZE[0], 3, generator=torch.Generator().manual_seed(0))
    output = node_output(drag_inputs(model, inverted, image=picture, points=points))
    assert output.block_execution.startswith("Drag Latent Optimize: points is empty")
    assert output.result == (None,) * 4
    assert_close(shown_picture(output), picture[0], 1 / 255)


def test_with_points_it_shows_the_picture_too(model: Any, inverted: Any) -> None:
    output = node_output(drag_inputs(model, inverted))
    assert output.block_execution is None
    assert shown_picture(output).shape == (SIZE[1], SIZE[0], 3)


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyHost]:
    with running_comfyui(tmp_path_factory.mktemp("drag")) as host:
        yield host


def prompt(points: str) -> Prompt:
    """The whole way from a toy drawing to two pictures."""
    model, text = ["model", 0], ["text", 0]
    look = {"animal": "cat", "colour": "red", "mood": "happy", "background": "mint", "seed": 1}
    numbers = {**dict.fromkeys(NUMBERS, -1), "iterations": 2, "gradient_checkpointing": False}
    sampling = {"sampler_name": "ddim", "scheduler": "ddim_uniform", "cfg": 1.0, "noise_seed": 0, "steps": STEPS}
    sampling |= {"add_noise": "disable", "return_with_leftover_noise": "disable", "end_at_step": 1000}
    sampling |= {"start_at_step": ["drag", 1], "latent_image": ["drag", 0], "negative": text}
    drag_links = {"latent": ["invert", 0], "image": ["drawing", 0], "options": ["options", 0]}
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "model": ("MorphDragLoadToyModel", {}),
        "drawing": ("MorphDragToyDrawing", look),
        "text": ("CLIPTextEncode", {"clip": ["model", 1], "text": ["drawing", 1]}),
        "encode": ("VAEEncode", {"pixels": ["drawing", 0], "vae": ["model", 2]}),
        "invert": ("MorphDragDdimInvert", {"model": model, "positive": text, "latent_image": ["encode", 0], **SPACING}),
        "options": ("MorphDragDragOptions", {**numbers, "feature_block": "second to last up block"}),
        "drag": ("MorphDragDragLatentOptimize", {"model": model, "positive": text, **drag_links, **SPACING}),
        "inject": ("MorphDragAttentionKVInject", {"model": model, **KV_INJECT}),
        "sample": ("KSamplerAdvanced", {"model": ["inject", 0], "positive": text, **sampling}),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["model", 2]}),
        "pictures": ("PreviewImage", {"images": ["decode", 0]}),
        "paths": ("PreviewImage", {"images": ["drag", 2]}),
    }
    kinds["drag"][1].update(points=points, objective="DragDiffusion")
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in kinds.items()}


def errors_of(host: ComfyHost, prompt: Prompt) -> tuple[str, list[str]]:
    """A prompt's id, and the execution errors that the client who queued it is told."""
    import websocket

    client, errors = uuid.uuid4().hex, []
    socket = websocket.create_connection(f"{host.url.replace('http', 'ws', 1)}/ws?clientId={client}", timeout=60)
    prompt_id = host.post("/prompt", {"prompt": prompt, "client_id": client})["prompt_id"]
    kind = ""
    while kind != "execution_success":
        frame = socket.recv()
        if isinstance(frame, str):
            kind, data = (json.loads(frame)[key] for key in ("type", "data"))
            errors += [data["exception_message"]] if kind == "execution_error" else []
    socket.close()
    return prompt_id, errors


class TestInComfyUI:
    def test_without_points_the_user_is_told_and_the_picker_gets_its_picture(self, comfyui: ComfyHost) -> None:
        prompt_id, errors = errors_of(comfyui, prompt(""))
        assert errors and all("Drag Latent Optimize: points is empty" in error for error in errors)
        outputs = comfyui.get(f"/history/{prompt_id}")[prompt_id]["outputs"]
        (file,) = outputs["drag"]["picker_image"]
        assert Image.open(comfyui.temp_folder / file["subfolder"] / file["filename"]).size == (64, 64)
        assert "pictures" not in outputs and "paths" not in outputs

    def test_with_points_it_runs_once_and_is_cached_then(self, comfyui: ComfyHost) -> None:
        with_points = prompt(as_text([(NOSE, (40, 40))]))
        first = comfyui.wait(comfyui.queue(with_points))
        assert first.was_executed("drag") and first.was_executed("sample")
        assert len(first.entry["outputs"]["pictures"]["images"]) == 2
        assert len(first.entry["outputs"]["drag"]["picker_image"]) == 1
        second = comfyui.wait(comfyui.queue(with_points))
        assert second.was_cached("drag") and not second.executed

    def test_an_error_names_the_node_and_the_input(self, comfyui: ComfyHost) -> None:
        with pytest.raises(RunFailed, match="Node drag .*Drag Latent Optimize: points has .* odd number"):
            comfyui.wait(comfyui.queue(prompt('[{"x": 1, "y": 1}]')))
