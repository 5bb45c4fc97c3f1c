"""The inputs that other tests make bad ones from are those of every node, and good."""

from typing import Any

import comfy.utils
import pytest

from morph_tests.nodes.good_inputs import GOOD_INPUTS, LASTING, NODES, good_inputs, input_names, lasting_inputs
from morph_tests.nodes.graph import run

LEFT_OUT = {"AttentionKVInject": {"matches"}}  # which contradict a mask


def test_every_node_of_the_pack_is_among_them() -> None:
    assert GOOD_INPUTS.keys() == {*NODES}


@pytest.mark.parametrize("node", NODES)
def test_every_input_is_given_and_the_node_takes_it(model: Any, node: str) -> None:
    inputs = good_inputs(node, model)
    assert inputs.keys() | LEFT_OUT.get(node, set()) == {*input_names(node)}
    assert run(node, **inputs)


@pytest.mark.parametrize("node", NODES)
def test_a_node_lasts_if_it_has_a_progress_bar(model: Any, alexnet: None, node: str) -> None:
    inputs = lasting_inputs(node, model, 1) if node in LASTING else good_inputs(node, model)
    counted: list[int] = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **_: counted.append(value))
    run(node, **inputs)
    assert bool(counted) == (node in LASTING)
