"""Sequences of any number of pictures: what a morph of two is, each picture inverted once, each frame sampled once."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.alphas import alpha_schedule
from morph_pack.morph_core.morphing.timeline import Timeline, timeline, timeline_of_values
from morph_pack.morph_core.recipes.image import PreparedImage
from morph_pack.morph_core.recipes.morph import morph_prepared
from morph_pack.morph_core.recipes.sequence import sequence, sequence_prepared
from morph_tests.core.morphs import FULL, PLAIN, picture, small_model
from morph_tests.core.test_morph_frames import rows_of, watched

STEPS = 5
ONE_PASS = replace(FULL, frames=5, steps=STEPS, reschedule=False)
TWO_PASSES = replace(ONE_PASS, reschedule=True)


@pytest.fixture
def model(make_unet):
    return small_model(make_unet)


@pytest.fixture
def pictures(model, random_lora):
    """Five, of which each has a LoRA of another rank."""
    return [
        PreparedImage(
            torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)),
            model.encode_text([f"a {colour} cat"]),
            random_lora(model.backbone.network, seed, rank=1 + seed),
        )
        for seed, colour in enumerate(("red", "blue", "green", "yellow", "purple"))
    ]


@pytest.mark.parametrize("config", [ONE_PASS, TWO_PASSES, replace(TWO_PASSES, frames_per_batch=2)])
def test_two_pictures_are_the_morph_to_the_bit(model, pictures, config):
    morph, result = (
        morph_prepared(model, *pictures[:2], config),
        sequence_prepared(model, pictures[:2], timeline(2, [5]), config),
    )
    assert result.timeline.positions == morph.alphas
    assert torch.equal(result.latents, morph.latents) and torch.equal(result.frames, morph.frames)


@pytest.mark.parametrize("closed", [False, True])
def test_each_picture_is_inverted_once_and_each_frame_sampled_once(model, pictures, closed):
    calls = watched(model)
    sequence_prepared(model, pictures, timeline(5, [5], closed=closed), ONE_PASS)
    segments = [[5], [4], [4], [4], *([[3]] if closed else [])]
    assert rows_of(calls) == [2] * 2 * STEPS + [1] * STEPS + [rows for (rows,) in segments for _ in range(STEPS)]


@pytest.mark.parametrize("config", [ONE_PASS, TWO_PASSES])
def test_a_segment_is_the_morph_of_its_pictures(model, pictures, config):
    result = sequence_prepared(model, pictures[:3], timeline(3, [5]), config)
    for first in (0, 1):
        alone = morph_prepared(model, *pictures[first : first + 2], config)
        torch.testing.assert_close(result.latents[4 * first : 4 * first + 5], alone.latents, rtol=0, atol=1e-4)
        of_segment = [position - first for position in result.timeline.positions[4 * first : 4 * first + 5]]
        assert of_segment == pytest.approx(alone.alphas, abs=1e-5)


def test_a_loop_leads_back_to_the_first_picture(model, pictures):
    result = sequence_prepared(model, pictures[:3], timeline(3, [5], closed=True), ONE_PASS)
    back = morph_prepared(model, pictures[2], pictures[0], ONE_PASS)
    assert len(result.frames) == 12
    torch.testing.assert_close(result.latents[8:], back.latents[:-1], rtol=0, atol=1e-4)
    torch.testing.assert_close(result.latents[:1], back.latents[-1:], rtol=0, atol=1e-4)


def test_parts_are_the_whole(model, pictures):
    whole, parts = (
        sequence_prepared(model, pictures[:3], timeline(3, [5], closed=True), replace(ONE_PASS, frames_per_batch=size))
        for size in (0, 2)
    )
    torch.testing.assert_close(parts.latents, whole.latents, rtol=0, atol=1e-4)


def test_held_frames_are_the_same_frame(model, pictures):
    calls = watched(model)
    result = sequence_prepared(model, pictures[:2], timeline(2, [3], holds=[2, 1]), ONE_PASS)
    assert rows_of(calls) == [2] * STEPS + [3] * STEPS
    for held in ((0, 1), (0, 2), (4, 5)):
        assert torch.equal(result.latents[held[0]], result.latents[held[1]])
    assert not torch.equal(result.latents[3], result.latents[2])


@pytest.mark.parametrize("config", [ONE_PASS, replace(ONE_PASS, attention=0.0)])
def test_values_in_any_order_show_the_frames_at_these_alphas(model, pictures, config):
    values = timeline_of_values([0.75, 0.25, 0.75, 0.0], 2)
    result = sequence_prepared(model, pictures[:2], values, config)
    morph = morph_prepared(model, *pictures[:2], config)
    torch.testing.assert_close(result.latents, morph.latents[[3, 1, 3, 0]], rtol=0, atol=1e-4)


def test_a_picture_that_no_frame_is_near_to_is_not_sampled(model, pictures):
    calls = watched(model)
    result = sequence_prepared(model, pictures[:3], Timeline((2.0, 0.5), 3), replace(ONE_PASS, attention=0.0))
    assert rows_of(calls) == [2] * STEPS + [1] * STEPS + [3] * STEPS + [1] * STEPS
    torch.testing.assert_close(
        result.latents[0],
        morph_prepared(model, pictures[1], pictures[2], replace(ONE_PASS, attention=0.0)).latents[-1],
        rtol=0,
        atol=1e-4,
    )


def test_what_a_picture_gave_its_attention_is_dropped_with_its_last_segment(model, pictures, monkeypatch):
    import morph_pack.morph_core.recipes.sequence as recipe

    kept, keyframes_of = [], recipe.keyframes_of

    def watching(*args):
        kept.extend(keyframes_of(*args))
        return kept

    monkeypatch.setattr(recipe, "keyframes_of", watching)
    sequence_prepared(model, pictures, timeline(5, [4]), ONE_PASS)
    assert [len(keyframe.contexts) > 0 for keyframe in kept] == [True, False, False, False, True]


def test_identical_neighbours_stand_still(model, pictures):
    result = sequence_prepared(model, [pictures[0]] * 2, timeline(2, [4]), TWO_PASSES)
    torch.testing.assert_close(result.latents, result.latents[:1].expand(4, -1, -1, -1), rtol=0, atol=1e-3)
    assert result.timeline.positions == pytest.approx(alpha_schedule(4), abs=0.2)


def test_images_of_different_sizes_or_numbers_are_refused(model):
    images = [picture(0), picture(1), torch.rand(1, 3, 32, 16)]
    with pytest.raises(InvalidInput, match="same shape .*32, 16"):
        sequence(model, images, ["a"] * 3, timeline(3), PLAIN)
    with pytest.raises(InvalidInput, match="timeline is of 3 pictures, got 2 images and 3 captions"):
        sequence(model, images[:2], ["a"] * 3, timeline(3), PLAIN)


def test_a_sequence_from_pictures(model):
    result = sequence(
        model, [picture(seed) for seed in range(3)], ["a cat", "a bear", "a mouse"], timeline(3, [3]), PLAIN
    )
    assert result.frames.shape == (5, 3, 16, 16) and 0 <= result.frames.min() and result.frames.max() <= 1
