"""Features of an image, as a map that is read around points."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


@dataclass(frozen=True)
class Patches:
    """Squares of K = (2r + 1)² places, a cell apart and row by row.

    features: (N, K, D). on_map: (N, K), whether each place is on the map.
    """

    features: Tensor
    on_map: Tensor


@dataclass(frozen=True)
class FeatureMap:
    """A network's features (1, D, h, w), resized bilinearly to a map of `size` (H, W) cells, but only where it is read.

    Points are (x, y) in cells of the map: (0, 0) is the middle of the first. They need not be integers; between cells
    the map is bilinear, outside it has the border's features.
    """

    values: Tensor
    size: tuple[int, int]

    def at(self, points: Tensor) -> Tensor:
        """Features at points: (..., 2) to (..., D)."""
        return self.around(points.reshape(-1, 2), 0).features.reshape(*points.shape[:-1], -1)

    def around(self, points: Tensor, radius: int) -> Patches:
        """The patch around each of the points (N, 2)."""
        (x, y), (height, width) = points.to(self.values).unbind(-1), self.size
        steps = torch.arange(-radius, radius + 1, device=x.device)
        is_column, is_row = _is_between(x[:, None] + steps, width), _is_between(y[:, None] + steps, height)
        columns, rows = _cells(x, radius, width)[:, None], _cells(y, radius, height)[..., None]
        cells = torch.stack(torch.broadcast_tensors(columns, rows), dim=-1)  # (N, K, K, 2) with K = 2r + 2
        found = grid_sample(self.values, cells.flatten(0, 1)[None], padding_mode="border", align_corners=False)
        found = found[0].unflatten(1, cells.shape[:2])  # (D, N, K, K)
        found = torch.lerp(found[..., :-1], found[..., 1:], (x - x.floor())[:, None, None])
        found = torch.lerp(found[..., :-1, :], found[..., 1:, :], (y - y.floor())[:, None, None])
        return Patches(found.flatten(2).permute(1, 2, 0), (is_row[..., None] & is_column[:, None]).flatten(1))


def _is_between(places: Tensor, cells: int) -> Tensor:
    return (places >= 0) & (places <= cells - 1)


def _cells(places: Tensor, radius: int, cells: int) -> Tensor:
    """The cells before and behind what is read along an axis, as shares −1..1 of it: (N,) to (N, 2r + 2)."""
    found = places.floor()[:, None] + torch.arange(-radius, radius + 2, device=places.device)
    return (2 * found.clamp(0, cells - 1) + 1) / cells - 1
