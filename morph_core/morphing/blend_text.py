"""Linear blending of text embeddings (DiffMorpher, section 3.2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..models.text import Text
from .alphas import Alphas


def blend_text(start: Tensor, end: Tensor, alphas: Alphas) -> Tensor:
    """One embedding a frame: (1, T0, D) and (1, T1, D) to (F, T, D); or pooled, (1, D) to (F, D).

    Unequal token lengths are made equal by repeating each prompt whole, which leaves cross-attention to
    either prompt exactly as it was: softmax over every token n times weighs them as over each once.
    """
    if start.ndim != end.ndim or start.shape[-1] != end.shape[-1] or len(start) != 1 or len(end) != 1:
        raise InvalidInput(
            f"text embeddings must be of one prompt each and from the same text encoder, "
            f"got shapes {tuple(start.shape)} and {tuple(end.shape)}"
        )
    if start.ndim == 3:
        start, end = as_long([start, end])
    alpha = torch.tensor(alphas, dtype=start.dtype, device=start.device)
    return torch.lerp(start, end.to(start), alpha.reshape(-1, *[1] * (start.ndim - 1)))


def as_long(embeddings: Sequence[Tensor]) -> list[Tensor]:
    """Embeddings (1, T_i, D), each repeated whole until all have as many tokens; see `blend_text`."""
    tokens = math.lcm(*(embedding.shape[1] for embedding in embeddings))
    return [embedding.repeat(1, tokens // embedding.shape[1], 1) for embedding in embeddings]


def blended(start: Text, end: Text, alphas: Alphas) -> Text:
    """One text a frame, of two of one row each; everything that both have is blended as `blend_text` has it.

    Raises `InvalidInput` when one has what the other has not.
    """
    context = blend_text(start.context, end.context, alphas)
    pooled, sizes = (_both(getattr(start, name), getattr(end, name), name, alphas) for name in ("pooled", "sizes"))
    return Text(context, pooled, sizes)


def _both(start: Tensor | None, end: Tensor | None, name: str, alphas: Alphas) -> Tensor | None:
    if (start is None) != (end is None):
        raise InvalidInput(f"one text has {name}, the other has not; take both from one model's text encoders")
    return None if start is None or end is None else blend_text(start, end, alphas)
