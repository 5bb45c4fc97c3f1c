"""The parts of a mask that move each for itself, and the points that move them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput
from .points import DragPoints, in_pixels

NEAR = 1 / 32  # of the longer side, by which a handle may miss the part that it moves


@dataclass(frozen=True)
class Region:
    """A piece of a mask: (H, W), bool. handles, targets: (N, 2) and pins: (P, 2), those of its own, in pixels."""

    mask: Tensor
    handles: Tensor
    targets: Tensor
    pins: Tensor

    @property
    def before(self) -> Tensor:
        """(N + P, 2), handles and pins."""
        return torch.cat([self.handles, self.pins])

    @property
    def after(self) -> Tensor:
        """(N + P, 2), targets and pins."""
        return torch.cat([self.targets, self.pins])


def regions_of(mask: Tensor, points: DragPoints) -> list[Region]:
    """The pieces of a mask (H, W), bool, on the CPU, that have a handle; each is connected, also by its corners.

    A handle or a pin belongs to the piece that it is in, or to the nearest within `NEAR`; a pin that is in none has
    nothing to hold. Raises `InvalidInput` for a handle that belongs to none, and for a mask that is everything.
    """
    from scipy import ndimage

    if mask.all():
        raise InvalidInput(
            "mask is white everywhere, so that nothing says what stays; paint what is to move and no more"
        )
    labels, count = ndimage.label(mask.numpy(), structure=torch.ones(3, 3).numpy())
    size = height, width = (mask.shape[0], mask.shape[1])
    handles, targets, pins = (in_pixels(places, size) for places in (points.handles, points.targets, points.pins))
    reach = NEAR * max(size)
    distances, (rows, columns) = ndimage.distance_transform_edt(labels == 0, return_indices=True)

    def piece_at(places: Tensor) -> Tensor:
        """Numbers of pieces from 1 on, (N,); 0 for none."""
        found = []
        for x, y in places.tolist():
            row, column = min(int(y), height - 1), min(int(x), width - 1)
            nearest = labels[rows[row, column], columns[row, column]]
            found.append(int(nearest) if distances[row, column] <= reach else 0)
        return torch.tensor(found, dtype=torch.long)

    of_handles, of_pins = piece_at(handles), piece_at(pins)
    if (lost := of_handles == 0).any():
        raise InvalidInput(
            f"points: the handle of pair {int(lost.nonzero()[0]) + 1} is outside of the mask, which says what moves; "
            "paint over it, or move the handle"
        )
    pieces = torch.from_numpy(labels)
    return [
        Region(pieces == number, handles[mine], targets[mine], pins[of_pins == number])
        for number in range(1, count + 1)
        if (mine := of_handles == number).any()
    ]
