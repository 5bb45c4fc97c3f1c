"""What a network is told: a prompt, as text encoders have read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInput


@dataclass(frozen=True)
class Text:
    """context: text embeddings (B or 1, T, D).

    pooled: (B or 1, P), of the whole text. sizes: (B or 1, 6), the picture's original height and width, its crop's top
    and left, and its target height and width in pixels. Both only where the network takes them, as SDXL's does. added:
    what else a network is called with, under its own names; ComfyUI's networks have all but the context here.
    """

    context: Tensor
    pooled: Tensor | None = None
    sizes: Tensor | None = None
    added: Mapping[str, Any] = field(default_factory=dict)


def concatenated(texts: Sequence[Text]) -> Text:
    """Rows after rows, of texts of one row each and of one length.

    Raises `InvalidInput` when their shapes differ, or one has what another has not.
    """
    shapes = {tuple(text.context.shape[1:]) for text in texts}
    if len(shapes) > 1:
        found = " and ".join(map(str, sorted(shapes)))
        raise InvalidInput(f"texts of different lengths cannot be one batch, got {found}")
    return Text(
        torch.cat([text.context for text in texts]),
        _joined([text.pooled for text in texts], "pooled"),
        _joined([text.sizes for text in texts], "sizes"),
    )


def _joined(parts: Sequence[Tensor | None], name: str) -> Tensor | None:
    there = [part for part in parts if part is not None]
    if there and len(there) < len(parts):
        raise InvalidInput(f"{len(there)} of {len(parts)} texts have {name}; take all from one model's text encoders")
    return torch.cat(there) if there else None
