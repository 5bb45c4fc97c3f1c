"""From where in a picture each place of the dragged one comes: fields that leave no hole, and do not fold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InvalidInput
from .moving_least_squares import moving_least_squares
from .published_fields import fading_moves, inverse_distance_moves, nearest_moves

Field = Literal["rigid", "similarity", "inverse distance", "fading", "nearest"]
Places = Callable[[Tensor], Tensor]
"""From places (P, 2) to others, in pixels; a `Backward` from those of the result to those that they come from."""
Backward = Places

PARTS = (1, 2, 4, 8, 16, 32)  # into which a drag is cut until it does not fold
FOLDED = 0.01  # share of what moves that may fold: the field's kinks at control points
GRID = 192  # places a side at which folds are looked for
ITERATIONS, CLOSE = 100, 1e-7  # of an inverse, and when it is found


@dataclass(frozen=True)
class Matter:
    """What moves. cells: (M, 2), the middles of its pixels. depth: (H, W), 0 far to 1 near, of the whole picture."""

    cells: Tensor
    depth: Tensor | None = None

    def depth_at(self, places: Tensor) -> Tensor | None:
        """(P,), of the pixels that places are in; None where there is no depth."""
        if self.depth is None:
            return None
        height, width = self.depth.shape
        x, y = places.nan_to_num().floor().long().unbind(-1)
        return self.depth[y.clamp(0, height - 1), x.clamp(0, width - 1)]


def backward_fields(before: Tensor, after: Tensor, field: Field, matter: Matter, parts: int = 1) -> list[Backward]:
    """The fields that take `after` back to `before`, both (K, 2), one after another, the last one first.

    "rigid" and "similarity" are `moving_least_squares` the other way round, the others the inverses of
    `published_fields`. parts: into how many straight pieces the way of each point is cut. Each is a smaller move, that
    folds less.
    """
    ways = torch.linspace(0, 1, parts + 1, dtype=before.dtype).tolist()
    places = [torch.lerp(before, after, way) for way in ways]
    return [_back(*ends, field, matter) for ends in zip(places[:-1], places[1:], strict=True)]


def faded_field(back: Backward, share: Places) -> Backward:
    """The field by which places (P, 2) move only `share` (P,) as far."""
    return lambda at: torch.lerp(at, back(at), share(at)[:, None])


def after_another(pieces: Sequence[Backward]) -> Backward:
    """The field back over all pieces of a way, given from its start to its end."""

    def back(at: Tensor) -> Tensor:
        for piece in reversed(pieces):
            at = piece(at)
        return at

    return back


def _back(start: Tensor, end: Tensor, field: Field, matter: Matter) -> Backward:
    if field in ("rigid", "similarity"):
        return lambda at: moving_least_squares(at, end, start, field == "similarity")
    if field == "inverse distance":
        return _inverse(lambda at: inverse_distance_moves(at, start, end - start))
    if field == "fading":
        return _inverse(lambda at: fading_moves(at, start, end - start, matter.cells))

    def moves(at: Tensor) -> Tensor:
        near, of_handles = matter.depth_at(at), matter.depth_at(start)
        depth = None if near is None or of_handles is None else (near, of_handles)
        return nearest_moves(at, start, end - start, matter.cells, depth)

    return _inverse(moves)


def _inverse(moves: Places) -> Backward:
    """From v to the place c with c + moves(c) = v, by iteration; NaN where there is none that it finds."""

    def back(at: Tensor) -> Tensor:
        came = at
        for _ in range(ITERATIONS):
            before, came = came, at - moves(came)
            if not (came - before).abs().gt(CLOSE).any():
                break
        return torch.where((came - before).abs() < 1e3 * CLOSE, came, torch.nan)

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
    """The share of what moves that is turned over, and the first such place."""
    places = grid_of(size)
    came = back(places.reshape(-1, 2))
    moved = moves(came).reshape(places.shape[:2])[:-1, :-1]
    came = came.reshape(places.shape)
    across, down = came[:-1, 1:] - came[:-1, :-1], came[1:, :-1] - came[:-1, :-1]
    turned = (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0] <= 0) & moved
    if not turned.any():
        return 0.0, (0.0, 0.0)
    x, y = places[:-1, :-1][turned][0].tolist()
    return (turned.sum() / moved.sum()).item(), (x, y)


def grid_of(size: tuple[int, int]) -> Tensor:
    """(h, w, 2), the middles of all pixels, or of as many larger cells as are looked at of a large picture."""
    stride = max(1.0, max(size) / GRID)
    return pixel_middles((max(1, round(size[0] / stride)), max(1, round(size[1] / stride)))) * stride


def pixel_middles(size: tuple[int, int]) -> Tensor:
    """(H, W, 2), the place of each pixel's middle as (x, y), (0, 0) the corner of the first; in double precision."""
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1)
