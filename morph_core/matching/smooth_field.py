"""A field that follows uncertain matches: an affine map and, where matches agree, a smooth rest, without folds.

After AlignMorph. Places are (x, y) in cells of the grid, (0, 0) the corner of the first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..dragging.backward import pixel_middles
from ..errors import InvalidInput
from .bilinear import read_between
from .local_matches import Found, cells_of

ANCHORS = 0.35  # share of the matches, the most reliable, that the affine map is fitted to
LEAST_SHARE = 0.04  # of the places, that must have been found
ROUNDS, HUBER = 6, 2.5  # of reweighted least squares; matches farther off by so much count as much, not more
SMOOTHING, RIDGE = 9, 0.03  # deviation of the Gaussian; density of matches below which the rest is doubted
AGREE, LEAST_AGREEMENT = 4, 0.4  # a match agrees with a field that leads so near to it; share of matches that must
LEAST_JACOBIAN = 0.1
SHRINK, SMALLEST = 0.8, 1e-3
NOTHING = "the images have too little in common to match their layouts"
ADVICE = "morph them without matched layouts"


@dataclass(frozen=True)
class Anchors:
    """start, end: (M, 2), places that belong together. weights: (M,) in 0..1."""

    start: Tensor
    end: Tensor
    weights: Tensor

    def best(self, share: float) -> "Anchors":
        """The most reliable ones that have any weight, at most this share of all."""
        count = min(round(share * len(self.weights)), int((self.weights > 0).sum()))
        chosen = self.weights.topk(count).indices
        return Anchors(self.start[chosen], self.end[chosen], self.weights[chosen])


def anchors_of(there: Found, back: Found) -> Anchors:
    """The matches of both directions. Raises `InvalidInput` where too few are reliable for a layout to be told."""
    size = (there.places.shape[0], there.places.shape[1])
    own = pixel_middles(size).reshape(-1, 2)
    found = [way.reliability.reshape(-1) for way in (there, back)]
    share = min(((reliability > 0).double().mean().item()) for reliability in found)
    if share < LEAST_SHARE:
        raise InvalidInput(
            f"{NOTHING}: of one, {share:.1%} of the places were found in the other, {LEAST_SHARE:.0%} are needed; "
            f"{ADVICE}"
        )
    return Anchors(
        torch.cat([own, back.places.reshape(-1, 2)]), torch.cat([there.places.reshape(-1, 2), own]), torch.cat(found)
    )


def robust_affine(anchors: Anchors, tolerance: float) -> Tensor:
    """(2, 3), the affine map from start to end of least Huber loss, weighted; places (x, y, 1) are multiplied by it.

    tolerance: the distance from which a match counts as an outlier. Iteratively reweighted least squares.
    """
    places, weights = pad(anchors.start, (0, 1), value=1.0), anchors.weights
    affine = torch.eye(2, 3, dtype=places.dtype)
    for _ in range(ROUNDS):
        root = weights.sqrt()[:, None]
        affine = torch.linalg.lstsq(root * places, root * anchors.end, driver="gelsd").solution.T
        off = (anchors.end - moved_by(affine, anchors.start)).norm(dim=-1)
        weights = anchors.weights * (tolerance / off.clamp(min=tolerance))
    return affine


def moved_by(affine: Tensor, places: Tensor) -> Tensor:
    """places (..., 2) through an affine map (2, 3)."""
    return places @ affine[:, :2].T + affine[:, 2]


def smooth_rest(anchors: Anchors, affine: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w, 2), what an affine map leaves of matches, averaged around each cell's middle; nothing where none are."""
    sigma = cells_of(SMOOTHING, size)
    places = pixel_middles(size).reshape(-1, 2)
    near = (-0.5 * (torch.cdist(places, anchors.start) / sigma).square()).exp() * anchors.weights
    density = near.sum(1, keepdim=True) / (2 * torch.pi * sigma**2)
    rest = near @ (anchors.end - moved_by(affine, anchors.start)) / near.sum(1, keepdim=True).clamp(min=1e-12)
    return (rest * density / (density + RIDGE)).reshape(*size, 2)


def check_agreement(anchors: Anchors, affine: Tensor, rest: Tensor) -> None:
    """Raise `InvalidInput` where most matches are far from any smooth field: they are chance."""
    size = (rest.shape[0], rest.shape[1])
    wanted = moved_by(affine, anchors.start) + read_between(rest.movedim(-1, 0), anchors.start).mT
    agree = (wanted - anchors.end).norm(dim=-1) <= cells_of(AGREE, size)
    share = ((anchors.weights * agree).sum() / anchors.weights.sum()).item()
    if share < LEAST_AGREEMENT:
        raise InvalidInput(
            f"{NOTHING}: {share:.0%} of the matches agree with those around them, {LEAST_AGREEMENT:.0%} are needed; "
            f"{ADVICE}"
        )


def unfolded_rest(affine: Tensor, rest: Tensor) -> Tensor:
    """The rest, made smaller until no part of the way folds: see `least_jacobian`.

    Raises `InvalidInput` where the affine map alone folds: the images are mirrored, or turned too far.
    """
    least = least_jacobian(affine, torch.zeros_like(rest))
    if least < LEAST_JACOBIAN:
        raise InvalidInput(
            "the images' layouts cannot be led into one another without a fold: one is mirrored, turned by a half or "
            f"as if seen from the side (least Jacobian {least:.2f}); mirror or turn it, or morph without matched "
            "layouts"
        )
    while least_jacobian(affine, rest) < LEAST_JACOBIAN:
        rest = rest * SHRINK if rest.abs().max() > SMALLEST else torch.zeros_like(rest)
    return rest


def least_jacobian(affine: Tensor, rest: Tensor) -> float:
    """The least Jacobian determinant of p + a·(affine(p) + rest(p) − p), over all a in 0..1 and all places p.

    rest: (h, w, 2), bilinear between the middles of cells, where the determinant is least at corners.
    """
    size = (rest.shape[0], rest.shape[1])
    moves = moved_by(affine, pixel_middles(size)) + rest - pixel_middles(size)
    across, down = moves[:, 1:] - moves[:, :-1], moves[1:] - moves[:-1]
    least = 1.0
    for dx in (across[:-1], across[1:]):
        for dy in (down[:, :-1], down[:, 1:]):
            trace = dx[..., 0] + dy[..., 1]
            product = dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0]
            turning = torch.where(product > 0, (-trace / (2 * product)).clamp(0, 1), 1.0)  # where in a it is least
            for a in (torch.ones_like(turning), turning):
                least = min(least, (1 + a * trace + a.square() * product).amin().item())
    return least
