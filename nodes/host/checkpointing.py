"""Gradient checkpointing of blocks that write into the tensors they are given, as Flux's and Chroma's do.

PyTorch's own calls a block the second time with what the first has left of its inputs, and takes the values that the
second keeps for the backward pass after that has written over them. So a block gets copies of its inputs, and the
second time copies of what it keeps.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ...morph_core.errors import UnsupportedModel

WRITING = "StreamBlock"  # the end of the names of the classes whose blocks do
HOOKS = "_top_saved_tensors_default_hooks"  # what PyTorch calls them since 2.8


def checkpointed(block: nn.Module) -> Callable[..., Any]:
    """The block's forward, which keeps nothing but its inputs and is computed once more for the backward pass."""
    forward = block.forward
    if not type(block).__name__.endswith(WRITING):
        return partial(torch.utils.checkpoint.checkpoint, forward, use_reentrant=False)
    if not hasattr(torch._C._autograd, HOOKS):
        raise UnsupportedModel(
            f"gradient_checkpointing needs PyTorch 2.8 or newer for this model, whose {type(block).__name__} writes "
            "into its inputs; turn it off, or update PyTorch"
        )
    weights = {_memory(weight) for weight in block.parameters()}

    def on_copies(*args: Any, **kwargs: Any) -> Any:
        return forward(*map(_copied, args), **{name: _copied(value) for name, value in kwargs.items()})

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _keeping_copies(weights)

    def twice(*args: Any, **kwargs: Any) -> Any:
        return torch.utils.checkpoint.checkpoint(on_copies, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return twice


@contextmanager
def _keeping_copies(weights: set[int]) -> Iterator[None]:
    """What is kept for the backward pass is handed on as a copy, but for the weights, which nothing writes into."""
    keep, take = getattr(torch._C._autograd, HOOKS)(False)  # the checkpoint's own

    def keep_copy(tensor: Tensor) -> Any:
        return keep(tensor if _memory(tensor) in weights else tensor.detach().clone())

    with saved_tensors_hooks(keep_copy, take):
        yield


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
