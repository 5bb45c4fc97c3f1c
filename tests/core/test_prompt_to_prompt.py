"""Prompt-to-Prompt's course over the steps: which of them it acts in, the mask, and the local blend."""

import pytest
import torch

from morph_pack.morph_core.attention.prompt_to_prompt import (
    Edit,
    PromptToPrompt,
    blend_mask,
    layer_grid,
)
from morph_pack.morph_core.errors import InvalidInput, UnsupportedModel
from morph_tests.core.word_maps import SIGMAS, SIZE, TOKENS, blended, identity, keep_own, maps, randoms

# Settings and steps


@pytest.mark.parametrize("name", ["cross_steps", "self_steps", "blend_threshold", "blend_after"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(name, value):
    with pytest.raises(InvalidInput, match=f"{name} must be between 0 and 1"):
        Edit(identity(), **{name: value})


@pytest.mark.parametrize("name", ["source_blend", "edited_blend"])
@pytest.mark.parametrize("position", [-1, 5])
def test_a_position_outside_the_prompt_is_refused(name, position):
    with pytest.raises(InvalidInput, match=f"{name} has position {position}, but the prompt has 5 tokens"):
        Edit(identity(), **{name: [0, position]})


@pytest.mark.parametrize("steps", [1, 4, 10, 50])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_control_acts_in_its_share_of_the_steps(steps, share):
    sigmas = torch.linspace(10, 0, steps + 1)
    source, edited = maps(1, 2, 16, TOKENS), maps(1, 2, 16, TOKENS, seed=2)
    expected = [True] * round(share * steps) + [False] * (steps - round(share * steps))

    run = PromptToPrompt(Edit(identity(), cross_steps=share, self_steps=0.0), sigmas, SIZE)
    assert [run.needs_maps(sigma) for sigma in sigmas[:-1]] == expected
    assert [torch.equal(run.cross(source, edited, sigma), source) for sigma in sigmas[:-1]] == expected
    assert [not torch.equal(run.cross(source, edited, sigma), edited) for sigma in sigmas[:-1]] == expected
    assert not any(run.shares_self(sigma, 16) for sigma in sigmas)

    run = PromptToPrompt(Edit(identity(), cross_steps=0.0, self_steps=share), sigmas, SIZE)
    assert [run.shares_self(sigma, 16) for sigma in sigmas[:-1]] == expected
    assert not any(run.needs_maps(sigma) for sigma in sigmas)


def test_a_blend_needs_the_maps_of_every_step():
    run = PromptToPrompt(Edit(identity(), cross_steps=0.1, source_blend=[1]), SIGMAS, SIZE)
    assert all(run.needs_maps(sigma) for sigma in SIGMAS)


@pytest.mark.parametrize(
    ("size", "coarse", "fine"), [((8, 8), [16, 4], [64]), ((9, 5), [15, 6], [45]), ((64, 64), [1024, 64], [4096])]
)
def test_self_attention_of_the_finest_layers_is_left_alone(size, coarse, fine):
    run = PromptToPrompt(Edit(identity()), SIGMAS, size)
    assert [run.shares_self(SIGMAS[0], tokens) for tokens in coarse + fine] == [True] * len(coarse) + [False]


def test_a_layer_s_grid_is_the_latent_s_halved():
    for tokens, grid in ((45, (9, 5)), (15, (5, 3)), (6, (3, 2)), (2, (2, 1)), (1, (1, 1))):
        assert layer_grid(tokens, (9, 5)) == grid
    with pytest.raises(InvalidInput, match="16 positions, which latents of 9x5"):
        layer_grid(16, (9, 5))


# The mask


def square(size, *places):
    """Zeros with ones in the given rectangles (top, bottom, left, right)."""
    grid = torch.zeros(size)
    for top, bottom, left, right in places:
        grid[top:bottom, left:right] = 1
    return grid


@pytest.mark.parametrize(("side", "reach"), [(8, 1), (16, 1), (32, 2), (64, 4)])
def test_a_bright_square_is_marked_and_a_sixteenth_of_the_side_around_it(side, reach):
    bright = side // 2
    maps_of_words = torch.stack([torch.zeros(side, side), square((side, side), (bright, bright + 2, 3, 5))])
    mask = blend_mask(maps_of_words, 0.3)
    top, left = bright - reach, max(0, 3 - reach)
    expected = square((side, side), (top, bright + 2 + reach, left, 5 + reach))
    assert mask.shape == (1, 1, side, side) and torch.equal(mask[0, 0], expected.bool())


def test_the_threshold_is_a_share_of_the_map_s_own_maximum():
    row = torch.zeros(2, 16, 16)
    row[0, 1, 1] = 1000  # of the source, which is another map
    row[1, 8, 2], row[1, 8, 12] = 50, 16  # 0.32 of the maximum
    assert [bool(blend_mask(row, threshold)[0, 0, 8, 12]) for threshold in (0.3, 0.31, 0.33)] == [True, True, False]
    assert all(blend_mask(row, threshold)[0, 0, 8, 2] for threshold in (0.3, 0.9))


def test_each_row_is_marked_where_its_own_or_the_source_s_map_is_bright():
    size = (16, 16)
    places = [(2, 3, 2, 3), (10, 11, 10, 11), (2, 3, 12, 13)]
    mask = blend_mask(torch.stack([square(size, place) for place in places]), 0.3)
    grown = [(top - 1, bottom + 1, left - 1, right + 1) for top, bottom, left, right in places]
    expected = [square(size, grown[0], grown[1]), square(size, grown[0], grown[2])]
    assert torch.equal(mask[:, 0], torch.stack(expected).bool())


def test_a_map_of_nothing_marks_nothing():
    assert not blend_mask(torch.zeros(2, 8, 8), 0.3).any()


# The local blend over a run


def bright_map(cell, tokens=TOKENS, token=1, heads=2):
    """(1, heads, 16, T) maps of a 4x4 layer, in which the token is seen in one cell only."""
    attention = torch.zeros(1, heads, 16, tokens)
    attention[..., 0] = 1
    attention[:, :, cell] = torch.nn.functional.one_hot(torch.tensor(token), tokens).float()
    return attention


def blending(**settings):
    defaults = {"control": keep_own(), "source_blend": [1], "edited_blend": [1], "blend_after": 0.0}
    return PromptToPrompt(Edit(**{**defaults, **settings}), SIGMAS, SIZE)


def unchanged(run, x):
    """(h, w), where the blend leaves the edited row as it is."""
    return (blended(run, x, SIGMAS[0])[1] == x[1]).all(0)


@pytest.mark.parametrize(("threshold", "outposts"), [(0.3, ()), (0.2, ((0, 1, 3, 4), (1, 2, 3, 4)))])
def test_outside_the_mask_is_the_source_and_inside_is_untouched(threshold, outposts):
    """One cell of four resized bilinearly to two of eight fades as 1, 3/4, 1/4, 0; pooling moves that on by a cell."""
    run = blending(blend_threshold=threshold)
    run.cross(bright_map(0), bright_map(0), SIGMAS[0])
    x = randoms(2, 4, 8, 8)
    half = square((8, 8), (0, 3, 0, 3), *outposts)
    inside = half.maximum(half.T).bool()
    after = blended(run, x, SIGMAS[0])
    assert torch.equal(after[0], x[0])
    assert torch.equal(after[1], torch.where(inside, x[1], x[0]))


def test_maps_are_summed_over_the_steps():
    run = blending()
    x = randoms(2, 4, 8, 8)

    run.cross(bright_map(0), bright_map(0), SIGMAS[0])
    first = unchanged(run, x)
    run.cross(bright_map(15), bright_map(15), SIGMAS[1])
    both = unchanged(run, x)
    assert not first[-1, -1] and both[-1, -1] and (both & first).equal(first)
    for sigma in SIGMAS[2:8]:
        run.cross(bright_map(15), bright_map(15), sigma)
    assert not unchanged(run, x)[0, 0]  # now a seventh of the other's


@pytest.mark.parametrize(("threshold", "marked"), [(0.3, True), (0.4, False)])
def test_the_average_is_over_heads(threshold, marked):
    attention = bright_map(0, heads=4)
    attention[:, 1] = bright_map(15)[:, 0]  # one head of four looks elsewhere: a third of the maximum
    run = blending(blend_threshold=threshold)
    run.cross(attention, attention, SIGMAS[0])
    assert unchanged(run, randoms(2, 4, 8, 8))[-1, -1] == marked


def test_maps_in_half_precision_are_summed_in_single():
    run = blending()
    for _ in range(2):
        run.cross(60000 * bright_map(0).half(), 60000 * bright_map(0).half(), SIGMAS[0])  # half ends at 65504
    assert unchanged(run, randoms(2, 4, 8, 8))[0, 0]


def test_the_edited_row_s_map_is_taken_as_it_is_after_control():
    x = randoms(2, 4, 8, 8)
    run, expected = blending(control=identity()), blending()
    run.cross(bright_map(0), bright_map(15), SIGMAS[0])
    expected.cross(bright_map(0), bright_map(0), SIGMAS[0])
    assert torch.equal(blended(run, x, SIGMAS[0]), blended(expected, x, SIGMAS[0]))
    assert (blended(run, x, SIGMAS[0])[1, :, -1, -1] == x[0, :, -1, -1]).all()


def test_the_maps_of_a_word_are_summed_and_one_prompt_s_words_are_enough():
    x = randoms(2, 4, 8, 8)
    run = blending(source_blend=[], edited_blend=[2, 3])
    halves = (bright_map(0, token=2) + bright_map(15, token=3)) / 2
    run.cross(bright_map(3), halves, SIGMAS[0])
    inside = unchanged(run, x)
    assert inside[0, 0] and inside[-1, -1] and not inside[0, -1] and not inside[-1, 0]


def test_the_finest_layers_have_no_say_in_the_mask():
    run = blending()
    run.cross(maps(1, 2, 64, TOKENS), maps(1, 2, 64, TOKENS), SIGMAS[0])
    with pytest.raises(UnsupportedModel, match="no cross-attention at half"):
        blended(run, randoms(2, 4, 8, 8), SIGMAS[0])


def test_layers_of_every_coarse_resolution_of_odd_latents_are_counted():
    run = PromptToPrompt(Edit(keep_own(), source_blend=[1], blend_after=0.0), SIGMAS, (9, 5))
    x = randoms(2, 4, 9, 5)
    for tokens in (15, 6):
        run.cross(maps(1, 2, tokens, TOKENS), maps(1, 2, tokens, TOKENS), SIGMAS[0])
        assert blended(run, x, SIGMAS[0]).shape == x.shape


def test_nothing_is_blended_without_words_or_in_the_first_steps():
    x = randoms(2, 4, 8, 8)
    without = blending(source_blend=[], edited_blend=[])
    late = blending(blend_after=0.2)
    for run in (without, late):
        run.cross(bright_map(0), bright_map(0), SIGMAS[0])
    assert all(torch.equal(blended(without, x, sigma), x) for sigma in SIGMAS)
    assert [torch.equal(blended(late, x, sigma), x) for sigma in SIGMAS[:10]] == [True] * 2 + [False] * 8


def test_runs_do_not_share_what_they_have_seen():
    edit = Edit(keep_own(), source_blend=[1], edited_blend=[1], blend_after=0.0)
    alone, after_another = PromptToPrompt(edit, SIGMAS, SIZE), PromptToPrompt(edit, SIGMAS, SIZE)
    other = PromptToPrompt(edit, SIGMAS, SIZE)
    x = randoms(2, 4, 8, 8)
    alone.cross(bright_map(0), bright_map(0), SIGMAS[0])
    expected = blended(alone, x, SIGMAS[0])
    other.cross(bright_map(15), bright_map(15), SIGMAS[0])
    after_another.cross(bright_map(0), bright_map(0), SIGMAS[0])
    assert torch.equal(blended(after_another, x, SIGMAS[0]), expected)
    assert torch.equal(blended(alone, x, SIGMAS[0]), expected)
    assert not torch.equal(blended(other, x, SIGMAS[0]), expected)
