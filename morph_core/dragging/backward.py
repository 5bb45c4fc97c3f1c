"""From where in a picture each place of the dragged one comes: fields that leave no hole, and do not fold."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..errors import InvalidInput
from .moving_least_squares import moving_least_squares

Field = Literal["rigid", "similarity"]
Backward = Callable[[Tensor], Tensor]
"""From places (P, 2) of the result to those that they come from, in pixels."""

PARTS = (1, 2, 4, 8, 16)  # into which a drag is cut until it does not fold
FOLDED = 0.01  # share of what moves that may fold: the field's kinks at control points
GRID = 192  # places a side at which folds are looked for


def backward_field(before: Tensor, after: Tensor, field: Field, parts: int = 1) -> Backward:
    """The field that takes `after` back to `before`, both (K, 2): `moving_least_squares` the other way round.

    parts: cuts the way of each point into so many straight pieces, and goes back over one after another. Each is a
    smaller move that folds less.
    """
    ways = torch.linspace(0, 1, parts + 1, dtype=before.dtype).tolist()
    places = [torch.lerp(before, after, way) for way in ways]

    def back(at: Tensor) -> Tensor:
        for end, start in zip(reversed(places[1:]), reversed(places[:-1]), strict=True):
            at = moving_least_squares(at, end, start, field == "similarity")
        return at

    return back


def unfolded(make: Callable[[int], Backward], moves: Callable[[Tensor], Tensor], size: tuple[int, int]) -> Backward:
    """The field of the fewest parts that does not fold where something moves.

    make: from a number of parts to the field. moves: from places in the picture (P, 2) to whether they are moved.
    size: (H, W). Raises `InvalidInput` where no number of parts helps: points cross, or squeeze a part to nothing.
    """
    for parts in PARTS:
        back = make(parts)
        share, place = _folded(back, moves, size)
        if share <= FOLDED:
            return back
    x, y = place
    raise InvalidInput(
        f"points: around x {x:.0f}, y {y:.0f} the drag would fold the picture over itself; let arrows there not cross, "
        "and move pins away from the ends of arrows"
    )


def _folded(
    back: Backward, moves: Callable[[Tensor], Tensor], size: tuple[int, int]
) -> tuple[float, tuple[float, float]]:
    """The share of what moves that is turned over, and where the first such place comes from."""
    height, width = size
    stride = max(1.0, max(size) / GRID)
    places = pixel_middles((round(height / stride), round(width / stride))) * stride
    came = back(places.reshape(-1, 2))
    moved = moves(came).reshape(places.shape[:2])[:-1, :-1]
    came = came.reshape(places.shape)
    across, down = came[:-1, 1:] - came[:-1, :-1], came[1:, :-1] - came[:-1, :-1]
    turned = (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0] <= 0) & moved
    if not turned.any():
        return 0.0, (0.0, 0.0)
    x, y = came[:-1, :-1][turned][0].tolist()
    return (turned.sum() / moved.sum()).item(), (x, y)


def pixel_middles(size: tuple[int, int]) -> Tensor:
    """(H, W, 2), the place of each pixel's middle as (x, y), (0, 0) the corner of the first; in double precision."""
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1)
