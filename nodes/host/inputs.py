"""Every value that reaches a node, checked against the node's own schema.

ComfyUI checks what stands in a widget, not what comes through a link: a number out of range, text where a number
belongs or nothing at all would otherwise be found deep inside, or not at all.
"""

import functools
import math
from collections.abc import Callable
from numbers import Integral, Real
from textwrap import shorten
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...morph_core.errors import InvalidInput, shown
from .named_errors import named
from .noise import InvertedNoise

Problem = str | None


def checked(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Check what a node is given before it runs, and put its display name before every error that the core raises.

    Of a node that takes lists each item is checked; what is no list is taken for one of one.
    """

    @functools.wraps(execute)
    def checking(cls: type[io.ComfyNode], **values: Any) -> Any:
        schema = cls.define_schema()
        with named(schema.display_name):
            if schema.is_input_list:
                given = {name: value for name, value in values.items() if value is not None}
                values = {part.id: _items(part, given[part.id]) for part in schema.inputs if part.id in given}
            for part in schema.inputs:
                if part.id in values:
                    for value in values[part.id] if schema.is_input_list else [values[part.id]]:
                        check_input(part, value)
            return execute(cls, **values)

    return checking


def _items(part: Any, value: Any) -> list[Any]:
    """Of a list that a node takes, or of a single value. Numbers may come as lists in it, as some packs give them."""
    items = value if isinstance(value, list) else [value]
    if part.get_io_type() != "FLOAT":
        return items
    return [number for item in items for number in (item if isinstance(item, (list, tuple)) else [item])]


def check_input(part: Any, value: Any) -> None:
    """Raise `InvalidInput` unless the value is one that this input of a schema may have."""
    if value is None and part.optional:
        return
    problem = KINDS.get(part.get_io_type(), _anything)(part, value)
    if problem:
        raise InvalidInput(f"{part.id} {problem}{ADVICE.get(part.get_io_type(), '')}")


def _anything(part: Any, value: Any) -> Problem:
    """Of types of our own: their nodes know what they take."""
    return None


def _integer(part: Any, value: Any) -> Problem:
    if isinstance(value, bool) or not isinstance(value, Integral):
        return f"must be a whole number, got {shown(value)}"
    return _out_of_range(part, value)


def _number(part: Any, value: Any) -> Problem:
    if isinstance(value, bool) or not isinstance(value, Real):
        return f"must be a number, got {shown(value)}"
    return _out_of_range(part, value)


def _out_of_range(part: Any, value: Any) -> Problem:
    if not math.isfinite(value):
        return f"must be a finite number, got {value}"
    if not part.min <= value <= part.max:
        return f"must be between {part.min:g} and {part.max:g}, got {value:g}"
    return None


def _text(part: Any, value: Any) -> Problem:
    return None if isinstance(value, str) else f"must be text, got {shown(value)}"


def _switch(part: Any, value: Any) -> Problem:
    return None if isinstance(value, bool) else f"must be true or false, got {shown(value)}"


def _choice(part: Any, value: Any) -> Problem:
    if value in part.options:
        return None
    return f"must be one of {shorten(', '.join(part.options), 400)}; got {shown(value)}"


def _model(part: Any, value: Any) -> Problem:
    return None if isinstance(value, ModelPatcher) else f"is not a MODEL, got {shown(value)}"


def _clip(part: Any, value: Any) -> Problem:
    return None if hasattr(value, "tokenize") else f"is not a CLIP, got {shown(value)}"


def _latent(part: Any, value: Any) -> Problem:
    if not (isinstance(value, dict) and isinstance(value.get("samples"), Tensor)):
        return f"is not a LATENT, got {shown(value)}"
    return _not_usable(value["samples"])


def _latent_or_noise(part: Any, value: Any) -> Problem:
    if isinstance(value, InvertedNoise):
        return _not_usable(value.x)
    if hasattr(value, "generate_noise"):
        return f"is NOISE of another kind, {shown(value)}; connect DDIM Invert's"
    return _latent(part, value)


def _tensor(part: Any, value: Any) -> Problem:
    return _not_usable(value) if isinstance(value, Tensor) else f"is no {part.get_io_type()}, got {shown(value)}"


def _conditioning(part: Any, value: Any) -> Problem:
    entries = value if isinstance(value, (list, tuple)) else []
    if not entries or not all(_is_prompt(entry) for entry in entries):
        return f"is not a CONDITIONING, got {shown(value)}"
    problems = (_not_usable(embedding) for embedding, _ in entries)
    return next(filter(None, problems), None)


def _is_prompt(entry: Any) -> bool:
    return (
        isinstance(entry, (list, tuple))
        and len(entry) == 2
        and isinstance(entry[0], Tensor)
        and isinstance(entry[1], dict)
    )


def _lora(part: Any, value: Any) -> Problem:
    if not (isinstance(value, dict) and all(isinstance(weight, Tensor) for weight in value.values())):
        return f"is not a LORA_MODEL, got {shown(value)}"
    for name, weight in value.items():
        if not torch.isfinite(weight.float()).all():
            return f"has values that are not finite (NaN or infinite) in {shown(name)}; fit or load it again"
    return None


def _not_usable(tensor: Tensor) -> Problem:
    if not tensor.numel():
        return f"is empty, its shape is {tuple(tensor.shape)}"
    if not torch.isfinite(tensor).all():
        return "has values that are not finite (NaN or infinite); check the node that made it"
    return None


KINDS: dict[str, Callable[[Any, Any], Problem]] = {
    "INT": _integer,
    "FLOAT": _number,
    "STRING": _text,
    "BOOLEAN": _switch,
    "COMBO": _choice,
    "MODEL": _model,
    "CLIP": _clip,
    "LATENT": _latent,
    "LATENT,NOISE": _latent_or_noise,
    "CONDITIONING": _conditioning,
    "LORA_MODEL": _lora,
    "IMAGE": _tensor,
    "MASK": _tensor,
}
ADVICE = {
    "MODEL": "; connect a loader's MODEL",
    "CLIP": "; connect the model's CLIP: a checkpoint without a text encoder needs Load CLIP",
}
