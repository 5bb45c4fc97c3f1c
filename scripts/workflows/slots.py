"""Slots are what the canvas must know of a node's type; definitions.json keeps them for the types that are used."""

import json
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .description import NOTE_TYPE

FILE = Path(__file__).with_name("definitions.json")
WIDGETS = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})


@dataclass(frozen=True)
class Slots:
    """A type has inputs, outputs and widgets in the front end's order: sockets come before widgets.

    `sockets`, `widgets`, `outputs`: name -> type. `values`: the widgets' defaults, and those of widgets that belong to
    no input, such as the seed's control. `optional`: inputs that may stay empty.
    """

    sockets: dict[str, str]
    widgets: dict[str, str]
    values: dict[str, Any]
    optional: list[str]
    outputs: dict[str, str]

    def inputs(self) -> dict[str, str]:
        """Every input has a type, a widget's too."""
        return {**self.sockets, **self.widgets}

    def height(self) -> int:
        """The front end draws a node this high, below its title."""
        rows = max(len(self.sockets), len(self.outputs))
        return 6 + 20 * rows + (8 + 24 * len(self.values) if self.values else 0)


NOTE = Slots({}, {"text": "STRING"}, {"text": ""}, [], {})


def slots_of(definition: Mapping[str, Any]) -> Slots:
    """A definition in /object_info becomes slots."""
    optional = definition["input"].get("optional", {})
    outputs = dict(zip(definition["output_name"], definition["output"], strict=True))
    slots = Slots({}, {}, {}, list(optional), outputs)
    for name, (kind, *rest) in {**definition["input"].get("required", {}), **optional}.items():
        _add_input(slots, name, kind, rest[0] if rest else {})
    return slots


def _add_input(slots: Slots, name: str, kind: str | list[Any], options: Mapping[str, Any]) -> None:
    """An input becomes a socket, or a widget with its default and the further widgets that it brings."""
    choices = kind if isinstance(kind, list) else options.get("options", [])
    kind = "COMBO" if isinstance(kind, list) else kind
    if kind not in WIDGETS or options.get("forceInput"):
        slots.sockets[name] = kind
        return
    slots.widgets[name] = kind
    slots.values[name] = options.get("default", choices[0] if choices else "")
    if options.get("control_after_generate"):
        slots.values["control_after_generate"] = "fixed"
    if options.get("image_upload"):
        slots.widgets["upload"] = "IMAGEUPLOAD"
        slots.values["upload"] = "image"


def read_slots() -> dict[str, Slots]:
    """Every type in definitions.json has slots, and so has the note."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return {NOTE_TYPE: NOTE, **{name: Slots(**fields) for name, fields in kept.items()}}


def renew_definitions(server: str, types: Iterable[str]) -> None:
    """A running ComfyUI at `server` tells the types' definitions, and definitions.json keeps what is needed of them."""
    with urllib.request.urlopen(f"{server}/object_info") as answer:
        definitions = json.load(answer)
    used = sorted(set(types) - {NOTE_TYPE})
    lines = _lines({name: slots_of(definitions[name]) for name in used})
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")


def _lines(slots: Mapping[str, Slots]) -> Iterator[str]:
    """Each type gets a line, so that a change shows which types changed."""
    return (f" {json.dumps(name)}: {json.dumps(asdict(value), ensure_ascii=False)}" for name, value in slots.items())
