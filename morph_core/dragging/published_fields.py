"""The fields of published drags by warping: how far each place of a region moves, as their authors' code has it.

All is in pixels or cells, (x, y). places: (P, 2). handles, moves: (N, 2), from handle to target; a pin moves by 0.
"""

import torch
from torch import Tensor

from ..errors import InvalidInput

NEIGHBOURS = 4  # handles that a place of Inpaint4Drag's follows
EPSILON = 1e-6
FAST_DRAG_EPSILON = 1e-4
LEAST_DEPTH = 1e-4
FARTHEST_DEPTH = 5.0  # a depth weighs at most so much more than the handle's


def inverse_distance_moves(places: Tensor, handles: Tensor, moves: Tensor) -> Tensor:
    """(P, 2): the nearest handles' moves, weighed by 1/distance (Inpaint4Drag, Lu and Han, ICCV 2025)."""
    distances, nearest = torch.cdist(places, handles).topk(min(NEIGHBOURS, len(handles)), largest=False)
    weights = 1 / (distances + EPSILON)
    return ((weights / weights.sum(1, keepdim=True))[..., None] * moves[nearest]).sum(1)


def fading_moves(places: Tensor, handles: Tensor, moves: Tensor, cells: Tensor) -> Tensor:
    """(P, 2): handles' moves, weighed by 1/distance and fading out towards a circle (FastDrag, Zhao et al. 2024).

    cells: (M, 2), the region's, around whose box the circle is. A move is whole at its handle and 0 on the circle:
    1 − |AC|/|AP|, with the handle A, the place C and P where the ray from A through C leaves the circle.
    """
    centre, radius = circle_around(cells)
    share = _share_left(places, handles, centre, radius)  # (P, N)
    weights = 1 / (torch.cdist(places, handles) + FAST_DRAG_EPSILON)
    weights = weights / weights.sum(1, keepdim=True)
    return ((weights * share)[..., None] * moves).sum(1)


def nearest_moves(
    places: Tensor, handles: Tensor, moves: Tensor, cells: Tensor, depth: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """(P, 2): each place follows its nearest handle alone, the less the farther away it is (GeoDrag, 2025).

    cells: (M, 2), the region's; each handle has a circle of its own, around its part of them. depth: of the places
    (P,) and of the handles (N,), 0 far to 1 near: what is nearer to the eye than the handle moves more, by their
    ratio, up to `FARTHEST_DEPTH`, and counts the more the farther away from the handle a place is.
    """
    owner = torch.cdist(places, handles).argmin(1)
    of_cells = torch.cdist(cells, handles).argmin(1)
    result = torch.zeros_like(places)
    for number, (handle, move) in enumerate(zip(handles, moves, strict=True)):
        mine, part = owner == number, cells[of_cells == number]
        if not mine.any() or not len(part):
            continue
        centre, radius = circle_around(part)
        away = places[mine] - handle
        distance = away.norm(dim=1)
        outward = (away * (centre - handle)).sum(1) > 0
        reach = torch.where(outward, radius + (centre - handle).norm(), radius)
        share = 1 - (distance + EPSILON) / reach
        if depth is not None:
            ratio = (depth[0][mine] / depth[1][number].clamp(min=LEAST_DEPTH)).clamp(0, FARTHEST_DEPTH)
            share = torch.lerp(share, ratio, distance / (distance + 2 * radius + EPSILON))
        result[mine] = share.clamp(min=0)[:, None] * move
    return result


def circle_around(cells: Tensor) -> tuple[Tensor, Tensor]:
    """The middle (2,) and half the diagonal of the box around places (M, 2)."""
    low, high = cells.amin(0), cells.amax(0)
    middle = (low + high) / 2
    return middle, (middle - low + EPSILON).norm()


def _share_left(places: Tensor, handles: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
    """(P, N), 1 at a handle to 0 on the circle and beyond."""
    outside = ((handles - centre).norm(dim=1) > radius).nonzero()
    if len(outside):
        raise InvalidInput(
            f"points: the handle of pair {int(outside[0]) + 1} is outside of the circle around the mask, in which "
            "this field fades; move it into the mask, or choose another field"
        )
    away = places[:, None] - handles  # (P, N, 2)
    distance = away.norm(dim=-1)
    direction = away / distance.clamp(min=1e-12)[..., None]
    from_centre = handles - centre
    along = (direction * from_centre).sum(-1)
    leaving = (radius**2 - from_centre.square().sum(-1) + along**2).clamp(min=0).sqrt() - along
    return (1 - distance / leaving.clamp(min=EPSILON)).clamp(0, 1)
