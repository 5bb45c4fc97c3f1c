"""The toy model's vocabulary: captions are whole words, so a tokenizer is a table."""

import re
from collections.abc import Iterable

from ..errors import InvalidInput
from .drawing import BACKGROUNDS, FUR_COLOURS, KINDS, MOODS

MAX_TOKENS = 8  # <start>, up to six words, <end>; shorter captions are padded with <end>
START, END = 0, 1
WORDS = ("<start>", "<end>", "a", "on", *MOODS, *FUR_COLOURS, *KINDS, *BACKGROUNDS)
_TOKEN_OF = {word: token for token, word in enumerate(WORDS)}


def word_tokens(text: str) -> list[int]:
    """Token of every word of `text`; commas and full stops are ignored.

    Raises `InvalidInput` for a word outside the vocabulary.
    """
    words = re.sub(r"[,.\s]+", " ", text.lower()).split()
    unknown = [word for word in words if word not in _TOKEN_OF or word.startswith("<")]
    if unknown:
        known = ", ".join(WORDS[2:])
        raise InvalidInput(f"the toy model does not know the word {unknown[0]!r}; it knows: {known}")
    return [_TOKEN_OF[word] for word in words]


def tokenize(captions: Iterable[str]) -> list[list[int]]:
    """One row of `MAX_TOKENS` tokens a caption. Raises `InvalidInput` for a caption of more than six words."""
    rows = []
    for caption in captions:
        tokens = [START, *word_tokens(caption), END]
        if len(tokens) > MAX_TOKENS:
            raise InvalidInput(f"the toy model reads captions of up to {MAX_TOKENS - 2} words, got {caption!r}")
        rows.append(tokens + [END] * (MAX_TOKENS - len(tokens)))
    return rows
