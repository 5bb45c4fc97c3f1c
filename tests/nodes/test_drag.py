"""Drag Latent Optimize is the core's drag, and KSampler goes on from there beside the original."""

import json
from dataclasses import replace
from typing import Any

import nodes
import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from morph_pack.morph_core.dragging.latent import PUBLISHED, DragLatent, DragResult, drag_latent, published
from morph_pack.morph_core.dragging.points import parse_points
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.blend import blended_loras
from morph_pack.morph_core.lora.low_rank import read_lora
from morph_pack.morph_core.models.features import FEATURE_BLOCKS, up_block_features
from morph_pack.morph_core.pictures.handle_tracks import colour_of
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.nodes.host.backbone import scaled_latent
from morph_tests.networks import denoiser_of
from morph_tests.nodes import models
from morph_tests.nodes.diffusers_twin import diffusers_twin
from morph_tests.nodes.dragging import (
    PAIRS,
    SHORT,
    SIZE,
    START,
    STEPS,
    Dragged,
    as_text,
    assert_close,
    drag,
    half_a_mask,
    invert,
    ksampler_sigmas,
    options,
    toy_denoiser,
)
from morph_tests.nodes.graph import conditioning, normal, random_lora, sample, with_lora


@pytest.fixture(scope="module")
def inverted(model: Any) -> dict[str, Any]:
    return invert(model)


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
    read = up_block_features(core.backbone.network.up_blocks, toy_denoiser(core), block)
    x, points = image_latent["samples"].clone() * SCALE_FACTOR, parse_points(as_text(PAIRS), SIZE)
    with blended_loras(read_lora(lora, core.backbone.network) if lora else {}, {}, (0.0,)):
        return drag_latent(
            read, core.backbone.schedule, x, sigmas, points, config, None if mask is None else mask[None]
        )


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
