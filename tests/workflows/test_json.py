"""The example workflows are whole: files, links, node types, slots and widgets. With ComfyUI, as it defines them."""

import json
from pathlib import Path
from typing import Any

import pytest

from morph_tests.comfy_host import REPOSITORY
from morph_tests.workflows.schemas import (
    OUR_NODES,
    UPLOAD,
    Definitions,
    Workflow,
    backend_nodes,
    defined_inputs,
    defined_widgets,
    is_allowed,
)

FILES = sorted((REPOSITORY / "example_workflows").glob("*.json"))
OPTIONAL = 7  # the shape of a slot that may stay empty


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def workflow(request: pytest.FixtureRequest) -> Workflow:
    return json.loads(request.param.read_text(encoding="utf-8"))


def source(workflow: Workflow, node: dict[str, Any]) -> dict[str, Any]:
    """The node whose picture comes in at `node`, through those that only change pictures."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    origins = {link[0]: nodes[link[1]] for link in workflow["links"]}
    while came := [slot["link"] for slot in node["inputs"] if slot["type"] == "IMAGE" and slot["link"]]:
        node = origins[came[0]]
    return node


def test_there_are_workflows() -> None:
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_has_a_thumbnail(file: Path) -> None:
    assert file.with_suffix(".jpg").is_file()


def test_ids_are_unique_and_counted(workflow: Workflow) -> None:
    for entries, last in (
        ([node["id"] for node in workflow["nodes"]], workflow["last_node_id"]),
        ([link[0] for link in workflow["links"]], workflow["last_link_id"]),
    ):
        assert len(set(entries)) == len(entries)
        assert max(entries) <= last


def test_links_join_slots_of_one_type(workflow: Workflow) -> None:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for number, source, output, target, place, kind in workflow["links"]:
        start = nodes[source]["outputs"][output]
        end = nodes[target]["inputs"][place]
        assert number in start["links"]
        assert end["link"] == number
        assert start["type"] == kind and kind in end["type"].split(",")


def test_slots_name_only_links_there_are(workflow: Workflow) -> None:
    there_are = {link[0] for link in workflow["links"]}
    for node in workflow["nodes"]:
        assert {number for slot in node["outputs"] for number in slot["links"]} <= there_are
        assert {slot["link"] for slot in node["inputs"]} - {None} <= there_are
        required = [slot for slot in node["inputs"] if "widget" not in slot and slot.get("shape") != OPTIONAL]
        assert all(slot["link"] for slot in required), node["type"]


def test_names_the_pack_every_node_comes_from(workflow: Workflow) -> None:
    for node in backend_nodes(workflow):
        ours = node["type"] in OUR_NODES
        assert node["properties"]["cnr_id"] == ("morph-and-drag" if ours else "comfy-core"), node["type"]
        assert node["properties"]["Node name for S&R"] == node["type"]


def test_explains_itself_in_one_note(workflow: Workflow) -> None:
    notes = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert [len(note["widgets_values"]) for note in notes] == [1]


def test_brings_its_own_pictures(workflow: Workflow) -> None:
    """Whoever has the checkpoint can press Run."""
    encoded = [node for node in workflow["nodes"] if node["type"] in ("VAEEncode", "InpaintModelConditioning")]
    assert {source(workflow, node)["type"] for node in encoded} == {"MorphDragToyDrawing"}


@pytest.mark.parametrize("file", [file for file in FILES if "morph" in file.stem], ids=lambda file: file.stem)
def test_a_morph_is_between_two_pictures(file: Path) -> None:
    workflow = json.loads(file.read_text(encoding="utf-8"))
    encoded = [node for node in workflow["nodes"] if node["type"] == "VAEEncode"]
    first, second = (source(workflow, node)["widgets_values"] for node in encoded)
    assert first != second


def test_nodes_do_not_overlap(workflow: Workflow) -> None:
    title = 30
    boxes = [
        (node["type"], *node["pos"], node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1])
        for node in workflow["nodes"]
    ]
    for i, (name, left, top, right, bottom) in enumerate(boxes):
        for other, left_2, top_2, right_2, bottom_2 in boxes[:i]:
            apart = right <= left_2 or right_2 <= left or bottom <= top_2 - title or bottom_2 <= top - title
            assert apart, f"{name} overlaps {other}"


def test_comfyui_knows_every_node(workflow: Workflow, definitions: Definitions) -> None:
    assert definitions.keys() >= OUR_NODES
    assert {node["type"] for node in backend_nodes(workflow)} <= definitions.keys()


def test_slots_are_those_comfyui_defines(workflow: Workflow, definitions: Definitions) -> None:
    """ComfyUI's own nodes gain inputs and outputs from version to version: theirs begin with those in the file."""
    for node in backend_nodes(workflow):
        definition = definitions[node["type"]]
        inputs = {slot["name"]: slot["type"] for slot in node["inputs"] if slot["type"] != UPLOAD}
        outputs = [slot["type"] for slot in node["outputs"]]
        defined = {name: kind for name, (kind, _) in defined_inputs(definition).items()}
        assert inputs.items() <= defined.items(), node["type"]
        assert outputs == definition["output"][: len(outputs)], node["type"]
        if node["type"] in OUR_NODES:
            assert inputs == defined
            assert outputs == definition["output"]
            assert [slot["name"] for slot in node["outputs"]] == definition["output_name"]


def test_widget_values_are_those_comfyui_defines(workflow: Workflow, definitions: Definitions) -> None:
    for node in backend_nodes(workflow):
        widgets = defined_widgets(definitions[node["type"]])
        values = node["widgets_values"]
        assert len(values) == len(widgets) or node["type"] not in OUR_NODES, node["type"]
        assert len(values) <= len(widgets), node["type"]
        for value, widget in zip(values, widgets, strict=False):
            assert is_allowed(value, widget), f"{node['type']}: {value!r}"
