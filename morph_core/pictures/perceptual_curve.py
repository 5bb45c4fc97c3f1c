"""The perceptual path of a morph as a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..morphing.alphas import Alphas

SIZE = (640, 400)
MARGIN = (56, 40, 24, 48)  # left, top, right, bottom
INK, GRID, BEFORE, AFTER = (40, 40, 46), (222, 222, 228), (214, 110, 40), (40, 110, 200)


def plot_paths(alphas: Alphas, distances: Sequence[float], even: Alphas) -> Tensor:
    """Way travelled against frame, before and after rescheduling: (1, H, W, 3) in 0..1.

    alphas, distances: the F frames measured and the F − 1 distances between them. even: the new alphas. "After" is
    what the measured path predicts for them; a straight line is even.
    """
    travelled = np.concatenate([[0.0], np.cumsum(distances)])
    total = travelled[-1] or 1.0
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=13)
    left, top, right, bottom = MARGIN[0], MARGIN[1], SIZE[0] - MARGIN[2], SIZE[1] - MARGIN[3]

    def line(values: np.ndarray, colour: tuple[int, int, int]) -> None:
        xs = np.linspace(left, right, len(values))
        points = [(float(x), float(bottom - v * (bottom - top))) for x, v in zip(xs, values, strict=True)]
        draw.line(points, fill=colour, width=2)
        for x, y in points:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)

    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = left + share * (right - left), bottom - share * (bottom - top)
        draw.line((left, y, right, y), fill=GRID)
        draw.line((x, top, x, bottom), fill=GRID)
        draw.text((left - 8, y), f"{share:.0%}", fill=INK, font=font, anchor="rm")
        draw.text((x, bottom + 8), f"{share:.0%}", fill=INK, font=font, anchor="mt")
    line(travelled / total, BEFORE)
    line(np.interp(even, alphas, travelled) / total, AFTER)
    draw.text((left, 12), "perceptual distance travelled:", fill=INK, font=font)
    draw.text((left + 190, 12), "as sampled", fill=BEFORE, font=font)
    draw.text((left + 270, 12), "rescheduled", fill=AFTER, font=font)
    draw.text(((left + right) / 2, SIZE[1] - 18), "frame", fill=INK, font=font, anchor="mm")
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]
