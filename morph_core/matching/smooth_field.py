"""A field that follows uncertain matches: an affine map and, where matches agree, a smooth rest, without folds.

After AlignMorph. Places are (x, y) in cells of the grid, (0, 0) the corner of the first.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..dragging.backward import pixel_middles
from ..errors import InvalidInput
from .local_matches import Found, cells_of

ANCHORS = 0.35  # share of the matches, the most reliable, that the affine map is fitted to
LEAST_SHARE = 0.04  # of the places, that must have been found
ROUNDS, WIDEST, NARROWEST = 12, 16, 2.5  # of reweighted least squares, and how far off a match is that counts less
SMOOTHING, RIDGE = 6, 0.03  # deviation of the Gaussian; density of matches below which the rest is doubted
AGREE, LEAST_AGREEMENT = 8, 0.3  # how far off a match is that hardly bends the rest; what must be left of all of them
LEAST_JACOBIAN = 0.1
SHRINK, SMALLEST = 0.8, 1e-3
NOTHING = "the images have too little in common to match their layouts"
ADVICE = "morph them without matched layouts"


@dataclass(frozen=True)
class Anchors:
    """start, end: (M, 2), places that belong together. weights: (M,) in 0..1. scale: cells of a grid of 64 in one."""

    start: Tensor
    end: Tensor
    weights: Tensor
    scale: float = 1.0

    def best(self, share: float) -> "Anchors":
        """The most reliable ones that have any weight, at most this share of all."""
        count = min(round(share * len(self.weights)), int((self.weights > 0).sum()))
        chosen = self.weights.topk(count).indices
        return Anchors(self.start[chosen], self.end[chosen], self.weights[chosen], self.scale)

    def near(self, affine: Tensor, distance: float) -> "Anchors":
        """The same, of less weight the farther they are off an affine map: a quarter at this distance."""
        off = (self.end - moved_by(affine, self.start)).norm(dim=-1)
        return replace(self, weights=self.weights / (1 + (off / distance).square()).square())


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
        torch.cat([own, back.places.reshape(-1, 2)]),
        torch.cat([there.places.reshape(-1, 2), own]),
        torch.cat(found),
        cells_of(1, size),
    )


def robust_affine(anchors: Anchors) -> Tensor:
    """(2, 3), the affine map that most anchors agree on; places (x, y, 1) are multiplied by it.

    Iteratively reweighted least squares of Geman and McClure's loss, whose scale falls from one at which all count to
    one at which those that are off hardly do (graduated non-convexity, Yang et al. 2020): a face in front of a ground
    that is found anywhere would be too few for Huber's loss.
    """
    places, weights = pad(anchors.start, (0, 1), value=1.0), anchors.weights
    affine = torch.eye(2, 3, dtype=places.dtype)
    for round_ in range(ROUNDS + 1):
        root = weights.sqrt()[:, None]
        affine = torch.linalg.lstsq(root * places, root * anchors.end, driver="gelsd").solution.T
        share = round_ / ROUNDS
        weights = anchors.near(affine, anchors.scale * WIDEST ** (1 - share) * NARROWEST**share).weights
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


def agreeing(anchors: Anchors, affine: Tensor) -> Anchors:
    """The anchors, of less weight the farther they are off an affine map.

    Raises `InvalidInput` where little weight is left: then what was found are chances.
    """
    near = anchors.near(affine, AGREE * anchors.scale)
    share = (near.weights.sum() / anchors.weights.sum()).item()
    if share < LEAST_AGREEMENT:
        raise InvalidInput(
            f"{NOTHING}: {share:.0%} of what was found agrees on where things moved, {LEAST_AGREEMENT:.0%} are "
            f"needed; {ADVICE}"
        )
    return near


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
