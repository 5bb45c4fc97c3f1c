"""A description says what is on a canvas and what is linked to what; the layout follows from the order.

A workflow is a row of columns of groups, and a group is a grid of nodes. Columns of two groups make two rows; a group
that is alone in its column stands between them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

PACK, PACK_PREFIX = "morph-and-drag", "MorphDrag"
NOTE_TYPE = "MarkdownNote"  # the front end's own, which ComfyUI does not define
NARROW, WIDE = 230, 315  # of nodes without widgets, no less than in "Nodes 2.0", and of those with long values
BLUE, GREEN, RED, YELLOW, CYAN = "#88A", "#8A8", "#A88", "#b58b2a", "#8AA"  # frames of groups


@dataclass(frozen=True)
class Node:
    """A node has a name that links refer to; the canvas shows its title, or else that of its type.

    `links`: input -> the name of a node (its first output) or "name.OUTPUT". `widgets`: values other than defaults.
    `room`: height beyond what slots and widgets take, for text or a picture. `spans`: it may reach into the rows below.
    `models`: addresses of the files that it loads, which the front end offers to download where they are missing.
    """

    name: str
    type: str
    links: dict[str, str] = field(default_factory=dict)
    widgets: dict[str, Any] = field(default_factory=dict)
    width: int = 240
    room: int = 0
    spans: bool = False
    title: str = ""
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """A group holds nodes in rows of one length; None leaves a cell empty, and without a title no frame is drawn."""

    title: str
    colour: str
    rows: Sequence[Sequence[Node | None]]

    def nodes(self) -> Iterator[Node]:
        """The nodes come row by row."""
        return (node for row in self.rows for node in row if node)


Workflow = list[list[Group]]  # columns


def relinked(workflow: Workflow, sources: dict[str, str]) -> Workflow:
    """Links to some names go to others instead."""

    def moved(node: Node | None) -> Node | None:
        return node and replace(node, links={name: sources.get(link, link) for name, link in node.links.items()})

    return [
        [replace(group, rows=[[moved(node) for node in row] for row in group.rows]) for group in column]
        for column in workflow
    ]


def nodes_of(workflow: Workflow) -> list[Node]:
    """The nodes of a workflow come column by column, in the order of their numbers."""
    return [node for column in workflow for group in column for node in group.nodes()]
