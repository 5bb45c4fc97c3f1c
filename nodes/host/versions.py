"""What differs between the ComfyUIs that the pack runs in: fields of schemas, and names of stock nodes."""

import inspect
from collections.abc import Callable
from typing import Any

import nodes as stock_nodes
from comfy_api.latest import io

NEWER_FIELDS = {"advanced", "search_aliases", "has_intermediate_output"}
"""Which ComfyUI 0.3.64 refuses; without them a node works all the same."""


def known(make: Callable[..., Any], *args: Any, **fields: Any) -> Any:
    """`make(*args, **fields)`, without those newer fields that this ComfyUI does not know."""
    unknown = NEWER_FIELDS - inspect.signature(make).parameters.keys()
    return make(*args, **{name: value for name, value in fields.items() if name not in unknown})


def schema(**fields: Any) -> io.Schema:
    """A node's `io.Schema`."""
    return known(io.Schema, **fields)  # type: ignore[no-any-return]


def stock_name(*ids: str) -> str:
    """A stock node's name as this ComfyUI shows it. ids: the node's, of which a version may know another."""
    names = stock_nodes.NODE_DISPLAY_NAME_MAPPINGS  # type: ignore[attr-defined]  # ComfyUI's module, not this folder
    return next((names[name] for name in ids if name in names), ids[0])
