"""Two pictures side by side, with dots of one colour where their layouts belong together."""

import math

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..matching.matches import Matches
from .handle_tracks import LEAST_SIDE, enlarged

DOTS = 12  # along the longer side
LEAST_RELIABILITY = 0.15
GAP = 8  # pixels between the pictures
INK = (60, 60, 66)


def draw_matches(start: Tensor, end: Tensor, matches: Matches) -> Image.Image:
    """The start picture on the left and the end picture on the right; a dot's colour tells its place in the start.

    start, end: (H, W, 3) in 0..1, of one size. Dots stand on a grid of the start picture, where it was found in the
    end picture reliably; a thin line joins each with its match.
    """
    pictures = [enlarged(picture) for picture in (start, end)]
    width, height = pictures[0].size
    canvas = Image.new("RGB", (2 * width + GAP, height), "white")
    for left, picture in zip((0, width + GAP), pictures, strict=True):
        canvas.paste(picture, (left, 0))
    draw, unit = ImageDraw.Draw(canvas), max(width, height) / LEAST_SIDE
    for (x, y), (u, v) in _shares(matches).tolist():
        ends = (x * width, y * height), (width + GAP + u * width, v * height)
        draw.line(ends, fill=INK, width=1)
    for (x, y), (u, v) in _shares(matches).tolist():
        colour = (round(255 * x), round(255 * y), round(255 * (1 - (x + y) / 2)))
        for dx, dy in ((x * width, y * height), (width + GAP + u * width, v * height)):
            radius = 6 * unit
            box = (dx - radius, dy - radius, dx + radius, dy + radius)
            draw.ellipse(box, fill=colour, outline="white", width=max(1, round(1.5 * unit)))
    return canvas


def _shares(matches: Matches) -> Tensor:
    """(M, 2, 2), pairs of places as shares of the pictures' sides."""
    height, width = matches.size
    stride = math.ceil(max(height, width) / DOTS)
    sides = torch.tensor([width, height], dtype=torch.float64)
    rows, columns = torch.meshgrid(
        torch.arange(stride // 2, height, stride), torch.arange(stride // 2, width, stride), indexing="ij"
    )
    there = matches.start_to_end[rows, columns]
    here = torch.stack([columns, rows], dim=-1) + 0.5
    is_reliable = matches.start_reliability[rows, columns] >= LEAST_RELIABILITY
    return (torch.stack([here, there], dim=2) / sides)[is_reliable]
