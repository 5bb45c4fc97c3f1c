"""Spherical interpolation of latents (Shoemake 1985; DiffMorpher, section 3.2)."""

import torch
from torch import Tensor

from ..crop import checked_cells
from ..errors import InvalidInput
from .alphas import Alphas

NEARLY_PARALLEL = 0.9995  # cosine above which the arc is a line, as in the published code


def slerp(start: Tensor, end: Tensor, alphas: Alphas, mask: Tensor | None = None) -> Tensor:
    """One latent between `start` and `end` for each alpha, along the great arc of the flattened latents.

    start, end: (1, C, ...) or, where an end differs from frame to frame, (F, C, ...), of any rank. Returns (F, C, ...)
    in their dtype; the arithmetic is in float64. Nearly parallel latents are interpolated linearly. mask: (1, 1, h, w)
    in 0..1, each cell's share of alpha, along the same arc: 0 is `start`, exactly, and 1 what no mask gives. Raises
    `InvalidInput` for different shapes, for a zero latent and for opposite latents, between which no arc is shortest.
    """
    rows = (1, len(alphas))
    if start.shape[1:] != end.shape[1:] or start.ndim < 4 or len(start) not in rows or len(end) not in rows:
        raise InvalidInput(
            f"slerp needs two latents of the same shape (1, C, H, W), or with a row for each of the {len(alphas)} "
            f"alphas, got {tuple(start.shape)} and {tuple(end.shape)}"
        )
    a, b = start.double(), end.double()
    lengths = a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1)
    cosine = (a * b).flatten(1).sum(1) / lengths
    if not torch.isfinite(cosine).all() or (cosine <= -NEARLY_PARALLEL).any():
        reason = "are opposite" if (cosine <= -NEARLY_PARALLEL).any() else "must be finite and not all zero"
        raise InvalidInput(f"no arc leads from start to end: they {reason}; connect two noises from DDIM inversion")
    alpha = torch.tensor(alphas, dtype=torch.float64, device=a.device).reshape(-1, *[1] * (a.ndim - 1))
    cosine = cosine.reshape(-1, *[1] * (a.ndim - 1))
    if mask is None:
        return _on_arc(a, b, alpha, cosine).to(start.dtype)
    share = checked_cells(mask, start).to(a)
    return torch.where(share == 0, a, _on_arc(a, b, alpha * share, cosine)).to(start.dtype)


def _on_arc(a: Tensor, b: Tensor, alpha: Tensor, cosine: Tensor) -> Tensor:
    line = (1 - alpha) * a + alpha * b
    angle = cosine.clamp(max=NEARLY_PARALLEL).arccos()
    arc = (((1 - alpha) * angle).sin() * a + (alpha * angle).sin() * b) / angle.sin()
    return torch.where(cosine > NEARLY_PARALLEL, line, arc)
