import random
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.attention.prompt_to_prompt import (
    Edit,
    PromptToPrompt,
    blend_mask,
    from_source,
    layer_grid,
    prompt_to_prompt,
)
from morph_pack.morph_core.attention.token_alignment import (
    ALIGNMENTS,
    WordControl,
    align_tokens,
    controlled_maps,
    find_tokens,
    parse_reweight,
    token_scale,
    word_control,
)
from morph_pack.morph_core.errors import InvalidInput, UnsupportedModel
from morph_pack.morph_core.models.unet import attention_layers
from morph_pack.morph_core.sampling.ddim import sample
from morph_pack.morph_core.sampling.schedule import alphas_cumprod, ddim_sigmas, sigmas_of
from morph_pack.morph_core.toy.words import tokenize, word_tokens
from morph_tests.networks import denoiser_of

START, END = 49406, 49407  # as CLIP's
A, CAT, FLUFFY, MAINE, COON, ON, RED = 1, 2, 3, 4, 5, 6, 7
SIGMAS = torch.arange(10.0, -1, -1)  # of ten steps
SIZE = (8, 8)  # of the latents of `unet`, whose layers have 64, 16 and 4 positions
TOKENS = 5


def clip(*words):
    return [START, *words] + [END] * (76 - len(words))


def blended(run, x, sigma):
    """What a last step, which leads to x itself, leads to with the local blend."""
    return run.blend(x, torch.zeros_like(x), sigma, torch.zeros(()))


