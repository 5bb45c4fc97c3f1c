"""Values between the cells of a grid."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bilinear:
    """Bilinear reading at places. cells: (4, *P), indices of the cells around each place. weights: (4, *P), of sum 1.

    A place at a cell's middle has one weight of exactly 1, so that what stays where it is stays as it is. Beyond the
    middles of the border's cells the border is read.
    """

    cells: Tensor
    weights: Tensor

    @staticmethod
    def at(places: Tensor, size: tuple[int, int]) -> "Bilinear":
        """places: (*P, 2) as (x, y) in cells, (0, 0) the corner of the first. size: (h, w) of the grid."""
        (height, width), (x, y) = size, (places.double() - 0.5).unbind(-1)
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
        left, top = x.floor(), y.floor()
        columns = (left.long(), (left.long() + 1).clamp(max=width - 1))
        rows = (top.long(), (top.long() + 1).clamp(max=height - 1))
        across, down = ((1 - (x - left), x - left), (1 - (y - top), y - top))
        corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
        return Bilinear(
            torch.stack([rows[j] * width + columns[i] for j, i in corners]),
            torch.stack([down[j] * across[i] for j, i in corners]),
        )

    def read(self, values: Tensor) -> Tensor:
        """(..., h·w) to (..., *P)."""
        parts = [
            weights.to(values) * values[..., cells] for cells, weights in zip(self.cells, self.weights, strict=True)
        ]
        return sum(parts[1:], parts[0])

    def to(self, device: torch.device) -> "Bilinear":
        """On another device, in float32 there, which not all of them have more than."""
        return Bilinear(self.cells.to(device), self.weights.float().to(device))

    def variance(self) -> Tensor:
        """(*P), that of white noise read there, of variance 1 at cells: the sum of squared weights."""
        return self.weights.square().sum(0)


def read_between(values: Tensor, places: Tensor) -> Tensor:
    """values (C, h, w) at places (*P, 2): (C, *P); see `Bilinear`."""
    return Bilinear.at(places, (values.shape[-2], values.shape[-1])).read(values.flatten(1))
