"""Where a point of an image is in a changed image: nearest features, and what makes them move (DragDiffusion 3.3).

Points are (x, y) on a feature map's grid: (0, 0) is the middle of the first cell. They need not be integers.
"""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

OUTSIDE = float("inf")


def sample_bilinear(features: Tensor, points: Tensor) -> Tensor:
    """Features at points: (1, D, H, W) and (..., 2) as (x, y) to (..., D). Outside the map the border's."""
    last = torch.tensor(features.shape[:1:-1], device=features.device) - 1  # (W − 1, H − 1)
    grid = (2 * points.to(features) / last.clamp(min=1) - 1).reshape(1, 1, -1, 2)
    values = grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=True)  # (1, D, 1, n)
    return values[0, :, 0].T.reshape(*points.shape[:-1], -1)


def window(radius: int) -> Tensor:
    """Offsets of a square's cells from its middle, row by row: ((2r + 1)², 2) as (x, y)."""
    steps = torch.arange(-radius, radius + 1)
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2)


def is_on_map(points: Tensor, features: Tensor) -> Tensor:
    """Whether each of the points (..., 2) lies on the map (1, D, H, W): (...)."""
    last = torch.tensor(features.shape[:1:-1], device=points.device) - 1
    return ((points >= 0) & (points <= last)).all(-1)


@torch.no_grad()
def track_points(before: Tensor, after: Tensor, handles: Tensor, origins: Tensor, radius: int) -> Tensor:
    """The place near each handle whose features are nearest (L1) to those its origin had: (N, 2).

    before, after: features (1, D, H, W) of the original and of the changed latent. handles: (N, 2) where the points
    were last seen. origins: (N, 2) where they were in the original. radius: of the square that is searched, in cells;
    places off the map are left out. Eq. 5 of the paper.
    """
    tracked = []
    for handle, wanted in zip(handles, sample_bilinear(before, origins), strict=True):
        places = handle + window(radius).to(handles)
        distances = (sample_bilinear(after, places) - wanted).abs().sum(-1)
        distances[~is_on_map(places, after)] = OUTSIDE
        tracked.append(places[distances.argmin()])
    return torch.stack(tracked)


def motion_loss(
    features: Tensor, handles: Tensor, steps: Tensor, reference: Tensor, origins: Tensor, radius: int
) -> Tensor:
    """How far each point's patch is from having moved: (N,) losses, (2r + 1)² times the mean absolute difference.

    features: (1, D, H, W), with gradient. handles: (N, 2). steps: (N, 2), how far each patch should move now.
    reference, origins: the map and the places (N, 2) whose patches are to be found there; no gradient flows into
    them. With `features` and `handles` themselves as reference this is DragDiffusion's eq. 3, as its released code
    computes it; with the original's it is GoodDrag's objective (whose code has the factor (2r)²). Cells that are
    off the map in either place are left out.
    """
    offsets = window(radius).to(handles)  # (K, 2)
    wanted_at, found_at = origins[:, None] + offsets, (handles + steps)[:, None] + offsets  # (N, K, 2)
    wanted = sample_bilinear(reference, wanted_at).detach()  # (N, K, D)
    difference = (sample_bilinear(features, found_at) - wanted).abs().mean(-1)
    counted = is_on_map(wanted_at, reference) & is_on_map(found_at, features)
    return len(offsets) * (difference * counted).sum(-1) / counted.sum(-1).clamp(min=1)
