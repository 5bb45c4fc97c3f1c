"""What a warp moves, whereto, and what is pinned, drawn on the picture."""

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..dragging.points import DragPoints, in_pixels
from .handle_tracks import LEAST_SIDE, draw_paths

TINT = (60, 140, 255)
STRENGTH = 0.35


def draw_warp(image: Tensor, points: DragPoints, pieces: Tensor) -> Image.Image:
    """A picture with what moves tinted, an arrow's way for each pair as `draw_paths` has it, and a square for each pin.

    image: (H, W, 3) in 0..1. pieces: (H, W), bool.
    """
    size = (image.shape[0], image.shape[1])
    tint = image.new_tensor(TINT) / 255
    shown = torch.where(pieces.to(image.device)[..., None], torch.lerp(image, tint, STRENGTH), image)
    handles, targets, pins = (in_pixels(places.cpu(), size) for places in (points.handles, points.targets, points.pins))
    picture = draw_paths(shown, torch.stack([handles, targets]), targets)
    draw, scale, unit = ImageDraw.Draw(picture), max(picture.size) / max(size), max(picture.size) / LEAST_SIDE
    for x, y in (pins * scale).tolist():
        arm = 5 * unit
        draw.rectangle((x - arm, y - arm, x + arm, y + arm), "white", "black", max(1, round(1.5 * unit)))
    return picture
