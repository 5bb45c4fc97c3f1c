"""Self-attention that looks at a blend of the two end frames (DiffMorpher, section 3.3), or at the first row."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..models.layers import AttentionEdit, AttentionLayer, Stage, edited_attention
from ..morphing.alphas import Alphas
from .token_grid import TokenMask

BLOCKS = ("up blocks", "last two up blocks", "all blocks")
FIRST_LAYER = {"all blocks": 0.0, "up blocks": 0.5, "last two up blocks": 0.75}  # as a share of a transformer's layers
FLUX_1_LAYERS = 57  # 19 double blocks, 38 single ones
FLUX_1_CONTENT = frozenset({0, 7, 8, 9, 10, 18, 25, 28, 37, 42, 45, 50, 56})  # which attend by content, not by place

AlignContexts = Callable[[Tensor, Tensor, Alphas], tuple[Tensor, Tensor]]
"""From the ends' contexts (k, 1, T, D) and F alphas to how they lie in each frame's layout, (k, F, T, D) each."""


def mix_end_contexts(
    context: Tensor,
    alphas: Alphas,
    strength: float = 1.0,
    ends: Tensor | None = None,
    mask: Tensor | None = None,
    aligned: AlignContexts | None = None,
) -> Tensor:
    """Replace every frame's attention context by its alpha's mix of the first and the last frame's.

    context: (B, T, D) or (B, heads, T, D), the layer's input, of which keys and values are linear functions, so that
    mixing it is mixing them (eq. 7 of the paper). B = k·len(alphas): k repeats of the same frames, one for each prompt
    that is sampled with them. ends: (k·n, T, D), k repeats whose first and last rows are the ends' contexts; `context`
    itself where none is given. strength: 0 leaves the contexts as they are, 1 replaces them. mask: (T, 1) in 0..1, each
    token's share of alpha, see `TokenMask`; None: 1. aligned: leads
    the ends' contexts to each frame's layout first. Same shape and dtype out.
    """
    frames = len(alphas)
    if len(context) % frames:
        raise InvalidInput(
            f"the attention blend is for {frames} frames, the model was given a batch of {len(context)} rows; "
            "sample as many frames as there are alphas"
        )
    repeats = context.unflatten(0, (-1, frames))  # (k, F, T, D)
    alpha = torch.tensor(alphas, dtype=context.dtype, device=context.device).reshape(-1, *[1] * (context.ndim - 1))
    if mask is not None:
        alpha = alpha * mask.to(alpha)
    of_ends = (context if ends is None else ends).unflatten(0, (len(repeats), -1))
    first, last = of_ends[:, :1], of_ends[:, -1:]
    if aligned:
        first, last = aligned(first, last, alphas)
    mixed = torch.lerp(first, last, alpha)
    return (mixed if strength == 1 else torch.lerp(repeats, mixed, strength)).flatten(0, 1)


def mix_end_tokens(
    tokens: Tensor,
    count: int,
    alphas: Alphas,
    strength: float = 1.0,
    ends: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """`mix_end_contexts` of the last `count` tokens, the image's where text comes first; each row keeps its own text's.

    tokens: keys or values (B, T, D) or (B, heads, T, D), after projection, norm and rotary embedding: all rows have the
    same positions, so that what is mixed is still linear in them. ends: of the same tokens, (k·n, ...). mask: of the
    image's tokens, (count, 1).
    """
    text, image = tokens[..., :-count, :], tokens[..., -count:, :]
    of_ends = None if ends is None else ends[..., -count:, :]
    return torch.cat([text, mix_end_contexts(image, alphas, strength, of_ends, mask)], dim=-2)


@dataclass(frozen=True)
class Ends:
    """The two pictures that a batch's frames lie between, where the batch need not have both of them at its ends.

    start, end: what the pictures are called. rows: where the batch, or each repeat of its frames, has some of them.
    made: what was made of each in this step, by (part of a layer, picture): filled from the rows, and read where the
    batch has no such row.
    """

    start: int
    end: int
    rows: Mapping[int, int]
    made: MutableMapping[tuple[Hashable, int], Tensor]

    def of(self, part: Hashable, context: Tensor, frames: int) -> Tensor:
        """The contexts (k·2, T, D) of both, given the batch's (k·frames, T, D)."""
        repeats = context.unflatten(0, (-1, frames))
        for picture, row in self.rows.items():
            self.made[part, picture] = repeats[:, row].clone()
        both = [self.made[part, picture].to(context) for picture in (self.start, self.end)]
        return torch.stack(both, dim=1).flatten(0, 1)


