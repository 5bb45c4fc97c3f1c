"""What ComfyUI's /object_info defines, and where a workflow file does not fit it.

    problems = misfits(workflow, definitions)  # one sentence each; none when every node opens as it was saved

The front end finds a saved link's input by name and its output by place, and a saved widget's value by place.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from morph_tests.comfy_host import REPOSITORY

Workflow = dict[str, Any]
Node = dict[str, Any]
Definition = dict[str, Any]
Definitions = dict[str, Definition]

OUR_NODES = {
    node_id
    for source in (REPOSITORY / "nodes").rglob("*.py")
    for node_id in re.findall(r'node_id="(\w+)"', source.read_text(encoding="utf-8"))
}
FRONT_END_NODES = {"MarkdownNote"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"  # a choice that brings inputs of its own; older ComfyUIs have a COMBO there
EXTRA_WIDGETS = ("control_after_generate", "image_upload")  # options that give an input a second widget
UPLOAD = "IMAGEUPLOAD"  # the type of an extra widget's slot, which no definition has


class Widget(NamedTuple):
    """A value in `widgets_values` belongs to an input; an extra widget's `kind` is empty, and it may have any value."""

    input: str
    kind: str
    options: dict[str, Any]


def backend_nodes(workflow: Workflow) -> list[Node]:
    return [node for node in workflow["nodes"] if node["type"] not in FRONT_END_NODES]


def defined_inputs(definition: Definition) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> type and options, those of a choice with all that can be chosen."""
    inputs = {**definition["input"].get("required", {}), **definition["input"].get("optional", {})}
    return {name: _type_and_options(kind, rest[0] if rest else {}) for name, (kind, *rest) in inputs.items()}


def _type_and_options(kind: str | list[Any], options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(kind, list):
        return "COMBO", {**options, "options": kind}
    return "COMBO" if kind == DYNAMIC_COMBO else kind, options


def defined_widgets(definition: Definition) -> list[Widget]:
    """One for each value in `widgets_values`."""
    widgets: list[Widget] = []
    for name, (kind, options) in defined_inputs(definition).items():
        if kind in WIDGETS and not options.get("forceInput"):
            widgets.append(Widget(name, kind, options))
            widgets += [Widget(name, "", {}) for extra in EXTRA_WIDGETS if options.get(extra)]
    return widgets


def is_allowed(value: Any, widget: Widget) -> bool:
    _, kind, options = widget
    if kind in ("INT", "FLOAT"):
        return options.get("min", value) <= value <= options.get("max", value)
    if kind == "COMBO" and Path(str(value)).suffix == ".safetensors":  # a file that the user has yet to bring
        return True
    if kind == "COMBO" and (choices := options.get("options")):  # without any, it lists files that are not there
        return value in [choice["key"] if isinstance(choice, dict) else choice for choice in choices]
    return kind == "" or isinstance(value, bool if kind == "BOOLEAN" else str)


def misfits(workflow: Workflow, definitions: Definitions) -> list[str]:
    """What ComfyUI would not take as the file means it, a sentence each; more than the file names may be defined."""
    return [
        f"{node['type']}: {complaint}"
        for node in backend_nodes(workflow)
        for complaint in _misfits(node, definitions.get(node["type"]))
    ]


def _misfits(node: Node, definition: Definition | None) -> Iterator[str]:
    if definition is None:
        yield "no such node"
        return
    yield from _inputs(node, definition)
    yield from _outputs(node, definition)
    yield from _widgets(node, definition)


def _inputs(node: Node, definition: Definition) -> Iterator[str]:
    saved = {slot["name"]: slot["type"] for slot in node["inputs"] if slot["type"] != UPLOAD}
    defined = {name: kind for name, (kind, _) in defined_inputs(definition).items()}
    for name, kind in saved.items():
        if not set(kind.split(",")) <= set(defined.get(name, "").split(",")):  # an input may take other types as well
            yield f"the input {name} was {kind} and is {defined.get(name, 'gone')}"
    if node["type"] in OUR_NODES:
        for name in definition["input"].get("required", {}).keys() - saved.keys():
            yield f"the input {name} is new and not optional"


def _outputs(node: Node, definition: Definition) -> Iterator[str]:
    """Names tell apart outputs of one type; ComfyUI's own are renamed from version to version."""
    named = node["type"] in OUR_NODES
    saved = [(slot["name"] if named else "", slot["type"]) for slot in node["outputs"]]
    pairs = zip(definition["output_name"], definition["output"], strict=True)
    defined = [(name if named else "", kind) for name, kind in pairs][: len(saved)]
    if saved != defined:
        yield f"the outputs were {saved} and are {defined}"


def _widgets(node: Node, definition: Definition) -> Iterator[str]:
    saved = [slot["widget"]["name"] for slot in node["inputs"] if "widget" in slot and slot["type"] != UPLOAD]
    widgets = defined_widgets(definition)
    defined = [widget.input for widget in widgets if widget.kind]
    if defined[: len(saved)] != saved:
        yield f"the widgets were {saved} and are {defined}"
        return
    expected = [widget for widget in widgets if widget.input in saved]
    if len(node["widgets_values"]) != len(expected):
        yield f"{len(node['widgets_values'])} values were saved for {len(expected)} widgets"
        return
    for value, widget in zip(node["widgets_values"], expected, strict=True):
        if not is_allowed(value, widget):
            yield f"{widget.input} may not be {value!r}"
