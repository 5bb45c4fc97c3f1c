"""How a node refuses what it cannot use: the error that it raises and what its message says."""

import re
from typing import Any

import pytest

from morph_pack.morph_core.errors import InvalidInput, MorphError
from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_tests.nodes.good_inputs import good_inputs
from morph_tests.nodes.graph import PREFIX, run


def execute(model: Any, node: str, **changes: Any) -> Any:
    """A node's outputs for good inputs but for these changes."""
    return run(node, **{**good_inputs(node, model), **changes})


def refusal(model: Any, node: str, error: type[MorphError] = InvalidInput, **changes: Any) -> str:
    """The message that the node refuses its inputs with, without the node's name, which it must begin with."""
    inputs = {**good_inputs(node, model), **changes}
    with pytest.raises(error) as raised:
        run(node, **inputs)
    assert type(raised.value) is error
    name, _, message = str(raised.value).partition(": ")
    assert name == display_name(node)
    return message


def display_name(node: str) -> str:
    name: str = NODE_CLASS_MAPPINGS[PREFIX + node].GET_SCHEMA().display_name
    return name


def assert_says(message: str, *patterns: str) -> None:
    for pattern in patterns:
        assert re.search(pattern, message), f"{pattern!r} is not in: {message}"