def first_row_alphas(rows: int) -> Alphas:
    """Alphas by which every row looks at the first one, as a dragged image does at its original."""
    return (0.0,) * rows


def check_blocks(blocks: str) -> None:
    """Raise `InvalidInput` unless `blocks` is one of `BLOCKS`."""
    if blocks not in BLOCKS:
        raise InvalidInput(f"blocks must be one of {', '.join(BLOCKS)}; got {blocks!r}")


def layer_is_chosen(blocks: str, layer: int, count: int) -> bool:
    """The same of a transformer's `count` layers: its second half for "up blocks", the last quarter for the last two.

    Of Flux.1 "up blocks" are the layers by whose keys and values images are edited non-rigidly (FreeFlux, Wei et al.
    2025). For other transformers no such list is published.
    """
    if blocks == "up blocks" and count == FLUX_1_LAYERS:
        return layer in FLUX_1_CONTENT
    return layer >= FIRST_LAYER[blocks] * count


def block_is_chosen(blocks: str, stage: Stage, block: int, count: int) -> bool:
    """Whether the block-th of a stage's `count` blocks, see `AttentionLayer`, is among `blocks` (one of `BLOCKS`)."""
    if blocks == "all blocks":
        return True
    if stage != "up":
        return False
    return blocks == "up blocks" or block >= count - 2


@contextmanager
def mixed_self_attention(
    layers: Iterable[AttentionLayer],
    alphas: Alphas,
    strength: float = 1.0,
    blocks: str = "up blocks",
    ends: Ends | None = None,
    mask: TokenMask | None = None,
    aligned: AlignContexts | None = None,
) -> Iterator[None]:
    """Within this context the chosen blocks' self-attention, or of transformers an image's tokens, see
    `mix_end_contexts`.

    layers: of the whole network. blocks: one of `BLOCKS`. ends: None where the batch has them first and last. mask:
    where the morph takes place; None: everywhere.
    aligned: see `mix_end_contexts`.
    """
    check_blocks(blocks)

    def mixed(part: str, context: Tensor, heads: int = 0) -> Tensor:
        of_ends = None if ends is None else ends.of(part, context, len(alphas))
        share = None if mask is None else _of_tokens(mask, context, heads)
        return mix_end_contexts(context, alphas, strength, of_ends, share, aligned)

    def edit_of(layer: AttentionLayer) -> AttentionEdit | None:
        def inputs(x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            of_layer = mixed(layer.path, context)
            return x, of_layer, of_layer

        def image(tokens: Tensor, name: str) -> Tensor:
            return mixed(f"{layer.path}.{name}", tokens, layer.module.heads)  # type: ignore[arg-type]

        if layer.kind == "joint":
            return AttentionEdit(image=image) if layer_is_chosen(blocks, layer.block, layer.blocks) else None
        is_chosen = layer.kind == "self" and block_is_chosen(blocks, layer.stage, layer.block, layer.blocks)
        return AttentionEdit(inputs) if is_chosen else None

    with edited_attention(layers, edit_of):
        yield


def _of_tokens(mask: TokenMask, context: Tensor, heads: int) -> Tensor | None:
    """A mask as `mix_end_contexts` takes it. context: (B, T, D), (B, heads, T, D) or (B, T, heads, D)."""
    if context.ndim == 4 and context.shape[2] == heads:
        share = mask.of(context.shape[1])
        return None if share is None else share[:, None]
    return mask.of(context.shape[-2])
