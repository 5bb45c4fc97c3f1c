import pytest

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.toy.drawing import BACKGROUNDS, FUR_COLOURS, KINDS, MOODS, describe
from morph_pack.morph_core.toy.words import END, MAX_TOKENS, START, WORDS, tokenize, word_tokens


def words_of(row):
    return [WORDS[token] for token in row]


def test_a_caption_is_its_words_between_start_and_end():
    (row,) = tokenize(["a happy red cat on mint"])
    assert words_of(row) == ["<start>", "a", "happy", "red", "cat", "on", "mint", "<end>"]


def test_short_captions_are_padded_with_the_end():
    rows = tokenize(["cat", ""])
    assert words_of(rows[0]) == ["<start>", "cat"] + ["<end>"] * 6
    assert words_of(rows[1]) == ["<start>"] + ["<end>"] * 7
    assert (START, END) == (WORDS.index("<start>"), WORDS.index("<end>"))


def test_every_caption_of_a_drawing_is_understood():
    for mood in MOODS:
        for colour in FUR_COLOURS:
            for kind in KINDS:
                for background in BACKGROUNDS:
                    caption = describe(mood, colour, kind, background)
                    (row,) = tokenize([caption])
                    assert len(row) == MAX_TOKENS
                    assert " ".join(words_of(row)[1:-1]) == caption


def test_every_word_has_one_token():
    assert len(set(WORDS)) == len(WORDS)
    for word in WORDS[2:]:
        assert words_of(word_tokens(word)) == [word]


def test_case_commas_and_full_stops_do_not_matter():
    assert word_tokens("A happy,red  CAT\non mint.") == word_tokens("a happy red cat on mint")


@pytest.mark.parametrize(
    ("text", "word"), [("a happy dog", "dog"), ("cat!", "cat!"), ("<end>", "<end>"), ("a <start> cat", "<start>")]
)
def test_an_unknown_word_is_refused_and_the_known_ones_are_named(text, word):
    with pytest.raises(InvalidInput) as refusal:
        word_tokens(text)
    assert repr(word) in str(refusal.value)
    for known in (*KINDS, *MOODS, *FUR_COLOURS, *BACKGROUNDS):
        assert known in str(refusal.value)


def test_more_than_six_words_are_refused():
    with pytest.raises(InvalidInput, match="up to 6 words, got 'a a a a a a a'"):
        tokenize(["a cat", "a a a a a a a"])
