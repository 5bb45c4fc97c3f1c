"""Spherical interpolation of latents (Shoemake 1985; DiffMorpher, section 3.2)."""

import torch
from torch import Tensor

from ..errors import InvalidInput
from .alphas import Alphas

NEARLY_PARALLEL = 0.9995  # cosine above which the arc is a line, as in the published code


def slerp(start: Tensor, end: Tensor, alphas: Alphas) -> Tensor:
    """One latent between `start` and `end` for each alpha, along the great arc of the flattened latents.

    start, end: (1, C, ...) each, of any rank. Returns (F, C, ...) in their dtype; the arithmetic is in float64. Nearly
    parallel latents are interpolated linearly. Raises `InvalidInput` for different shapes, for a zero latent
    and for opposite latents, between which no arc is shortest.
    """
    if start.shape != end.shape or start.ndim < 4 or len(start) != 1:
        raise InvalidInput(
            f"slerp needs two latents of the same shape (1, C, H, W), got {tuple(start.shape)} and {tuple(end.shape)}"
        )
    a, b = start.double(), end.double()
    lengths = a.norm() * b.norm()
    cosine = (a * b).sum() / lengths
    if not torch.isfinite(cosine) or cosine <= -NEARLY_PARALLEL:
        reason = "are opposite" if cosine <= -NEARLY_PARALLEL else "must be finite and not all zero"
        raise InvalidInput(f"no arc leads from start to end: they {reason}; connect two noises from DDIM inversion")
    alpha = torch.tensor(alphas, dtype=torch.float64, device=a.device).reshape(-1, *[1] * (a.ndim - 1))
    if cosine > NEARLY_PARALLEL:
        return ((1 - alpha) * a + alpha * b).to(start.dtype)
    angle = cosine.arccos()
    mixed = ((1 - alpha) * angle).sin() * a + (alpha * angle).sin() * b
    return (mixed / angle.sin()).to(start.dtype)
