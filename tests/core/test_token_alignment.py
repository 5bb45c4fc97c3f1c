"""Which words of an edited prompt have which of the source's maps, and how strongly."""

import random

import pytest
import torch

from morph_pack.morph_core.attention.token_alignment import (
    ALIGNMENTS,
    align_tokens,
    controlled_maps,
    find_tokens,
    parse_reweight,
    token_scale,
    word_control,
)
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.toy.words import tokenize, word_tokens
from morph_tests.core.word_maps import (
    CAT,
    COON,
    END,
    FLUFFY,
    MAINE,
    ON,
    RED,
    START,
    TOKENS,
    A,
    clip,
    identity,
    keep_own,
    maps,
)

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
