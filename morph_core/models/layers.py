"""A network's attention layers, and the one way in which methods change what they do."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel

Stage = Literal["down", "mid", "up", "all"]


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer of diffusers' classes, and where it is.

    kind: "joint" is a transformer's, over the tokens of text and image. stage: of the UNet; a transformer's are all of
    one. block: its place among the stage's blocks in the order in which they run, from 0; a transformer's layers count
    each for itself. blocks: how many they are. fused: the block around a joint layer whose keys and values are the
    text's and, after them, the image's, made by the same projections; None where the image has its own.
    """

    path: str
    module: nn.Module
    kind: Literal["self", "cross", "joint"]
    stage: Stage
    block: int
    blocks: int
    fused: nn.Module | None = None


@dataclass(frozen=True)
class AttentionEdit:
    """What a layer computes with in place of its own.

    inputs: from the layer's input (B, N, C) and its context (B, T, D), for self-attention the same tensor, to what
    queries, keys and values are made of. maps: from attention probabilities (B, heads, N, T) to those that are used.
    image: of a joint layer, from the image's keys or values (B, ..., D), projected and normed, and "keys" or "values"
    to those that are used. It acts before rotary embedding, which is the same for all rows.
    """

    inputs: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] | None = None
    maps: Callable[[Tensor], Tensor] | None = None
    image: Callable[[Tensor, str], Tensor] | None = None


EditOf = Callable[[AttentionLayer], AttentionEdit | None]
"""From a layer to its edit; None leaves the layer alone."""


def joint_layers(blocks: Sequence[tuple[str, nn.Module, nn.Module | None]]) -> list[AttentionLayer]:
    """A transformer's layers, given as path, attention and `AttentionLayer.fused` in the order in which they run."""
    return [
        AttentionLayer(path, attention, "joint", "all", place, len(blocks), fused)
        for place, (path, attention, fused) in enumerate(blocks)
    ]


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
            if edit and edit.image:
                undo.enter_context(_replaced_image(layer, edit.image))
        yield


@contextmanager
def _replaced_inputs(
    attention: Any, inputs: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
) -> Iterator[None]:
    values: list[Tensor] = []  # what the current call's values are made of, where it is not the keys' context

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
def _replaced_image(layer: AttentionLayer, image: Callable[[Tensor, str], Tensor]) -> Iterator[None]:
    attention: Any = layer.module
    counts: list[int] = []  # of the image's tokens, in the call under way of a fused block

    def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        counts[:] = [(args[0] if args else kwargs["hidden_states"]).shape[1]]

    def replace(name: str, module: nn.Module, args: tuple[Any, ...], tokens: Tensor) -> Tensor:
        if not counts:
            return image(tokens, name)
        text = tokens.shape[1] - counts[0]
        return torch.cat([tokens[:, :text], image(tokens[:, text:], name)], dim=1)

    keys = attention.to_k if attention.norm_k is None else attention.norm_k
    handles = [
        made.register_forward_hook(partial(replace, name))
        for made, name in ((keys, "keys"), (attention.to_v, "values"))
    ]
    if layer.fused is not None:
        handles.append(layer.fused.register_forward_pre_hook(count, with_kwargs=True))
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