def randoms(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(*shape, seed=1):
    return randoms(*shape, seed=seed).softmax(-1)


def identity(tokens=TOKENS):
    return word_control(range(tokens), range(tokens), "replace")


def keep_own(tokens=TOKENS):
    return WordControl(torch.eye(tokens), torch.ones(tokens), torch.ones(tokens))


# Alignment


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("words", [(), (A, CAT), (A, CAT, ON, A, RED, CAT)])
def test_a_prompt_aligns_with_itself_one_to_one(alignment, words):
    mapper, own = align_tokens(clip(*words), clip(*words), alignment)
    assert torch.equal(mapper, torch.eye(77))
    assert torch.equal(own, torch.zeros(77))


def test_one_token_that_becomes_two_gives_each_half_and_two_that_become_one_give_it_both():
    mapper, own = align_tokens([A, CAT, ON], [A, MAINE, COON, ON], "replace")
    assert mapper.tolist() == [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    assert own.tolist() == [0] * 4
    mapper, own = align_tokens([A, MAINE, COON, ON], [A, CAT, ON], "replace")
    assert mapper.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert own.tolist() == [0] * 3


def test_runs_of_a_length_map_one_to_one():
    mapper, own = align_tokens([A, RED, CAT, ON], [A, MAINE, COON, ON], "replace")
    assert torch.equal(mapper, torch.eye(4)) and own.tolist() == [0] * 4


def test_refined_words_keep_their_own_maps():
    mapper, own = align_tokens([A, CAT, ON], [A, MAINE, COON, ON], "refine")
    assert mapper.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert own.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_an_inserted_word_keeps_its_own_map_and_a_deleted_one_goes_nowhere(alignment):
    mapper, own = align_tokens([A, CAT], [A, FLUFFY, CAT], alignment)
    assert mapper.tolist() == [[1, 0, 0], [0, 0, 1]] and own.tolist() == [0, 1, 0]
    mapper, own = align_tokens([A, FLUFFY, CAT], [A, CAT], alignment)
    assert mapper.tolist() == [[1, 0], [0, 0], [0, 1]] and own.tolist() == [0, 0]


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_padding_maps_to_padding_and_start_to_start(alignment):
    """An insertion moves the rest by a place, and the place that padding loses is the only one that goes nowhere."""
    mapper, own = align_tokens(clip(A, CAT), clip(A, FLUFFY, CAT), alignment)
    expected = torch.zeros(77, 77)
    expected[[0, 1], [0, 1]] = 1
    expected[range(2, 76), range(3, 77)] = 1
    assert torch.equal(mapper, expected)
    assert own.nonzero().flatten().tolist() == [2]


def test_long_prompts_align_too():
    """`difflib` is not to take frequent tokens for junk, as it does from 200 on."""
    mapper, own = align_tokens([START] + [END] * 230, [START, CAT] + [END] * 229, "refine")
    assert own.nonzero().flatten().tolist() == [1] and mapper.sum() == 230


def test_replacing_a_word_by_a_longer_one_among_padding():
    mapper, own = align_tokens(clip(A, CAT), clip(A, MAINE, COON), "replace")
    assert mapper[2].nonzero().flatten().tolist() == [2, 3] and mapper[2, 2] == mapper[2, 3] == 0.5
    assert torch.equal(mapper[3:76, 4:], torch.eye(73)) and not own.any()


def test_every_source_map_goes_somewhere_whole_or_nowhere_and_every_edited_map_has_one_origin():
    random.seed(0)
    kinds = set()
    for _ in range(50):
        source, edited = ([random.choice([A, CAT, FLUFFY, RED]) for _ in range(random.randint(1, 7))] for _ in range(2))
        mapper, own = align_tokens(source, edited, "replace")
        mass = mapper.sum(1)
        assert (torch.isclose(mass, torch.ones(())) | (mass == 0)).all()
        assert torch.equal(own == 0, mapper.sum(0) > 0)
        kinds |= {float(x) for x in mapper.unique()}
    assert len(kinds) > 3  # among the prompts were runs of two lengths and more


def test_an_unknown_alignment_is_refused():
    with pytest.raises(InvalidInput, match="replace, refine; got 'sideways'"):
        align_tokens([A], [A], "sideways")


# Maps


def test_maps_that_are_kept_stay_exactly_and_maps_of_the_same_prompt_become_the_source_s():
    source, edited = maps(1, 2, 6, TOKENS), maps(2, 2, 6, TOKENS, seed=2)
    assert torch.equal(controlled_maps(source, edited, keep_own()), edited)
    assert torch.equal(controlled_maps(source, edited, identity()), source.expand(2, -1, -1, -1))


def test_controlled_maps_by_hand():
    control = word_control([A, CAT], [A, FLUFFY, CAT], "refine", torch.tensor([1.0, 2.0, -1.0]))
    controlled = controlled_maps(torch.tensor([[0.25, 0.75]]), torch.tensor([[0.5, 0.125, 0.375]]), control)
    assert controlled.tolist() == [[0.25, 0.25, -0.75]]


def test_replacing_keeps_the_sum_of_the_maps():
    source, edited = maps(3, 6, 77), maps(3, 6, 77, seed=2)
    control = word_control(clip(A, CAT, ON), clip(A, MAINE, COON, ON), "replace")
    controlled = controlled_maps(source, edited, control)
    torch.testing.assert_close(controlled[..., 2] + controlled[..., 3], source[..., 2])
    torch.testing.assert_close(controlled.sum(-1), 1 - source[..., -1])  # one padding was pushed out


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_maps_dtype_stays(dtype):
    assert controlled_maps(maps(6, TOKENS).to(dtype), maps(6, TOKENS).to(dtype), identity()).dtype == dtype


def test_a_control_of_other_prompts_is_refused():
    with pytest.raises(InvalidInput, match="prompts of 5 and 5 tokens, the attention maps have 5 and 6"):
        controlled_maps(maps(2, 5), maps(2, 6), identity())
    with pytest.raises(InvalidInput, match=r"3 tokens.* shapes \(3,\) and \(4,\)"):
        word_control([A, CAT], [A, RED, CAT], "refine", torch.ones(4))
    with pytest.raises(InvalidInput, match="scale must be finite"):
        word_control([A, CAT], [A, CAT], "refine", torch.tensor([1, float("inf")]))


# Words


def test_reweighting_is_read_from_text():
    assert parse_reweight("happy: 2, red: -1") == {"happy": 2.0, "red": -1.0}
    assert parse_reweight("red cat:1e-1\n\n sad : 0 ,") == {"red cat": 0.1, "sad": 0.0}
    assert parse_reweight("") == parse_reweight(" \n") == {}
    assert parse_reweight("red: 1000, sad: -1e3") == {"red": 1000.0, "sad": -1000.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red: 1, happy", "'happy' is not a word with its factor"),
        ("red: 1, : 2", "': 2' is not a word"),
        ("red: much", "factor of 'red' must be a finite number, got 'much'"),
        ("red:", "factor of 'red' must be a finite number, got ''"),
        ("red: 2 happy: 3", "factor of 'red' must be a finite number, got '2 happy: 3'"),
        ("red: inf", "factor of 'red' must be a finite number, got 'inf'"),
        ("a: 1, red: nan", "factor of 'red' must be a finite number, got 'nan'"),
        ("red: 1e39", "reweight: the factor of 'red' must be between -1000 and 1000, got 1e39"),
        ("red: -1000.1", "reweight: the factor of 'red' must be between -1000 and 1000"),
        ("red: 1, red: 2", "names 'red' twice"),
    ],
)
def test_text_that_is_no_reweighting_is_refused_by_its_wrong_part(text, message):
    with pytest.raises(InvalidInput, match=message):
        parse_reweight(text)


def test_the_tokens_of_a_word_are_found_wherever_they_follow_each_other():
    prompt = clip(A, MAINE, COON, ON, COON, MAINE, COON)
    assert find_tokens("maine coon", [MAINE, COON], prompt) == [2, 3, 6, 7]
    assert find_tokens("coon", [COON], prompt) == [3, 5, 7]
    assert find_tokens("on and on", [ON, ON], [ON, ON, ON]) == [0, 1, 2]


@pytest.mark.parametrize("word_ids", [[CAT], [COON, ON, MAINE], []])
def test_a_word_that_is_not_in_the_prompt_is_refused_by_name(word_ids):
    with pytest.raises(InvalidInput, match="'the word'.* not in the prompt"):
        find_tokens("the word", word_ids, clip(A, MAINE, COON, ON, COON))


def test_factors_land_on_their_words():
    (prompt,) = tokenize(["a happy red cat"])
    scale = token_scale({"happy": 2.0, "red cat": -1.0}, word_tokens, prompt)
    assert scale.tolist() == [1, 1, 2, -1, -1, 1, 1, 1]
    assert token_scale({}, word_tokens, prompt).tolist() == [1] * 8


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


# On a UNet


def latents(count, seed=1):
    return randoms(count, 4, *SIZE, seed=seed).double()


def text(count):
    return 3 * randoms(count, TOKENS, 16, seed=2).double()  # far enough from 0 for maps that are not flat


@pytest.fixture
def unet(make_unet):
    """As the shared one, with maps that are far from flat, and in double precision for what they amplify."""
    unet = make_unet().double()
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            weight.mul_(4)
    return unet


def called(unet, run, x, context, sigma=SIGMAS[0], **kwargs):
    with prompt_to_prompt(attention_layers(unet), run, sigma):
        return unet(x, 500, context, **kwargs).sample


def controls(**settings):
    return PromptToPrompt(Edit(**{"control": identity(), **settings}), SIGMAS, SIZE)


def recorded(unet, layer):
    """Every layer of a name with what its projections and itself last returned, and the handles that record it."""
    seen, stack = {}, ExitStack()
    for path, module in unet.named_modules():
        if path.endswith(layer):
            seen[path] = {"heads": module.heads}
            parts = {"q": module.to_q, "k": module.to_k, "v": module.to_v, "out": module.to_out[0], "all": module}
            for name, part in parts.items():

                def keep(_, args, output, path=path, name=name):
                    seen[path][name] = output

                stack.callback(part.register_forward_hook(keep).remove)
    return seen, stack


def attention_maps(queries, keys, heads):
    """(F, heads, N, T) by the formula, from projections (F, N, D) and (F, T, D)."""
    queries, keys = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys))
    return (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)


