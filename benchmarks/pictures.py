"""Pictures compared, and laid side by side."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

EXACT = 100.0  # dB: a hundred-thousandth of the range
SAME = 0.02  # pixels that differ by less look the same
LEAST_ERROR = 1e-12  # so that no PSNR is infinite


def psnr(a: Tensor, b: Tensor, where: Tensor | None = None) -> Tensor:
    """(B,) in dB, of pictures (B, 3, H, W) in 0..1. where: (B, 1, H, W), 1 for the pixels that count, else 0."""
    errors = (a - b).square().mean(1, keepdim=True)
    weights = torch.ones_like(errors) if where is None else where
    mean = (errors * weights).flatten(1).sum(1) / weights.flatten(1).sum(1)
    return -10 * torch.log10(mean.clamp(min=LEAST_ERROR))


def differing(a: Tensor, b: Tensor) -> Tensor:
    """(B, 1, H, W), 1 for the pixels of two pictures (B, 3, H, W) in 0..1 that do not look the same, else 0."""
    return ((a - b).abs().amax(1, keepdim=True) > SAME).float()


def decibels(value: float, digits: int = 1) -> str:
    """A PSNR as tables have it."""
    return "exact" if value >= EXACT else f"{value:.{digits}f} dB"


def sheet(pictures: Tensor, path: Path, columns: int = 16) -> None:
    """Save (B, 3, H, W) in 0..1 as one picture, in whole rows; makes its folder."""
    rows, side = len(pictures) // columns, pictures.shape[-1]
    tiles = pictures[: rows * columns].reshape(rows, columns, 3, side, side).permute(0, 3, 1, 4, 2)
    pixels = (tiles.reshape(rows * side, columns * side, 3) * 255).round().byte().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((columns * side * 2, rows * side * 2), Image.Resampling.BICUBIC).save(path)
