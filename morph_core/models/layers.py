"""A network's attention layers, and the one way in which methods change what they do."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ..errors import UnsupportedModel

Stage = Literal["down", "mid", "up"]


@dataclass(frozen=True)
class AttentionLayer:
    """A layer of diffusers' class `Attention`, and where it is.

    stage: of the UNet. block: its place among the stage's blocks in the order in which they run, from 0. blocks: how
    many they are.
    """

    path: str
    module: nn.Module
    kind: Literal["self", "cross"]
    stage: Stage
    block: int
    blocks: int


@dataclass(frozen=True)
class AttentionEdit:
    """What a layer computes with in place of its own.

    inputs: from the layer's input (B, N, C) and its context (B, T, D), for self-attention the same tensor, to what
    queries, keys and values are made of. maps: from attention probabilities (B, heads, N, T) to those that are used.
    """

    inputs: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    maps: Callable[[Tensor], Tensor] | None = None


EditOf = Callable[[AttentionLayer], AttentionEdit | None]
"""From a layer to its edit; None leaves the layer alone."""


@contextmanager
def edited_attention(layers: Iterable[AttentionLayer], edit_of: EditOf) -> Iterator[None]:
    """Within this context the layers are edited; edits of nested contexts act one on the other's result.

    Raises `UnsupportedModel` for layers whose projections are fused.
    """
    with ExitStack() as undo:
        for layer in layers:
            edit = edit_of(layer)
            if edit and getattr(layer.module, "fused_projections", False):
                raise UnsupportedModel(
                    "the UNet's attention projections are fused; call unet.unfuse_qkv_projections() first"
                )
            if edit and edit.inputs:
                undo.enter_context(_replaced_inputs(layer.module, edit.inputs))
            if edit and edit.maps:
                undo.enter_context(_replaced_maps(layer.module, edit.maps))
        yield


@contextmanager
def _replaced_inputs(
    attention: Any, inputs: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
) -> Iterator[None]:
    values: list[Tensor] = []  # what the values of the call under way are made of, where it is not the keys' context

    def replace(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0]
        context = kwargs.get("encoder_hidden_states")
        queries, keys, own_values = inputs(x, x if context is None else context)
        values[:] = [] if own_values is keys else [own_values]
        return (queries, *args[1:]), {**kwargs, "encoder_hidden_states": keys}

    def replace_values(module: nn.Module, args: tuple[Tensor, ...]) -> Any:
        return (values.pop(), *args[1:]) if values else args

    handles = [
        attention.register_forward_pre_hook(replace, with_kwargs=True),
        attention.to_v.register_forward_pre_hook(replace_values),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replaced_maps(attention: Any, maps: Callable[[Tensor], Tensor]) -> Iterator[None]:
    processor = attention.processor
    attention.set_processor(_SpelledOut(maps))
    try:
        yield
    finally:
        attention.set_processor(processor)


class _SpelledOut:
    """An attention processor of diffusers that makes the maps and lets them be changed."""

    def __init__(self, maps: Callable[[Tensor], Tensor]) -> None:
        self.maps = maps

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        queries = attn.head_to_batch_dim(attn.to_q(hidden_states))  # (B·heads, N, D)
        keys, values = (attn.head_to_batch_dim(to(context)) for to in (attn.to_k, attn.to_v))
        mask = attn.prepare_attention_mask(attention_mask, keys.shape[1], len(hidden_states))
        maps = attn.get_attention_scores(queries, keys, mask).unflatten(0, (-1, attn.heads))  # (B, heads, N, T)
        output = attn.batch_to_head_dim(self.maps(maps).flatten(0, 1) @ values)
        for layer in attn.to_out:
            output = layer(output)
        return output  # type: ignore[no-any-return]
