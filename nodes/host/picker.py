"""What the nodes with a point picker tell it."""

from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

NO_POINTS = "points is empty: click a handle on the picture, then where it should go"


def shown_to_picker(picture: Tensor, cls: type[io.ComfyNode]) -> dict[str, Any]:
    """What a node says to the front end: the picture (1, H, W, 3) to pick points on."""
    return {"picker_image": ui.PreviewImage(picture, cls=cls).as_dict()["images"]}


def without_points(points: Any, node: str, outputs: int, shown: dict[str, Any]) -> io.NodeOutput | None:
    """A node's output while nothing is picked; None where there are points.

    Not an exception: the picture must reach the picker, to pick points on. node: its display name.
    """
    if not isinstance(points, str) or points.strip():
        return None
    return io.NodeOutput(*[None] * outputs, ui=shown, block_execution=f"{node}: {NO_POINTS}")
