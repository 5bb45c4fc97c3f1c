"""Self-attention that looks at a blend of the two end frames (DiffMorpher, section 3.3)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InvalidInput
from ..morphing.alphas import Alphas

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

BLOCKS = ("up blocks", "last two up blocks", "all blocks")


def mix_end_contexts(context: Tensor, alphas: Alphas, strength: float = 1.0, ends: Tensor | None = None) -> Tensor:
    """Replace every frame's attention context by its alpha's mix of the first and the last frame's.

    context: (B, T, D), the layer's input, of which keys and values are linear functions, so that mixing it is
    mixing them (eq. 7 of the paper). B = k·len(alphas): k runs of the same frames. ends: (k·n, T, D), k runs whose
    first and last rows are the ends' contexts; `context` itself where none is given. strength: 0 leaves the contexts as
    they are, 1 replaces them. Same shape and dtype out.
    """
    frames = len(alphas)
    if len(context) % frames:
        raise InvalidInput(
            f"the attention blend is for {frames} frames, the model was given a batch of {len(context)} rows; "
            "sample as many frames as there are alphas"
        )
    runs = context.unflatten(0, (-1, frames))  # (k, F, T, D)
    alpha = torch.tensor(alphas, dtype=context.dtype, device=context.device)[:, None, None]
    of_ends = (context if ends is None else ends).unflatten(0, (len(runs), -1))
    mixed = torch.lerp(of_ends[:, :1], of_ends[:, -1:], alpha)
    return torch.lerp(runs, mixed, strength).flatten(0, 1)


def last_mixed_sigma(sigmas: Tensor, share: float) -> Tensor:
    """The sigma above which attention is mixed when it is mixed in the first `share` (0..1) of the steps.

    sigmas: (S + 1,), falling. Steps 0 .. round(share·S) − 1 have a greater sigma than the result.
    """
    check_share(share)
    return sigmas[round(share * (len(sigmas) - 1))]


def check_blocks(blocks: str) -> None:
    """Raise `InvalidInput` unless `blocks` is one of `BLOCKS`."""
    if blocks not in BLOCKS:
        raise InvalidInput(f"blocks must be one of {', '.join(BLOCKS)}; got {blocks!r}")


def check_share(share: float) -> None:
    """Raise `InvalidInput` unless `share` is in 0..1."""
    if not 0 <= share <= 1:
        raise InvalidInput(f"the share of the steps with blended attention must be between 0 and 1, got {share}")


def block_is_chosen(blocks: str, stage: str, up_index: int, up_count: int) -> bool:
    """Whether a block is among `blocks` (one of `BLOCKS`). stage: "down", "mid" or "up", with its place if "up"."""
    if blocks == "all blocks":
        return True
    if stage != "up":
        return False
    return blocks == "up blocks" or up_index >= up_count - 2


@contextmanager
def mixed_self_attention(
    unet: "UNet2DConditionModel", alphas: Alphas, strength: float = 1.0, blocks: str = "up blocks"
) -> Iterator[None]:
    """Within this context the chosen blocks' self-attention sees `mix_end_contexts`. blocks: one of `BLOCKS`."""
    check_blocks(blocks)

    def mix(module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
        context = mix_end_contexts(args[0], alphas, strength)
        return args, {**kwargs, "encoder_hidden_states": context}

    handles = []
    try:
        for name, module in unet.named_modules():
            if name.endswith(".attn1") and _is_chosen(name, blocks, len(unet.up_blocks)):
                handles.append(module.register_forward_pre_hook(mix, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_chosen(name: str, blocks: str, up_count: int) -> bool:
    stage, _, rest = name.partition("_block")  # "up_blocks.1.attentions..." or "mid_block.attentions..."
    place = int(rest.split(".")[1]) if stage == "up" else 0
    return block_is_chosen(blocks, stage, place, up_count)