def attended(attention, values, projection):
    """What a layer returns for maps (F, heads, N, T) and values (F, T, D)."""
    values = values.unflatten(-1, (attention.shape[1], -1)).transpose(1, 2)
    return projection((attention @ values).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("masked", [False, True])
def test_maps_that_are_only_looked_at_change_nothing(unet, masked):
    """The maps spelled out are those of diffusers' own attention, with a mask of the text's tokens and without."""
    x, context = latents(3), text(3)
    kwargs = {"encoder_attention_mask": torch.tensor([[1.0, 1, 1, 0, 0]] * 3)} if masked else {}
    run = controls(control=keep_own(), cross_steps=1.0, self_steps=0.0)
    plain = unet(x, 500, context, **kwargs).sample
    torch.testing.assert_close(called(unet, run, x, context, **kwargs), plain, rtol=0, atol=1e-6)
    if masked:
        assert (unet(x, 500, context).sample - plain).abs().max() > 1e-3


def test_after_the_shares_of_the_steps_nothing_changes(unet):
    x, context = latents(2), text(2)
    run = controls(cross_steps=0.5, self_steps=0.5)
    plain = unet(x, 500, context).sample
    assert torch.equal(called(unet, run, x, context, SIGMAS[5]), plain)
    assert (called(unet, run, x, context, SIGMAS[4]) - plain)[1].abs().max() > 1e-2


def test_the_source_does_not_notice(unet):
    x, context = latents(3), text(3)
    control = word_control([1, 2, 3, 4, 5], [1, 6, 7, 4, 5], "replace", torch.tensor([1.0, 2, 1, 1, 0]))
    run = controls(control=control, cross_steps=1.0, self_steps=1.0)
    plain = unet(x, 500, context).sample
    edited = called(unet, run, x, context)
    torch.testing.assert_close(edited[0], plain[0], rtol=0, atol=1e-6)
    assert (edited - plain).abs().amax((1, 2, 3))[1:].min() > 1e-2


def test_cross_attention_is_that_of_the_maps_computed_by_hand(unet):
    control = word_control([1, 2, 3, 4, 5], [1, 6, 3, 7, 4], "refine", torch.tensor([1.0, 2, 1, -1, 0.5]))
    run = controls(control=control, self_steps=0.0)
    seen, recording = recorded(unet, "attn2")
    with recording:
        called(unet, run, latents(3), text(3))
    assert len(seen) == 10
    for path, layer in seen.items():
        source, *edited = attention_maps(layer["q"], layer["k"], layer["heads"])
        expected = [source]
        for row in edited:  # token by token: 1 and 3 are the source's, 6 and 7 new, 4 moves from place 3 to place 4
            moved = [source[..., 0], 2 * row[..., 1], source[..., 2], -row[..., 3], 0.5 * source[..., 3]]
            expected.append(torch.stack(moved, -1))
        by_hand = attended(torch.stack(expected), layer["v"], unet.get_submodule(path).to_out[0])
        torch.testing.assert_close(layer["all"], by_hand, rtol=0, atol=1e-5)


def test_cross_attention_to_the_same_prompt_tells_all_rows_what_it_tells_the_source(unet):
    x, context = latents(2), text(1).expand(2, -1, -1)
    run = controls(cross_steps=1.0, self_steps=0.0)
    seen, recording = recorded(unet, "attn2")
    with recording:
        called(unet, run, x, context)
        controlled = {path: layer["all"] for path, layer in seen.items()}
        unet(x, 500, context)
    for path, layer in seen.items():
        torch.testing.assert_close(controlled[path][1], controlled[path][0], rtol=0, atol=1e-6)
        assert (layer["all"][1] - layer["all"][0]).abs().max() > 1e-2


def test_self_attention_has_the_source_s_maps_and_its_own_values_but_in_the_finest_layers(unet):
    run = controls(cross_steps=0.0, self_steps=1.0)
    seen, recording = recorded(unet, "attn1")
    inputs = {}
    handles = [
        unet.get_submodule(path).to_v.register_forward_hook(
            lambda _, args, output, path=path: inputs.update({path: args[0]})
        )
        for path in seen
    ]
    with recording:
        called(unet, run, latents(3), text(3))
    for handle in handles:
        handle.remove()
    counts = {True: 0, False: 0}
    for path, layer in seen.items():
        module = unet.get_submodule(path)
        attention = attention_maps(module.to_q(inputs[path]), module.to_k(inputs[path]), layer["heads"])
        coarse = attention.shape[-1] <= 16
        counts[coarse] += 1
        own, shared = (
            attended(attention[rows], module.to_v(inputs[path]), module.to_out[0]) for rows in ([0, 1, 2], [0, 0, 0])
        )
        torch.testing.assert_close(layer["all"], shared if coarse else own, rtol=0, atol=1e-5)
        assert (own - shared)[1:].abs().max() > 1e-2
    assert counts == {True: 7, False: 3}


def test_a_row_asks_as_the_source_does():
    rows = randoms(3, 6, 8)
    assert torch.equal(from_source(rows), torch.stack([rows[0]] * 3))


@pytest.mark.parametrize(("factor", "matters"), [(0.0, False), (1.0, True)])
def test_a_factor_of_0_silences_a_token(unet, factor, matters):
    """What the token's values are no longer matters to the edited row."""
    x, context, token = latents(2), text(2), 3
    scale = torch.ones(TOKENS)
    scale[token] = factor
    run = controls(control=word_control(range(TOKENS), range(TOKENS), "replace", scale), cross_steps=1.0)
    before = called(unet, run, x, context)

    def disturb(module, args, output):
        output = output.clone()
        output[1, token] += 5
        return output

    with ExitStack() as stack:
        for path, module in unet.named_modules():
            if path.endswith("attn2.to_v"):
                stack.callback(module.register_forward_hook(disturb).remove)
        after = called(unet, run, x, context)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-6)
    assert ((after - before)[1].abs().max() > 1e-3) == matters


