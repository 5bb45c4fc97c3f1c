import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.blend_text import blend_text

ALPHAS = (0.0, 0.3, 1.0)


def embedding(tokens, seed, width=16):
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))


def attend(text):
    """Softmax cross-attention of some fixed queries, in two heads with fixed projections."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 9, 8, generator=generator).expand(len(text), -1, -1, -1)
    to_key, to_value = (torch.randn(16, 16, generator=generator) for _ in range(2))
    key, value = ((text @ weight).unflatten(-1, (2, 8)).transpose(1, 2) for weight in (to_key, to_value))
    return scaled_dot_product_attention(queries, key, value)


@pytest.mark.parametrize(("tokens_0", "tokens_1"), [(8, 8), (2, 3), (77, 154), (7, 11), (6, 4), (1, 5)])
def test_the_end_frames_attend_to_their_prompts_as_if_nothing_was_blended(tokens_0, tokens_1):
    start, end = embedding(tokens_0, 1), embedding(tokens_1, 2)
    frames = attend(blend_text(start, end, ALPHAS))
    torch.testing.assert_close(frames[:1], attend(start), rtol=0, atol=1e-5)
    torch.testing.assert_close(frames[2:], attend(end), rtol=0, atol=1e-5)


def test_a_unet_makes_of_a_lengthened_prompt_what_it_made_of_the_prompt(unet):
    start, end = embedding(4, 1), embedding(6, 2)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    blended = blend_text(start, end, ALPHAS)
    for row, prompt in ((blended[:1], start), (blended[2:], end)):
        torch.testing.assert_close(unet(x, 500, row).sample, unet(x, 500, prompt).sample, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("tokens_0", "tokens_1", "tokens"), [(77, 77, 77), (77, 154, 154), (154, 77, 154), (4, 6, 12)])
def test_no_more_tokens_than_needed(tokens_0, tokens_1, tokens):
    assert blend_text(embedding(tokens_0, 1), embedding(tokens_1, 2), ALPHAS).shape == (3, tokens, 16)


def test_equal_lengths_are_blended_token_by_token():
    start, end = embedding(5, 1), embedding(5, 2)
    blended = blend_text(start, end, ALPHAS)
    assert torch.equal(blended[:1], start)
    torch.testing.assert_close(blended[1:2], 0.7 * start + 0.3 * end)
    assert torch.equal(blended[2:], end)


def test_unequal_lengths_are_blended_prompt_against_prompt():
    start, end = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[10.0], [20.0], [30.0]]])
    blended = blend_text(start, end, (0.5,))
    assert blended.flatten().tolist() == [5.5, 11.0, 15.5, 6.0, 10.5, 16.0]


def test_pooled_embeddings():
    start, end = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -2.0]])
    assert blend_text(start, end, (0.0, 0.25, 1.0)).tolist() == [[1, 2], [1.5, 1], [3, -2]]


def test_the_start_decides_the_dtype():
    blended = blend_text(embedding(5, 1).half(), embedding(5, 2).double(), ALPHAS)
    assert blended.dtype == torch.float16


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (torch.ones(1, 77, 768), torch.ones(1, 77, 1024)),
        (torch.ones(2, 77, 768), torch.ones(1, 77, 768)),
        (torch.ones(1, 77, 768), torch.ones(2, 77, 768)),
        (torch.ones(1, 77, 768), torch.ones(1, 768)),
    ],
)
def test_embeddings_that_do_not_go_together_are_refused_and_shown(start, end):
    with pytest.raises(InvalidInput) as refusal:
        blend_text(start, end, ALPHAS)
    assert str(tuple(start.shape)) in str(refusal.value) and str(tuple(end.shape)) in str(refusal.value)


MIDDLE_ALPHAS = (0.0, 0.25, 0.5, 0.9, 1.0)
LENGTHS = [(5, 5, 5), (4, 6, 3), (7, 7, 11), (77, 154, 77)]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_middle_text_of_weight_0_is_none(lengths):
    start, end, middle = (embedding(tokens, seed) for seed, tokens in enumerate(lengths))
    plain = blend_text(start, end, MIDDLE_ALPHAS)
    assert torch.equal(blend_text(start, end, MIDDLE_ALPHAS, middle, 0.0), plain)
    assert torch.equal(blend_text(start, end, MIDDLE_ALPHAS, None, 1.0), plain)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_of_weight_1_the_middle_frame_attends_to_the_middle_text_and_the_ends_to_theirs(lengths):
    start, end, middle = (embedding(tokens, seed) for seed, tokens in enumerate(lengths))
    blended = blend_text(start, end, MIDDLE_ALPHAS, middle)
    for row, text in ((0, start), (2, middle), (4, end)):
        repeats = blended.shape[1] // text.shape[1]
        assert torch.equal(blended[row : row + 1], text.repeat(1, repeats, 1))
        torch.testing.assert_close(attend(blended[row : row + 1]), attend(text), rtol=0, atol=1e-5)


def test_no_more_tokens_than_three_need():
    middle = embedding(3, 3)
    assert blend_text(embedding(4, 1), embedding(6, 2), ALPHAS, middle).shape[1] == 12
    assert blend_text(embedding(4, 1), embedding(6, 2), ALPHAS, embedding(5, 3)).shape[1] == 60


def test_the_middle_text_weighs_as_a_bump():
    start, end, middle = (embedding(5, seed) for seed in range(3))
    plain, blended = (blend_text(start, end, MIDDLE_ALPHAS, *more) for more in ((), (middle, 0.6)))
    for row, share in enumerate((0, 0.6 * 0.75, 0.6, 0.6 * 0.36, 0)):
        torch.testing.assert_close(blended[row], (1 - share) * plain[row] + share * middle[0])


def test_pooled_embeddings_have_a_middle_too():
    start, end, middle = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -2.0]]), torch.tensor([[10.0, 10.0]])
    assert blend_text(start, end, (0.0, 0.5, 1.0), middle).tolist() == [[1, 2], [10, 10], [3, -2]]


def test_a_middle_text_of_another_encoder_and_weights_out_of_range_are_refused():
    start, end = embedding(5, 1), embedding(5, 2)
    with pytest.raises(InvalidInput, match=r"same text encoder.*\(1, 5, 24\)"):
        blend_text(start, end, ALPHAS, embedding(5, 3, width=24))
    for weight in (-0.1, 1.5, float("nan")):
        with pytest.raises(InvalidInput, match="middle text must be between 0 and 1, got"):
            blend_text(start, end, ALPHAS, embedding(5, 3), weight)
