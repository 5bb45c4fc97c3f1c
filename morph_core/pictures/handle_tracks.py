"""The tracks of dragged handles, drawn on the picture."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

LEAST_SIDE = 512  # pixels of the longer side; smaller pictures are enlarged so that the marks can be told apart
GOLDEN_ANGLE = 137.508  # degrees
LIGHTNESS, CHROMA, FIRST_HUE = 0.8, 0.16, 215.0  # OKLCH
OKLAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def colour_of(number: int) -> tuple[int, int, int]:
    """The number-th pair's colour, as in the point picker: equally light, far in hue from its neighbours'.

    From OKLCH to sRGB after Ottosson (2020).
    """
    hue = math.radians(round(FIRST_HUE + number * GOLDEN_ANGLE) % 360)
    lab = np.array([LIGHTNESS, CHROMA * math.cos(hue), CHROMA * math.sin(hue)])
    linear = (LMS_TO_RGB @ (OKLAB_TO_LMS @ lab) ** 3).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (255 * encoded).round().astype(int).tolist()
    return red, green, blue


def draw_paths(image: Tensor, tracks: Tensor, targets: Tensor) -> Image.Image:
    """A picture with each handle's track so far and its target.

    image: (H, W, 3) in 0..1. tracks: (I, N, 2), targets: (N, 2), in pixels of the image. A disc is where the handle
    is now, a small one where it began, a cross is its target.
    """
    picture = enlarged(image)
    scale = enlargement(image)
    draw = ImageDraw.Draw(picture)
    unit = max(picture.size) / LEAST_SIDE  # so that marks look alike on pictures of any size
    for number, target in enumerate((targets * scale).tolist()):
        track = [tuple(place) for place in (tracks[:, number] * scale).tolist()]
        _mark(draw, track, tuple(target), colour_of(number), unit)
    return picture


def enlargement(image: Tensor) -> float:
    """By how much a picture (H, W, 3) is enlarged for marks to be told apart."""
    return max(1.0, LEAST_SIDE / max(image.shape[:2]))


def enlarged(image: Tensor) -> Image.Image:
    """A picture (H, W, 3) in 0..1, large enough to be drawn on."""
    (height, width), scale = image.shape[:2], enlargement(image)
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().byte().numpy()
    return Image.fromarray(pixels).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)


def _mark(
    draw: ImageDraw.ImageDraw,
    track: list[tuple[float, ...]],
    target: tuple[float, ...],
    colour: tuple[int, int, int],
    unit: float,
) -> None:
    arm = 7 * unit
    cross = [[(target[0] - arm, target[1] + sign * arm), (target[0] + arm, target[1] - sign * arm)] for sign in (-1, 1)]
    for ink, width in (("white", 5 * unit), (colour, 2.5 * unit)):  # a white rim, to be seen on any ground
        for line in (track, *cross):
            draw.line(line, fill=ink, width=max(1, round(width)))  # type: ignore[arg-type]
    for (x, y), radius in ((track[0], 4 * unit), (track[-1], 7 * unit)):
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius),
            fill=colour,
            outline="white",
            width=max(1, round(unit * 1.5)),
        )


def as_image(picture: Image.Image) -> Tensor:
    """A picture as (1, H, W, 3) in 0..1."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
