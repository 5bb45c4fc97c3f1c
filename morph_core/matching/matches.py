"""Where the places of two images' layouts belong: found by features, and led over from one to the other by alpha."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..dragging.backward import pixel_middles
from ..errors import InvalidInput
from ..morphing.alphas import Alphas
from .bilinear import read_between
from .local_matches import find_both
from .smooth_field import (
    ANCHORS,
    agreeing,
    anchors_of,
    least_jacobian,
    moved_by,
    robust_affine,
    smooth_rest,
    unfolded_rest,
)
from .transport_plan import feature_cost, sinkhorn

ITERATIONS, CLOSE = 100, 1e-9  # of an inverse, and the change in cells when it is found


@dataclass(frozen=True)
class Matches:
    """The field from a first image's places to a second's: affine + rest. In cells of a grid (h, w), on the CPU.

    affine: (2, 3), see `robust_affine`. rest: (h, w, 2), of each cell's middle. start_reliability, end_reliability:
    (h, w) in 0..1, how far each place of either image was found in the other; places that were not follow the others.
    """

    affine: Tensor
    rest: Tensor
    start_reliability: Tensor
    end_reliability: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.rest.shape[0], self.rest.shape[1]

    @property
    def start_to_end(self) -> Tensor:
        """(h, w, 2), where in the end image each cell's middle of the start image belongs."""
        return moved_by(self.affine, pixel_middles(self.size)) + self.rest

    @property
    def end_to_start(self) -> Tensor:
        """(h, w, 2), the inverse."""
        return pixel_middles(self.size) - self.ways((1.0,))[0]

    @property
    def least_jacobian(self) -> float:
        """Above 0: nothing folds on any part of the way."""
        return least_jacobian(self.affine, self.rest)

    def scaled(self, strength: float) -> "Matches":
        """The field that leads only this share (0..1) of the way. Raises `InvalidInput` for another."""
        if not 0 <= strength <= 1:
            raise InvalidInput(f"strength must be between 0 and 1, got {strength}")
        identity = torch.eye(2, 3, dtype=self.affine.dtype)
        affine = identity + strength * (self.affine - identity)
        return replace(self, affine=affine, rest=strength * self.rest)

    def ways(self, alphas: Alphas, size: tuple[int, int] | None = None) -> Tensor:
        """(F, h, w, 2), of the middles of a frame's cells: the way from the start image's place to the end image's.

        What the start image has at p and the end image at p + way stands in the frame at q = p + alpha·way, so that
        at q the start image is seen from q − alpha·way and the end image from q + (1 − alpha)·way. size: of another
        grid (h, w) over the same picture, in whose cells the ways are then; None: their own.
        """
        size = size or self.size
        scale = torch.tensor([size[1] / self.size[1], size[0] / self.size[0]], dtype=self.rest.dtype)
        places = (pixel_middles(size) / scale).expand(len(alphas), *size, 2)
        alpha = torch.tensor(alphas, dtype=self.rest.dtype)[:, None, None, None]
        return self._ways(places, alpha) * scale

    def _ways(self, places: Tensor, alpha: Tensor) -> Tensor:
        """places: (F, h, w, 2), in frames. The fixed point of p = L⁻¹(q − alpha·rest(p)), L the affine map's part."""
        identity = torch.eye(2, 3, dtype=self.affine.dtype)
        move = self.affine - identity
        part = torch.linalg.inv(identity[:, :2] + alpha[..., 0, :, None] * move[:, :2])  # (F, 1, 2, 2)
        came = places
        for _ in range(ITERATIONS):
            rest = read_between(self.rest.movedim(-1, 0), came).movedim(0, -1)
            before, came = came, (places - alpha * (rest + move[:, 2])) @ part.mT
            if not (came - before).abs().gt(CLOSE).any():
                break
        return moved_by(move, came) + read_between(self.rest.movedim(-1, 0), came).movedim(0, -1)


def match_layouts(start: Tensor, end: Tensor, epsilon: float = 0.1, iterations: int = 100) -> Matches:
    """What belongs together of two images, by features (D, h, w) of both, see `descriptors`.

    epsilon, iterations: see `sinkhorn`. Raises `InvalidInput` where the images have too little in common, or their
    layouts are mirrored.
    """
    size = (start.shape[-2], start.shape[-1])
    there, back = find_both(sinkhorn(feature_cost(start, end), epsilon, iterations), size)
    anchors = anchors_of(there, back)
    affine = robust_affine(anchors.best(ANCHORS))
    rest = unfolded_rest(affine, smooth_rest(agreeing(anchors, affine), affine, size))
    return Matches(affine, rest, there.reliability, back.reliability)
