"""The ways of dragged handles, drawn on the picture."""

import colorsys
import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

LEAST_SIDE = 512  # pixels of the longer side; smaller pictures are enlarged so that the marks can be told apart
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def colour_of(number: int) -> tuple[int, int, int]:
    """The number-th pair's colour, far in hue from its neighbours'."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + number * GOLDEN_RATIO) % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_paths(image: Tensor, tracks: Tensor, targets: Tensor) -> Image.Image:
    """A picture with each handle's way so far and its target.

    image: (H, W, 3) in 0..1. tracks: (I, N, 2), targets: (N, 2), in pixels of the image. A disc is where the handle
    is now, a small one where it began, a cross is its target.
    """
    height, width = image.shape[:2]
    scale = max(1.0, LEAST_SIDE / max(height, width))
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
    picture = Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    unit = max(picture.size) / LEAST_SIDE  # so that marks look alike on pictures of any size
    for number, target in enumerate((targets * scale).tolist()):
        way = [tuple(place) for place in (tracks[:, number] * scale).tolist()]
        _mark(draw, way, tuple(target), colour_of(number), unit)
    return picture


def _mark(
    draw: ImageDraw.ImageDraw,
    way: list[tuple[float, ...]],
    target: tuple[float, ...],
    colour: tuple[int, int, int],
    unit: float,
) -> None:
    arm = 7 * unit
    cross = [[(target[0] - arm, target[1] + sign * arm), (target[0] + arm, target[1] - sign * arm)] for sign in (-1, 1)]
    for ink, width in (("white", 5 * unit), (colour, 2.5 * unit)):  # a white rim, to be seen on any ground
        for line in (way, *cross):
            draw.line(line, fill=ink, width=max(1, round(width)))  # type: ignore[arg-type]
    for (x, y), radius in ((way[0], 4 * unit), (way[-1], 7 * unit)):
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=colour,
            outline="white",
            width=max(1, round(unit * 1.5)),
        )


def as_image(picture: Image.Image) -> Tensor:
    """A picture as (1, H, W, 3) in 0..1."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
