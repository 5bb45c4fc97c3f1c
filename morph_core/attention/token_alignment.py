"""Which tokens of two prompts belong together, and what that makes of attention maps (Hertz et al. 2023)."""

import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor

from ..errors import InvalidInput

ALIGNMENTS = ("replace", "refine")
MAX_FACTOR = 1000  # of a word, either way


@dataclass(frozen=True)
class WordControl:
    """What the edited rows' cross-attention becomes: maps of source tokens moved to edited tokens, then scaled."""

    mapper: Tensor
    """(T, T'), the share of each source token's map that each edited token gets."""
    own: Tensor
    """(T',), 0 takes the mapped source, 1 keeps the edited row's own map."""
    scale: Tensor
    """(T',), what each token's map is multiplied by; 1 leaves it."""

    def __post_init__(self) -> None:
        tokens = self.mapper.shape[1:]
        if self.own.shape != tokens or self.scale.shape != tokens:
            raise InvalidInput(
                f"the edited prompt has {self.mapper.shape[1]} tokens: own and scale must have a number for each, got "
                f"shapes {tuple(self.own.shape)} and {tuple(self.scale.shape)}"
            )
        if not torch.isfinite(self.scale).all():
            raise InvalidInput(f"scale must be finite, got {self.scale.tolist()}")


def align_tokens(source: Sequence[Hashable], edited: Sequence[Hashable], alignment: str) -> tuple[Tensor, Tensor]:
    """`WordControl`'s mapper (T, T') and own (T',) for two prompts' T and T' tokens, start, end and padding included.

    Tokens that both prompts have map one to one. A run that took another's place gets its maps with "replace": one to
    one between runs of a length, else each source map in equal parts, so that no attention is lost. With "refine" it
    keeps its own, as inserted tokens always do. Runs are found by `difflib`; the published code aligns by
    Needleman-Wunsch for "refine" and word by word, for prompts of as many words, for "replace".
    """
    if alignment not in ALIGNMENTS:
        raise InvalidInput(f"alignment must be one of {', '.join(ALIGNMENTS)}; got {alignment!r}")
    mapper, own = torch.zeros(len(source), len(edited)), torch.ones(len(edited))
    runs = SequenceMatcher(None, source, edited, autojunk=False).get_opcodes()
    for kind, start, end, edited_start, edited_end in runs:
        if kind == "equal" or (kind == "replace" and alignment == "replace"):
            before, after = end - start, edited_end - edited_start
            shares = torch.eye(before) if before == after else torch.full((before, after), 1 / after)
            mapper[start:end, edited_start:edited_end] = shares
            own[edited_start:edited_end] = 0
    return mapper, own


def word_control(
    source_tokens: Sequence[Hashable], edited_tokens: Sequence[Hashable], alignment: str, scale: Tensor | None = None
) -> WordControl:
    """The control for two prompts' tokens; see `align_tokens`. scale: (T',), see `token_scale`; 1 if not given."""
    mapper, own = align_tokens(source_tokens, edited_tokens, alignment)
    return WordControl(mapper, own, torch.ones_like(own) if scale is None else scale)


def controlled_maps(source: Tensor, edited: Tensor, control: WordControl) -> Tensor:
    """The edited rows' attention probabilities (..., N, T') under the control of the source's (..., N, T).

    Leading axes broadcast. As published, rows are not renormalised: they sum to 1 only where the control keeps them so.
    """
    tokens = (source.shape[-1], edited.shape[-1])
    if tokens != control.mapper.shape:
        raise InvalidInput(
            f"the control is for prompts of {' and '.join(map(str, control.mapper.shape))} tokens, the attention maps "
            f"have {tokens[0]} and {tokens[1]}; make it from the tokens that the model is given"
        )
    mapper, own, scale = (x.to(edited) for x in (control.mapper, control.own, control.scale))
    return torch.lerp(source @ mapper, edited, own) * scale


def parse_reweight(text: str) -> dict[str, float]:
    """The factor of each word in a text such as "happy: 2, red: -1"; new lines part words as commas do."""
    factors: dict[str, float] = {}
    for part in filter(str.strip, re.split(r"[,\n]", text)):
        word, colon, number = (piece.strip() for piece in part.partition(":"))
        if not word or not colon:
            raise InvalidInput(f"reweight: {part.strip()!r} is not a word with its factor, such as happy: 2")
        if word in factors:
            raise InvalidInput(f"reweight names {word!r} twice; remove one")
        try:
            factors[word] = float(number)
        except ValueError:
            factors[word] = math.nan
        if not math.isfinite(factors[word]):
            raise InvalidInput(f"reweight: the factor of {word!r} must be a finite number, got {number!r}")
        if abs(factors[word]) > MAX_FACTOR:
            raise InvalidInput(
                f"reweight: the factor of {word!r} must be between {-MAX_FACTOR} and {MAX_FACTOR}, got {number}"
            )
    return factors


def find_tokens(word: str, word_tokens: Sequence[Hashable], prompt_tokens: Sequence[Hashable]) -> list[int]:
    """Positions in the prompt of the tokens of a word, wherever they occur as a run.

    word_tokens: of the word alone, without start and end; `word` itself is for the `InvalidInput` when there is none.
    """
    run, prompt = list(word_tokens), list(prompt_tokens)
    starts = [i for i in range(len(prompt)) if run and prompt[i : i + len(run)] == run]
    if not starts:
        raise InvalidInput(f"the word {word!r} is not in the prompt; name one that is, spelled as it is there")
    return sorted({start + i for start in starts for i in range(len(run))})


def has_tokens(run: Sequence[Hashable], prompt: Sequence[Hashable]) -> bool:
    """Whether a word's tokens stand somewhere in the prompt's, one after the other."""
    return bool(run) and any(list(prompt[i : i + len(run)]) == list(run) for i in range(len(prompt)))


def token_scale(
    factors: Mapping[str, float], tokens_of: Callable[[str], Sequence[Hashable]], prompt_tokens: Sequence[Hashable]
) -> Tensor:
    """(T',) factors of a prompt's tokens: those of the named words, else 1. tokens_of: see `find_tokens`."""
    scale = torch.ones(len(prompt_tokens))
    for word, factor in factors.items():
        scale[find_tokens(word, tokens_of(word), prompt_tokens)] = factor
    return scale