def test_prompts_of_another_length_than_the_control_s_are_refused(unet):
    with pytest.raises(InvalidInput, match="prompts of 4 and 4 tokens, the attention maps have 5 and 5"):
        called(unet, controls(control=identity(4)), latents(2), text(2))


def test_latents_of_another_size_are_refused(unet):
    run = PromptToPrompt(Edit(identity(), source_blend=[1]), SIGMAS, (10, 10))
    with pytest.raises(InvalidInput, match="16 positions, which latents of 10x10 have at no resolution"):
        called(unet, run, latents(2), text(2))


def test_fused_projections_are_refused(unet):
    unet.fuse_qkv_projections()
    with pytest.raises(UnsupportedModel, match="unfuse_qkv_projections"):
        called(unet, controls(), latents(2), text(2))


def test_nothing_is_left_behind(unet):
    from diffusers.models.attention_processor import AttnProcessor

    next(module for path, module in unet.named_modules() if path.endswith("attn2")).set_processor(AttnProcessor())
    before = unet.attn_processors
    x, context = latents(2), text(2)
    plain = unet(x, 500, context).sample
    called(unet, controls(), x, context)
    with pytest.raises(KeyboardInterrupt), prompt_to_prompt(attention_layers(unet), controls(), SIGMAS[0]):
        assert sum(unet.attn_processors[path] is not processor for path, processor in before.items()) == 10
        raise KeyboardInterrupt
    with pytest.raises(InvalidInput):
        called(unet, controls(control=identity(4)), x, context)
    assert all(unet.attn_processors[path] is processor for path, processor in before.items())
    assert not any(module._forward_pre_hooks for module in unet.modules())
    assert torch.equal(unet(x, 500, context).sample, plain)


