"""What a drag by warping moves, and from where each place of the result comes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InvalidInput
from .backward import (
    Backward,
    Field,
    Matter,
    after_another,
    backward_fields,
    faded_field,
    grid_of,
    pixel_middles,
    unfolded,
)
from .points import SAME_PLACE, DragPoints, in_pixels
from .regions import Region, regions_of

STRIP = 1 << 16  # places whose origins are computed at a time
MOST_PLACES = 1 << 20  # of a picture, above which they are computed on a grid
SMOOTH = ("rigid", "similarity")
NOWHERE = -1e6  # pixels


@dataclass(frozen=True)
class Warp:
    """How to move.

    field: "rigid" turns parts and keeps their sizes, "similarity" lets them grow and shrink, see
    `moving_least_squares`; "inverse distance" is Inpaint4Drag's, "fading" FastDrag's and "nearest" GeoDrag's.
    radius: with no mask, all within it of an arrow moves, as a share of the picture's shorter side.
    """

    field: Field = "rigid"
    radius: float = 1 / 4

    def __post_init__(self) -> None:
        if self.field not in get_args(Field):
            raise InvalidInput(f"field must be one of {', '.join(get_args(Field))}; got {self.field!r}")
        if not 0 < self.radius <= 1:
            raise InvalidInput(f"radius must be above 0 and at most 1, got {self.radius}")


@dataclass(frozen=True)
class Move:
    """piece: (H, W), bool, what moves. came: (H, W, 2), the place that each cell's middle comes from, in cells.

    leaves: whether the piece leaves its old place; without a mask nothing does, the picture gives way.
    """

    piece: Tensor
    came: Tensor
    leaves: bool


def moves_of(
    points: DragPoints, mask: Tensor | None, size: tuple[int, int], config: Warp, depth: Tensor | None = None
) -> list[Move]:
    """One for each piece of the mask (H, W), bool, that has a handle; without a mask, one of the whole picture.

    size: (H, W) of the picture or the latent. depth: (H, W), 0 far to 1 near, for "nearest" alone. Raises
    `InvalidInput` for points that contradict each other, a handle outside of the mask, a mask that is everything, and
    where the picture would fold over itself; the published fields are cut where they tear it instead.
    """
    check_contradictions(points)
    if depth is not None and config.field != "nearest":
        raise InvalidInput(f'depth has a meaning for the field "nearest" alone, not for {config.field!r}')
    if mask is None or not mask.any():
        return [_move_near(points, size, config, depth)]
    return [_move_piece(region, size, config, depth) for region in regions_of(mask, points)]


def check_contradictions(points: DragPoints) -> None:
    """Raise `InvalidInput` where one place is to be in two places, or two are to be in one."""
    before, after = (torch.cat([ends, points.pins]).double() for ends in (points.handles, points.targets))
    for places, others, words in ((before, after, "start at"), (after, before, "end at")):
        together = (torch.cdist(places, places) < SAME_PLACE) & (torch.cdist(others, others) >= SAME_PLACE)
        for pair in together.nonzero().tolist():
            first, second = (_name(number, len(points.handles)) for number in pair)
            raise InvalidInput(f"points: {first} and {second} {words} the same place; move or remove one")


def nearness(places: Tensor, handles: Tensor, targets: Tensor, core: float, reach: float) -> Tensor:
    """(P,), 1 within `core` of an arrow from handle to target, 0 beyond `reach`, smoothly between; all in pixels."""
    ways = targets - handles
    along = ((places[:, None] - handles) * ways).sum(-1) / ways.square().sum(-1)
    nearest = handles + along.clamp(0, 1)[..., None] * ways
    distance = (places[:, None] - nearest).norm(dim=-1).amin(1)
    outward = ((distance - core) / (reach - core)).clamp(0, 1)
    return 1 - outward.square() * (3 - 2 * outward)


def _move_piece(region: Region, size: tuple[int, int], config: Warp, depth: Tensor | None) -> Move:
    matter = Matter(pixel_middles(size)[region.mask], depth)

    def make(parts: int) -> Backward:
        return after_another(backward_fields(region.before, region.after, config.field, matter, parts))

    back = _whole(make, lambda places: _is_in(region.mask, places), size, config.field)
    return Move(region.mask, _came_from(back, size).nan_to_num(nan=NOWHERE), leaves=True)


def _move_near(points: DragPoints, size: tuple[int, int], config: Warp, depth: Tensor | None) -> Move:
    """Everything near the arrows; `nearness` falls over twice the longest, enough for one not to fold the picture."""
    handles, targets, pins = (in_pixels(places, size) for places in (points.handles, points.targets, points.pins))
    before, after = torch.cat([handles, pins]), torch.cat([targets, pins])
    core = config.radius * min(size)
    reach = core + 2 * (targets - handles).norm(dim=-1).max().item()

    def near(places: Tensor) -> Tensor:
        return nearness(places, handles, targets, core, reach)

    some = grid_of(size).reshape(-1, 2)
    matter = Matter(some[near(some) > 0], depth)

    def make(parts: int) -> Backward:
        pieces = backward_fields(before, after, config.field, matter, parts)
        return after_another([faded_field(piece, near) for piece in pieces])

    came = _came_from(_whole(make, lambda places: near(places) > 0, size, config.field), size)
    return Move(torch.ones(size, dtype=torch.bool), torch.where(came.isnan(), pixel_middles(size), came), leaves=False)


def _whole(
    make: Callable[[int], Backward], moves: Callable[[Tensor], Tensor], size: tuple[int, int], field: Field
) -> Backward:
    return unfolded(make, moves, size) if field in SMOOTH else make(1)


def _came_from(back: Backward, size: tuple[int, int]) -> Tensor:
    """(H, W, 2). Of large pictures it is computed on a grid, between whose places a field is taken for straight."""
    stride = math.ceil(math.sqrt(size[0] * size[1] / MOST_PLACES))
    nodes = tuple(math.ceil((side - 1) / stride) + 1 for side in size)
    places = (pixel_middles((nodes[0], nodes[1])) - 0.5) * stride + 0.5
    came = torch.cat([back(strip) for strip in places.reshape(-1, 2).split(STRIP)]).reshape(*nodes, 2)
    if stride == 1:
        return came
    between = [stride * (count - 1) + 1 for count in nodes]
    fine = interpolate(came.movedim(-1, 0)[None], between, mode="bilinear", align_corners=True)
    return fine[0].movedim(0, -1)[: size[0], : size[1]]


def _is_in(piece: Tensor, places: Tensor) -> Tensor:
    """Whether places (P, 2) are in a piece (H, W)."""
    height, width = piece.shape
    x, y = places.nan_to_num(nan=-1.0).floor().long().unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return inside & piece[y.clamp(0, height - 1), x.clamp(0, width - 1)]


def _name(number: int, pairs: int) -> str:
    return f"pair {number + 1}" if number < pairs else f"pin {number - pairs + 1}"
