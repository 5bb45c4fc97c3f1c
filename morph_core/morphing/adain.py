"""Adaptive instance normalisation (Huang & Belongie 2017) between two images' statistics (DiffMorpher, 3.4)."""

import torch
from torch import Tensor
from torch.nn.functional import instance_norm

from ..errors import InvalidInput
from .alphas import Alphas

EPSILON = 1e-5


def channel_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every channel: (B, C, ...) to two of (B, C, 1, ...), in float32."""
    variance, mean = torch.var_mean(x.float(), dim=tuple(range(2, x.ndim)), keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def adain(frames: Tensor, start: Tensor, end: Tensor, alphas: Alphas, strength: float = 1.0) -> Tensor:
    """Give each frame the channel statistics that lie its alpha of the way from `start` to `end`.

    frames: (F, C, ...), of any rank. start, end: (1, C, ...). strength: 0 leaves the frames as they are, 1 is AdaIN.
    As published, the frames are divided by their biased deviation and multiplied by the ends' unbiased one, so even
    an end's own statistics change by sqrt(n/(n - 1)) for n cells. Returns the
    frames' shape and dtype. Raises `InvalidInput` when the shapes do not fit.
    """
    if len(frames) != len(alphas):
        raise InvalidInput(f"{len(alphas)} alphas need as many frames, got {len(frames)}")
    if start.shape != end.shape or start.shape != frames[:1].shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (frames, start, end))
        raise InvalidInput(f"frames, start and end must have the same channels and size, got {shapes}")
    if frames.shape[2:].numel() < 2:
        raise InvalidInput("frames, start and end have one cell only, which has no deviation; use larger images")
    alpha = torch.tensor(alphas, dtype=torch.float32, device=frames.device).reshape(-1, *[1] * (frames.ndim - 1))
    (mean_0, std_0), (mean_1, std_1) = channel_stats(start), channel_stats(end)
    mean, std = torch.lerp(mean_0, mean_1, alpha), torch.lerp(std_0, std_1, alpha)
    styled = instance_norm(frames.float(), eps=EPSILON) * std + mean
    return torch.lerp(frames.float(), styled, strength).to(frames.dtype)
