"""A canvas turns a description into the front end's workflow format: nodes, links and groups."""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from .description import NOTE_TYPE, PACK, PACK_PREFIX, Group, Node, Workflow, nodes_of
from .layout import Pair, placed
from .slots import Slots

Json = dict[str, Any]
NOTE_COLOURS = {"color": "#432", "bgcolor": "#653"}
MAY_STAY_EMPTY = 7  # the shape of an optional input
FOLDERS = {  # of models/, by the node that loads from them
    "CheckpointLoaderSimple": "checkpoints",
    "UNETLoader": "diffusion_models",
    "CLIPLoader": "text_encoders",
    "DualCLIPLoader": "text_encoders",
    "VAELoader": "vae",
}


class Link(NamedTuple):
    """A link leads from an output to an input, both counted on their nodes; the file has the fields in this order."""

    number: int
    source: int
    output: int
    target: int
    input: int
    kind: str


class Canvas:
    """A canvas holds one workflow's numbered nodes and links."""

    def __init__(self, workflow: Workflow, slots: Mapping[str, Slots]) -> None:
        self.workflow = workflow
        self.nodes = {node.name: node for node in nodes_of(workflow)}
        if len(self.nodes) < len(nodes_of(workflow)):
            raise ValueError("two nodes have one name")
        self.numbers = {name: number for number, name in enumerate(self.nodes, 1)}
        self.slots = {node.name: slots[node.type] for node in self.nodes.values()}
        for node in self.nodes.values():
            _check(node, self.slots[node.name])

    def text(self) -> str:
        """The file's text is the workflow as JSON, which differs by lines."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"

    def to_json(self) -> Json:
        """The front end opens this."""
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": [self._node(node, self.slots[node.name]) for node in self.nodes.values()],
            "links": self.links,
            "groups": list(self._frames()),
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    @cached_property
    def links(self) -> list[Link]:
        """The links are numbered by the nodes they lead to, and there by inputs."""
        ends = ((node, name) for node in self.nodes.values() for name in self._linked(node))
        return [self._link(number, node, name) for number, (node, name) in enumerate(ends, 1)]

    @cached_property
    def sizes(self) -> dict[str, Pair]:
        """A node's size follows from its slots, its width and its room."""
        return {name: (node.width, self.slots[name].height() + node.room) for name, node in self.nodes.items()}

    @cached_property
    def positions(self) -> dict[str, Pair]:
        """A node stands at its corner within its group."""
        return {
            name: (x + dx, y + dy)
            for block, (x, y) in placed(self.workflow, self.sizes)
            for name, (dx, dy) in block.corners.items()
        }

    def _linked(self, node: Node) -> Iterator[str]:
        """Linked inputs come in the order of the type's."""
        return (name for name in self.slots[node.name].inputs() if name in node.links)

    def _link(self, number: int, node: Node, name: str) -> Link:
        """A link begins at the output that the description names, or at the first."""
        source, _, output = node.links[name].partition(".")
        outputs, inputs = self.slots[source].outputs, self.slots[node.name].inputs()
        output = output or next(iter(outputs))
        places = list(outputs).index(output), list(inputs).index(name)
        return Link(number, self.numbers[source], places[0], self.numbers[node.name], places[1], outputs[output])

    def _frames(self) -> Iterator[Json]:
        """Every titled group has a frame."""
        blocks = placed(self.workflow, self.sizes)
        framed = ((block, corner) for block, corner in blocks if block.group.title)
        for number, (block, corner) in enumerate(framed, 1):
            yield _frame(number, block.group, [*corner, *block.size])

    def _node(self, node: Node, slots: Slots) -> Json:
        """A node is written with its place, its slots and its widgets' values."""
        number, is_note = self.numbers[node.name], node.type == NOTE_TYPE
        return {
            "id": number,
            "type": node.type,
            **({"title": node.title} if node.title else {}),
            "pos": self.positions[node.name],
            "size": self.sizes[node.name],
            "flags": {},
            "order": number - 1,
            "mode": 0,
            "inputs": [] if is_note else list(self._inputs(number, slots)),
            "outputs": list(self._outputs(number, slots)),
            "properties": {} if is_note else _properties(node),
            "widgets_values": list({**slots.values, **node.widgets}.values()),
            **(NOTE_COLOURS if is_note else {}),
        }

    def _inputs(self, number: int, slots: Slots) -> Iterator[Json]:
        """An input names the one link that leads to it."""
        link_into = {link.input: link.number for link in self.links if link.target == number}
        for place, (name, kind) in enumerate(slots.inputs().items()):
            look = {"shape": MAY_STAY_EMPTY} if name in slots.optional else {}
            widget = {"widget": {"name": name}} if name in slots.widgets else {}
            yield {"name": name, "type": kind, **look, **widget, "link": link_into.get(place)}

    def _outputs(self, number: int, slots: Slots) -> Iterator[Json]:
        """An output names all links that begin at it."""
        for place, (name, kind) in enumerate(slots.outputs.items()):
            links = [link.number for link in self.links if (link.source, link.output) == (number, place)]
            yield {"name": name, "type": kind, "links": links}


def _check(node: Node, slots: Slots) -> None:
    """A description is refused if it links or sets what the type does not have, or leaves out what it needs."""
    if missing := slots.sockets.keys() - slots.optional - node.links.keys():
        raise ValueError(f"{node.name}: nothing is linked to {', '.join(missing)}")
    if unknown := node.links.keys() - slots.inputs().keys():
        raise ValueError(f"{node.name}: {node.type} has no input {', '.join(unknown)}")
    if unknown := node.widgets.keys() - slots.values.keys():
        raise ValueError(f"{node.name}: {node.type} has no widget {', '.join(unknown)}")


def _properties(node: Node) -> Json:
    """A node says which pack it comes from, and where its checkpoint can be had."""
    pack = PACK if node.type.startswith(PACK_PREFIX) else "comfy-core"
    properties: Json = {"cnr_id": pack, "Node name for S&R": node.type}
    if node.models:
        folder = FOLDERS[node.type]
        properties["models"] = [
            {"name": url.rpartition("/")[2], "url": url, "directory": folder} for url in node.models
        ]
    return properties


def _frame(number: int, group: Group, bounding: list[int]) -> Json:
    """A frame has its group's title and colour."""
    look = {"color": group.colour, "font_size": 32, "flags": {}}
    return {"id": number, "title": group.title, "bounding": bounding, **look}
