"""Prompt-to-Prompt's controls from words: which places may change, and which words are stronger."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import InvalidInput
from .prompt_to_prompt import Edit
from .token_alignment import find_tokens, has_tokens, parse_reweight, token_scale, word_control

TokensOf = Callable[[str], Sequence[Hashable]]
"""From a word to its tokens, without start and end; raises `InvalidInput` for a word that the tokenizer refuses."""


@dataclass(frozen=True)
class WordEdit:
    """What to control, in words. Defaults are the published code's; see `Edit`."""

    alignment: str = "replace"
    """"replace": new words act where the old ones did. "refine": they find their own place."""
    cross_steps: float = 0.8
    self_steps: float = 0.4
    blend_words: str = ""
    """Where the image may change: words of either prompt, parted by commas; empty: anywhere."""
    blend_threshold: float = 0.3
    reweight: str = ""
    """Factors of words of the edited prompt, such as "happy: 2, red: 0.5"."""

    def of_tokens(self, source: Sequence[Hashable], edited: Sequence[Hashable], tokens_of: TokensOf) -> Edit:
        """The `Edit` between two prompts. source, edited: their tokens, start, end and padding included.

        Raises `InvalidInput` for prompts of different lengths and for words that are not in them.
        """
        if len(source) != len(edited):
            raise InvalidInput(
                f"source_prompt fills {len(source)} tokens, edited_prompt {len(edited)}; make them as long"
            )
        source_blend, edited_blend = self._places((source, edited), tokens_of)
        control = word_control(source, edited, self.alignment, self._scale(edited, tokens_of))
        shares = (self.cross_steps, self.self_steps)
        return Edit(control, *shares, source_blend, edited_blend, self.blend_threshold)

    def _scale(self, edited: Sequence[Hashable], tokens_of: TokensOf) -> Tensor:
        """(T',) factors of the edited prompt's tokens."""
        factors = parse_reweight(self.reweight)
        tokens = {word: _tokens(word, tokens_of, "reweight") for word in factors}
        for word, run in tokens.items():
            if not has_tokens(run, edited):
                raise InvalidInput(
                    f"reweight: the word {word!r} is not in edited_prompt; name one as it is written there"
                )
        return token_scale(factors, tokens.__getitem__, edited)

    def _places(self, prompts: tuple[Sequence[Hashable], Sequence[Hashable]], tokens_of: TokensOf) -> list[list[int]]:
        """Where the words to blend stand in each of the prompts."""
        places: list[list[int]] = [[], []]
        for word in filter(None, (part.strip() for part in self.blend_words.replace("\n", ",").split(","))):
            run = _tokens(word, tokens_of, "blend_words")
            if not any(has_tokens(run, prompt) for prompt in prompts):
                raise InvalidInput(f"blend_words: {word!r} is in neither prompt; name words as they are written there")
            for own, prompt in zip(places, prompts, strict=True):
                own += find_tokens(word, run, prompt) if has_tokens(run, prompt) else []
        return places


def _tokens(word: str, tokens_of: TokensOf, setting: str) -> Sequence[Hashable]:
    try:
        return tokens_of(word)
    except InvalidInput as error:
        raise InvalidInput(f"{setting}: {error}") from error
