"""Adaptive instance normalisation (Huang & Belongie 2017) between two images' statistics (DiffMorpher, 3.4)."""

import torch
from torch import Tensor
from torch.nn.functional import instance_norm

from ..crop import checked_cells
from ..errors import InvalidInput
from .alphas import Alphas

EPSILON = 1e-5


def channel_stats(x: Tensor, share: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel: (B, C, ...) to two of (B, C, 1, ...), in float32.

    share: each cell's weight, of x's axes; the deviation is biased then. None: all alike, unbiased.
    """
    if share is None:
        variance, mean = torch.var_mean(x.float(), dim=tuple(range(2, x.ndim)), keepdim=True)
        return mean, (variance + EPSILON).sqrt()
    axes = tuple(range(2, x.ndim))
    weights = share.expand(1, 1, *x.shape[2:])
    weights = weights / weights.sum().clamp(min=EPSILON)  # of no cell at all: 0
    mean = (weights * x.float()).sum(axes, keepdim=True)
    return mean, ((weights * (x.float() - mean).square()).sum(axes, keepdim=True) + EPSILON).sqrt()


def adain(
    frames: Tensor, start: Tensor, end: Tensor, alphas: Alphas, strength: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Give each frame the channel statistics that lie its alpha of the way from `start` to `end`.

    frames: (F, C, ...), of any rank. start, end: (1, C, ...). strength: 0 leaves the frames as they are, 1 is AdaIN.
    As published, the frames are divided by their biased deviation and multiplied by the ends' unbiased one, so even
    an end's own statistics change by sqrt(n/(n - 1)) for n cells. Returns the
    frames' shape and dtype.

    mask: (1, 1, h, w) in 0..1, of a morph of a part. Statistics, the frames' and the ends', are then those of that
    part, each cell weighted by it, and a cell is changed by its share of the mask: those of the whole would be mostly
    of what must not change, and to give them to a frame would change that. Deviations are all biased then, so that an
    end keeps its own. A mask of ones is none. Raises `InvalidInput` when the shapes do not fit.
    """
    if len(frames) != len(alphas):
        raise InvalidInput(f"{len(alphas)} alphas need as many frames, got {len(frames)}")
    if start.shape != end.shape or start.shape != frames[:1].shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (frames, start, end))
        raise InvalidInput(f"frames, start and end must have the same channels and size, got {shapes}")
    if frames.shape[2:].numel() < 2:
        raise InvalidInput("frames, start and end have one cell only, which has no deviation; use larger images")
    alpha = torch.tensor(alphas, dtype=torch.float32, device=frames.device).reshape(-1, *[1] * (frames.ndim - 1))
    share = None if mask is None or bool((mask == 1).all()) else checked_cells(mask, frames).to(alpha)
    (mean_0, std_0), (mean_1, std_1) = channel_stats(start, share), channel_stats(end, share)
    mean, std = torch.lerp(mean_0, mean_1, alpha), torch.lerp(std_0, std_1, alpha)
    if share is None:
        styled = instance_norm(frames.float(), eps=EPSILON) * std + mean
        return torch.lerp(frames.float(), styled, strength).to(frames.dtype)
    own_mean, own_std = channel_stats(frames, share)
    styled = (frames.float() - own_mean) / own_std * std + mean
    return torch.lerp(frames.float(), styled, strength * share).to(frames.dtype)
