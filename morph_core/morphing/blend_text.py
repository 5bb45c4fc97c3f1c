"""Linear blending of text embeddings (DiffMorpher, section 3.2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..models.text import Text
from .alphas import Alphas


def blend_text(start: Tensor, end: Tensor, alphas: Alphas, middle: Tensor | None = None, weight: float = 1.0) -> Tensor:
    """One embedding a frame: (1, T0, D) and (1, T1, D) to (F, T, D); or pooled, (1, D) to (F, D).

    Unequal token lengths are made equal by repeating each prompt whole, which leaves cross-attention to
    either prompt exactly as it was: softmax over every token n times weighs them as over each once.
    middle: a third prompt, to which each frame's goes by `bump` of its alpha; weight: how far at alpha 0.5, 0..1. A
    weight of 0 is no third prompt. Raises `InvalidInput` for embeddings of different text encoders.
    """
    texts = [start, end] if middle is None or weight == 0 else [start, end, middle]
    if len({(x.ndim, x.shape[-1]) for x in texts}) > 1 or any(len(x) != 1 for x in texts):
        shapes = [str(tuple(x.shape)) for x in texts]
        raise InvalidInput(
            f"text embeddings must be of one prompt each and from the same text encoder, "
            f"got shapes {', '.join(shapes[:-1])} and {shapes[-1]}"
        )
    first, last, *third = (x.to(start) for x in (as_long(texts) if start.ndim == 3 else texts))
    blend = torch.lerp(first, last, _by_frame(alphas, first))
    return torch.lerp(blend, third[0], _by_frame(bump(alphas, weight), first)) if third else blend


def bump(alphas: Alphas, weight: float) -> tuple[float, ...]:
    """4·alpha·(1 − alpha)·weight: 0 at the ends, `weight` at 0.5. Raises `InvalidInput` for a weight outside 0..1."""
    if not 0 <= weight <= 1:
        raise InvalidInput(f"the weight of the middle text must be between 0 and 1, got {weight}")
    return tuple(4 * alpha * (1 - alpha) * weight for alpha in alphas)


def as_long(embeddings: Sequence[Tensor]) -> list[Tensor]:
    """Embeddings (1, T_i, D), each repeated whole until all have as many tokens; see `blend_text`."""
    tokens = math.lcm(*(embedding.shape[1] for embedding in embeddings))
    return [embedding.repeat(1, tokens // embedding.shape[1], 1) for embedding in embeddings]


def _by_frame(numbers: Alphas, like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))


def blended(start: Text, end: Text, alphas: Alphas, middle: Text | None = None, weight: float = 1.0) -> Text:
    """One text a frame, of texts of one row each; everything that all have is blended as `blend_text` has it.

    Raises `InvalidInput` when one has what another has not.
    """
    texts = [start, end] if middle is None else [start, end, middle]

    def blend(name: str) -> Tensor | None:
        parts = [getattr(text, name) for text in texts]
        there = [part for part in parts if part is not None]
        if there and len(there) < len(parts):
            raise InvalidInput(f"one text has {name}, another has not; take all from one model's text encoders")
        return of(there) if there else None

    def of(parts: list[Tensor]) -> Tensor:
        third = parts[2] if len(parts) > 2 else None
        return blend_text(parts[0], parts[1], alphas, third, weight)

    return Text(of([text.context for text in texts]), blend("pooled"), blend("sizes"))
