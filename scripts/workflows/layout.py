"""The layout turns rows and columns into pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .description import Group, Node, Workflow

GAP, TITLE, GROUP_TITLE = 40, 30, 50
GROWTH = 45  # what "Nodes 2.0" adds to a node's height

Pair = tuple[int, int]  # x and y, or width and height
Sizes = Mapping[str, Pair]  # a node's name -> width and height below its title


@dataclass(frozen=True)
class Block:
    """A block is a group with its size and its nodes' corners within it."""

    group: Group
    size: Pair
    corners: dict[str, Pair]


def placed(workflow: Workflow, sizes: Sizes) -> Iterator[tuple[Block, Pair]]:
    """Every group comes as a block, with its corner on the canvas."""
    columns = [[_block(group, sizes) for group in column] for column in workflow]
    pairs = [column for column in columns if len(column) == 2]
    second_row = GAP + max(upper.size[1] for upper, _ in pairs)
    bottom = second_row + max(lower.size[1] for _, lower in pairs)
    x = 0
    for column in columns:
        tops = [0, second_row] if len(column) == 2 else [(bottom - block.size[1]) // 2 for block in column]
        for block, y in zip(column, tops, strict=True):
            yield block, (x, y)
        x += GAP + max(block.size[0] for block in column)


def _block(group: Group, sizes: Sizes) -> Block:
    """A group's rows and columns are aligned, inside a frame if it has a title."""
    xs, ys, (width, height) = _grid([[_cell(node, sizes) for node in row] for row in group.rows])
    border, top = (GAP // 2, GROUP_TITLE) if group.title else (0, 0)
    corners = {
        node.name: (x + border, y + top + TITLE)
        for row, y in zip(group.rows, ys, strict=True)
        for node, x in zip(row, xs, strict=True)
        if node
    }
    return Block(group, (width + 2 * border, height + top), corners)


def _cell(node: Node | None, sizes: Sizes) -> Pair:
    """A node takes its width of the column and, unless it spans rows, its height of the row."""
    if node is None:
        return 0, 0
    width, height = sizes[node.name]
    return width, 0 if node.spans else TITLE + height + GROWTH


def _grid(cells: Sequence[Sequence[Pair]]) -> tuple[list[int], list[int], Pair]:
    """The columns' left edges, the rows' upper edges and the whole size follow from the cells' sizes."""
    widths = [max(width for width, _ in column) for column in zip(*cells, strict=True)]
    heights = [max(height for _, height in row) for row in cells]
    xs, ys = _edges(widths, GAP), _edges(heights, GAP // 2)
    return xs, ys, (xs[-1] + widths[-1], ys[-1] + heights[-1])


def _edges(lengths: Sequence[int], gap: int) -> list[int]:
    """Each piece begins where those before it and the gaps end."""
    return [sum(lengths[:i]) + gap * i for i in range(len(lengths))]