# Sampling


def sampled(unet, run, x, context, sigmas):
    denoise = denoiser_of(unet, context, sigmas_of(alphas_cumprod()))

    def controlled(x, sigma):
        with prompt_to_prompt(attention_layers(unet), run, sigma):
            return denoise(x, sigma)

    return sample(controlled, x, sigmas, corrections=[run.blend])


def test_a_sampled_edit_leaves_the_source_and_what_is_outside_the_mask_alone(unet):
    sigmas = ddim_sigmas(sigmas_of(alphas_cumprod()), 5)
    x, context = latents(1).expand(2, -1, -1, -1) * sigmas[0], text(2)
    source = sample(denoiser_of(unet, context[:1], sigmas_of(alphas_cumprod())), x[:1], sigmas)
    edit = Edit(word_control([1, 2, 3, 4, 5], [1, 6, 3, 4, 5], "replace"))
    run = PromptToPrompt(replace(edit, source_blend=[1], edited_blend=[1], blend_threshold=0.9), sigmas, SIZE)
    result = sampled(unet, run, x, context, sigmas)
    torch.testing.assert_close(result[:1], source, rtol=0, atol=1e-5)
    same = (result[1] == result[0]).all(0)
    assert 0 < same.sum() < same.numel()
    unmarked = sampled(unet, PromptToPrompt(edit, sigmas, SIZE), x, context, sigmas)
    assert not (unmarked[1] == unmarked[0]).all(0).any()


def test_the_source_s_own_prompt_gives_the_source(unet):
    sigmas = ddim_sigmas(sigmas_of(alphas_cumprod()), 3)
    x, context = latents(1).expand(2, -1, -1, -1) * sigmas[0], text(1).expand(2, -1, -1)
    run = PromptToPrompt(Edit(identity(), 1.0, 1.0), sigmas, SIZE)
    result = sampled(unet, run, x, context, sigmas)
    torch.testing.assert_close(result[1], result[0], rtol=0, atol=1e-5)
