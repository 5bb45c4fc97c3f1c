"""A smooth field through control points that turns and moves, and so little as it can does anything else."""

import torch
from torch import Tensor

NEAREST = 1e-9  # squared distance in pixels below which a place is the control point
SMALLEST = 1e-12


def moving_least_squares(places: Tensor, controls: Tensor, images: Tensor, similar: bool = False) -> Tensor:
    """Where a deformation that takes each control point to its image takes places: (P, 2), in pixels, as all here.

    Schaefer et al. 2006, weights 1/distance². At every place it is the rigid transform, or with `similar` the
    similarity, that fits the control points best: with one point a translation, with several that turn together their
    turn. controls, images: (K, 2).
    """
    if len(controls) == 1:
        return places + (images - controls)
    weights = 1 / (places[:, None] - controls).square().sum(-1).clamp(min=NEAREST)  # (P, K)
    shares = weights / weights.sum(1, keepdim=True)
    middle, image_middle = shares @ controls, shares @ images
    from_middle, to_image = controls - middle[:, None], images - image_middle[:, None]  # (P, K, 2)
    along = (shares * (from_middle * to_image).sum(-1)).sum(1)
    across = (shares * _cross(from_middle, to_image)).sum(1)
    length = (shares * from_middle.square().sum(-1)).sum(1) if similar else torch.hypot(along, across)
    cosine, sine = (part / length.clamp(min=SMALLEST) for part in (along, across))
    x, y = (places - middle).unbind(-1)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y], dim=-1) + image_middle


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
