"""Where a point of an image is in a changed image: nearest features, and what makes them move (DragDiffusion 3.3).

Points are (x, y) on a feature map's grid: (0, 0) is the middle of the first cell. They need not be integers.
"""

import torch
from torch import Tensor

from ..models.feature_map import FeatureMap, Patches

OUTSIDE = float("inf")


def window(radius: int, device: torch.device | None = None) -> Tensor:
    """Offsets of a square's cells from its middle, row by row: ((2r + 1)², 2) as (x, y)."""
    steps = torch.arange(-radius, radius + 1, device=device)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2)


@torch.no_grad()
def track_points(wanted: Tensor, features: FeatureMap, handles: Tensor, radius: int) -> Tensor:
    """The place near each handle whose features are nearest (L1) to those that the point had: (N, 2).

    wanted: (N, D), of the original where each point was in it. features: of the changed latent. handles: (N, 2) where
    the points were last seen. radius: of the square that is searched, in cells; places off the map are left out. Eq. 5
    of the paper.
    """
    offsets, tracked = window(radius, handles.device), []
    for handle, one in zip(handles, wanted, strict=True):
        patch = features.around(handle[None], radius)
        distances = (patch.features[0] - one).abs().sum(-1)
        nearest = distances.where(patch.on_map[0], OUTSIDE).argmin(0, keepdim=True)
        tracked.append(handle + offsets[nearest])
    return torch.cat(tracked)


def motion_loss(features: FeatureMap, places: Tensor, wanted: Patches, radius: int) -> Tensor:
    """How far patches are from the wanted ones: (N,) losses, (2r + 1)² times the mean absolute difference.

    features: with gradient. places: (N, 2), where each patch should be, a step from its handle. wanted: of that radius;
    no gradient flows into them. With those of `features` at the handles themselves this is DragDiffusion's eq. 3, as
    its released code computes it; with the original's it is GoodDrag's objective (whose code has the factor (2r)²).
    Cells that are off the map in either place are left out.
    """
    found = features.around(places, radius)
    difference = (found.features - wanted.features.detach()).abs().mean(-1)  # (N, (2r + 1)²)
    counted = found.on_map & wanted.on_map
    return counted.shape[1] * (difference * counted).sum(-1) / counted.sum(-1).clamp(min=1)
