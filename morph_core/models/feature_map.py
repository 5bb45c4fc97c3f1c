"""Features of an image, as a map that is read around points."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


@dataclass(frozen=True)
class FeatureMap:
    """A network's features (1, D, h, w), resized bilinearly to a map of `size` (H, W) cells, but only where it is read.

    Points are (x, y) in cells of the map: (0, 0) is the middle of the first. They need not be integers; between cells
    the map is bilinear, outside it has the border's values.
    """

    values: Tensor
    size: tuple[int, int]

    def at(self, points: Tensor) -> Tensor:
        """Features at points: (..., 2) to (..., D)."""
        return self.around(points.reshape(-1, 2), 0).reshape(*points.shape[:-1], -1)

    def around(self, points: Tensor, radius: int) -> Tensor:
        """Features in a square of points around each point, a cell apart, row by row: (N, 2) to (N, (2r + 1)², D)."""
        points = points.to(self.values)
        first = points.floor()
        cells = first[..., None] + torch.arange(-radius, radius + 2, device=first.device)  # (N, 2, K), one more a side
        (columns, rows), (height, width) = cells.unbind(1), self.size
        x = (2 * columns.clamp(0, width - 1) + 1) / width - 1  # −1..1 is the image, whatever its cells
        y = (2 * rows.clamp(0, height - 1) + 1) / height - 1
        places = torch.stack(torch.broadcast_tensors(x[:, None], y[..., None]), dim=-1)  # (N, K, K, 2)
        found = grid_sample(self.values, places.flatten(0, 1)[None], padding_mode="border", align_corners=False)
        found = found[0].unflatten(1, places.shape[:2])  # (D, N, K, K)
        share = (points - first)[..., None, None]  # (N, 2, 1, 1)
        found = torch.lerp(found[..., :-1], found[..., 1:], share[:, 0])
        found = torch.lerp(found[..., :-1, :], found[..., 1:, :], share[:, 1])
        return found.flatten(2).permute(1, 2, 0)

    def covers(self, points: Tensor) -> Tensor:
        """Whether each of the points (..., 2) lies on the map: (...)."""
        (x, y), (height, width) = points.unbind(-1), self.size
        return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
