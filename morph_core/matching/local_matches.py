"""What each place of an image is found at in the other, and how far that can be relied on.

After AlignMorph: the soft middle of what a place is sent to, near where most of it is sent; it counts where that is
sharp in both directions and leads back. Lengths there are of a grid of 64 cells; they are shares of the grid here.
Places are (x, y) in cells of the grid, (0, 0) the corner of the first.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dragging.backward import pixel_middles
from .bilinear import read_between

GRID = 64  # cells a side, that the lengths below are of
RADIUS = 4  # around the strongest place, in which a middle is taken
CYCLE, LONGEST_CYCLE = 4, 8  # ways back that are off by so much count less, and not at all
LEAST_SHARPNESS = 0.2


@dataclass(frozen=True)
class Found:
    """places: (h, w, 2), in the other image, of each cell's middle. reliability: (h, w) in 0..1."""

    places: Tensor
    reliability: Tensor


def find_both(plan: Tensor, size: tuple[int, int]) -> tuple[Found, Found]:
    """From the first image to the second and back. plan: (h·w, h·w), see `sinkhorn`. size: (h, w)."""
    places = [_soft_places(one, size) for one in (plan, plan.T)]
    sharp = [_sharpness(one, size) for one in (plan, plan.T)]
    there, back = (
        Found(places[way], _reliability(places[way], places[1 - way], sharp[way], sharp[1 - way])) for way in (0, 1)
    )
    return there, back


def cells_of(length: float, size: tuple[int, int]) -> float:
    """A length on a grid of `GRID` cells a side, on one whose longer side is that of `size`."""
    return length * max(size) / GRID


def _soft_places(plan: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of each row within the radius of its greatest entry; at the border of a window that is cut evenly."""
    height, width = size
    radius = max(1, round(cells_of(RADIUS, size)))
    steps = torch.arange(-radius, radius + 1)
    dy, dx = (part.reshape(-1) for part in torch.meshgrid(steps, steps, indexing="ij"))
    strongest = plan.argmax(1)[:, None]
    x, y = strongest % width, strongest // width
    is_near = (dx.abs() <= torch.minimum(x, width - 1 - x)) & (dy.abs() <= torch.minimum(y, height - 1 - y))
    cells = (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1)
    weights = plan.gather(1, cells) * is_near
    weights = weights / weights.sum(1, keepdim=True)
    middles = torch.stack([(weights * (x + dx)).sum(1), (weights * (y + dy)).sum(1)], dim=-1) + 0.5
    return middles.reshape(*size, 2)


def _sharpness(plan: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w), 0 where a row is even, 1 where it is one entry."""
    share = plan.amax(1) / plan.sum(1)
    return (1 + share.log() / math.log(plan.shape[1])).clamp(0, 1).reshape(size)


def _reliability(there: Tensor, back: Tensor, sharp: Tensor, sharp_back: Tensor) -> Tensor:
    size = (there.shape[0], there.shape[1])
    returned = read_between(back.movedim(-1, 0), there).movedim(0, -1)
    cycle = (returned - pixel_middles(size)).norm(dim=-1)
    sharp_there = read_between(sharp_back[None], there)[0]
    near = (-0.5 * (cycle / cells_of(CYCLE, size)).square()).exp()
    counts = (cycle <= cells_of(LONGEST_CYCLE, size)) & (torch.minimum(sharp, sharp_there) >= LEAST_SHARPNESS)
    return sharp * sharp_there * near * counts
