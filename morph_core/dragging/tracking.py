"""Where a point of an image is in a changed image: nearest features, and what makes them move (DragDiffusion 3.3).

Points are (x, y) on a feature map's grid: (0, 0) is the middle of the first cell. They need not be integers.
"""

import torch
from torch import Tensor

from ..models.feature_map import FeatureMap

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
        places = handle + offsets
        distances = (features.around(handle[None], radius)[0] - one).abs().sum(-1)
        nearest = distances.where(features.covers(places), OUTSIDE).argmin(0, keepdim=True)
        tracked.append(places[nearest])
    return torch.cat(tracked)


def motion_loss(
    features: FeatureMap, handles: Tensor, steps: Tensor, reference: FeatureMap, origins: Tensor, radius: int
) -> Tensor:
    """How far each point's patch is from having moved: (N,) losses, (2r + 1)² times the mean absolute difference.

    features: with gradient. handles: (N, 2). steps: (N, 2), how far each patch should move now. reference, origins: the
    map and the places (N, 2) whose patches are to be found there; no gradient flows into them. With `features` and
    `handles` themselves as reference this is DragDiffusion's eq. 3, as its released code computes it; with the
    original's it is GoodDrag's objective (whose code has the factor (2r)²). Cells that are off the map in either place
    are left out.
    """
    offsets = window(radius, handles.device)  # (K, 2)
    wanted_at, found_at = origins[:, None] + offsets, (handles + steps)[:, None] + offsets  # (N, K, 2)
    with torch.no_grad():
        wanted = reference.around(origins, radius)  # (N, K, D)
    difference = (features.around(handles + steps, radius) - wanted).abs().mean(-1)
    counted = reference.covers(wanted_at) & features.covers(found_at)
    return len(offsets) * (difference * counted).sum(-1) / counted.sum(-1).clamp(min=1)
