"""What comes through a link is held to the input's own schema, as ComfyUI holds what stands in a widget."""

from typing import Any

import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise

from morph_pack.morph_core.errors import InvalidInput, MorphError, UnsupportedModel
from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_pack.nodes.host.inputs import KINDS, check_input
from morph_pack.nodes.host.named_errors import LONGEST, named
from morph_tests.nodes.graph import conditioning, latent, random_lora, run

NAN, INF = float("nan"), float("inf")
BROKEN = torch.full((1, 4, 8, 8), NAN)
ANYTHING = [None, object(), [[None]], {"x": 1}]
WRONG: dict[str, list[Any]] = {
    "INT": [*ANYTHING, 1.5, "2", True, 10**30, -(10**30)],
    "FLOAT": [*ANYTHING, "0.5", False, NAN, INF, -INF, 1e30, -1e30],
    "STRING": [*ANYTHING, 7],
    "BOOLEAN": [*ANYTHING, 0, "yes"],
    "COMBO": [*ANYTHING, "no such choice", 3, "x" * 10**6],
    "MODEL": [*ANYTHING, torch.zeros(1)],
    "CLIP": [*ANYTHING, torch.zeros(1)],
    "LATENT": [*ANYTHING, {}, {"samples": None}, {"samples": torch.zeros(0, 4, 8, 8)}, {"samples": BROKEN}],
    "LATENT,NOISE": [*ANYTHING, {}, {"samples": BROKEN}, Noise_RandomNoise(3)],
    "CONDITIONING": [*ANYTHING, [], [[torch.zeros(1, 2, 3)]], [[BROKEN, {}]], [[torch.zeros(0, 2, 3), {}]]],
    "LORA_MODEL": [*ANYTHING, {"lora_unet_x.lora_up.weight": BROKEN}, {"a": torch.tensor(INF)}],
    "IMAGE": [*ANYTHING, torch.zeros(0, 8, 8, 3), torch.full((1, 8, 8, 3), INF)],
    "MASK": [*ANYTHING, torch.zeros(1, 0, 8), torch.full((1, 8, 8), NAN)],
}
PARTS = [
    (node, part)
    for node, cls in NODE_CLASS_MAPPINGS.items()
    for part in cls.GET_SCHEMA().inputs
    if str(part.get_io_type()) in WRONG
]
every_input = pytest.mark.parametrize(("node", "part"), PARTS, ids=[f"{node}.{part.id}" for node, part in PARTS])


def test_every_kind_is_tried() -> None:
    assert WRONG.keys() == KINDS.keys()
    assert {str(part.get_io_type()) for _, part in PARTS} == WRONG.keys()


@every_input
def test_what_its_widget_or_its_socket_would_refuse_is_refused_by_name(node: str, part: Any) -> None:
    for value in WRONG[str(part.get_io_type())]:
        if value is None and part.optional:
            check_input(part, value)
            continue
        with pytest.raises(InvalidInput) as raised:
            check_input(part, value)
        assert str(raised.value).startswith(f"{part.id} ") and len(str(raised.value)) < LONGEST, value


@every_input
def test_its_default_and_its_limits_are_taken(node: str, part: Any) -> None:
    for name in ("default", "min", "max"):
        value = getattr(part, name, None)
        if value is not None:
            check_input(part, value)
    for option in getattr(part, "options", None) or ():
        check_input(part, option)


@pytest.mark.parametrize("node", NODE_CLASS_MAPPINGS)
def test_every_node_checks_before_it_runs(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = NODE_CLASS_MAPPINGS[node]
    name = cls.GET_SCHEMA().display_name
    for part in cls.GET_SCHEMA().inputs:
        if str(part.get_io_type()) not in WRONG:
            continue
        with pytest.raises(InvalidInput, match=rf"^{name}: {part.id} "):
            run(node.removeprefix("MorphDrag"), **{part.id: object()})


def test_good_values_of_every_kind_pass() -> None:
    good = {"LATENT": latent(), "CONDITIONING": conditioning(), "LORA_MODEL": random_lora(0)}
    good |= {"IMAGE": torch.zeros(1, 8, 8, 3), "MASK": torch.zeros(8, 8)}
    for _, part in PARTS:
        if str(part.get_io_type()) in good:
            check_input(part, good[str(part.get_io_type())])


def test_an_error_has_one_name_and_keeps_its_kind() -> None:
    with pytest.raises(UnsupportedModel, match="^Inner: not this model$"), named("Outer"), named("Inner"):
        raise UnsupportedModel("not this model")


def test_other_errors_pass_untouched() -> None:
    with pytest.raises(ZeroDivisionError, match="^by zero$"), named("Node"):
        raise ZeroDivisionError("by zero")


def test_a_message_has_a_length() -> None:
    with pytest.raises(MorphError) as raised, named("Node"):
        raise InvalidInput("x" * 10**6)
    assert len(str(raised.value)) == LONGEST + 1
