"""Workflow files of before still fit: every node, input, widget and output is where the file says.

The files in `saved` are the example workflows as they once were. They are never changed; another gets another name.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from morph_tests.workflows.schemas import Definition, Definitions, Workflow, misfits

FOLDER = Path(__file__).parent / "saved"
FILES = sorted(FOLDER.glob("*.json"))
DRAG = "MorphDragDragLatentOptimize"


def opened(file: Path) -> Workflow:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_saved_file_fits_todays_nodes(file: Path, definitions: Definitions) -> None:
    assert misfits(opened(file), definitions) == []


def reordered(fields: dict, *names: str) -> dict:
    """The named come first."""
    return {**{name: fields[name] for name in names}, **fields}


def rename_an_input(drag: Definition) -> None:
    drag["input"]["required"]["picture"] = drag["input"]["required"].pop("image")


def give_an_input_another_type(drag: Definition) -> None:
    drag["input"]["optional"]["mask"] = ["IMAGE", {}]


def demand_a_new_input(drag: Definition) -> None:
    drag["input"]["required"]["tempo"] = ["INT", {"default": 0}]


def move_a_widget(drag: Definition) -> None:
    drag["input"]["required"] = reordered(drag["input"]["required"], "steps")


def put_a_new_widget_first(drag: Definition) -> None:
    drag["input"]["required"] = {"tempo": ["INT", {"default": 0}], **drag["input"]["required"]}


def give_a_widget_a_companion(drag: Definition) -> None:
    drag["input"]["required"]["steps"][1]["control_after_generate"] = True


def withdraw_a_choice(drag: Definition) -> None:
    drag["input"]["required"]["objective"][1]["options"].remove("GoodDrag")


def narrow_a_range(drag: Definition) -> None:
    drag["input"]["required"]["steps"][1]["max"] = 49


def swap_outputs(drag: Definition) -> None:
    for field in ("output", "output_name"):
        drag[field] = drag[field][::-1]


BREAKS = [
    (rename_an_input, "the input image was IMAGE and is gone"),
    (give_an_input_another_type, "the input mask was MASK and is IMAGE"),
    (demand_a_new_input, "the input tempo is new and not optional"),
    (move_a_widget, "the widgets were ['points', 'steps',"),
    (put_a_new_widget_first, "the widgets were ['points', 'steps',"),
    (give_a_widget_a_companion, "5 values were saved for 6 widgets"),
    (withdraw_a_choice, "objective may not be 'GoodDrag'"),
    (narrow_a_range, "steps may not be 50"),
    (swap_outputs, "the outputs were [('"),
]


@pytest.mark.parametrize(("change", "complaint"), BREAKS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_would_break_a_saved_file_is_found(
    change: Callable[[Definition], None], complaint: str, definitions: Definitions
) -> None:
    changed = copy.deepcopy(definitions)
    change(changed[DRAG])
    found = misfits(opened(FOLDER / "toy_drag_pinned.json"), changed)
    assert any(problem.startswith(f"{DRAG}: {complaint}") for problem in found), found


def test_a_node_that_is_gone_is_found(definitions: Definitions) -> None:
    rest = {name: definition for name, definition in definitions.items() if name != DRAG}
    assert misfits(opened(FOLDER / "toy_drag_pinned.json"), rest) == [f"{DRAG}: no such node"]


def test_a_new_optional_input_at_the_end_breaks_nothing(definitions: Definitions) -> None:
    changed = copy.deepcopy(definitions)
    changed[DRAG]["input"]["optional"]["tempo"] = ["INT", {"default": 0}]
    assert misfits(opened(FOLDER / "toy_drag_pinned.json"), changed) == []
