"""The perceptual paths of measured passes as a picture."""

import textwrap
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..morphing.report import LongStep, Report, percent
from .handle_tracks import as_image

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]

SIZE = (640, 400)  # of the chart
MARGIN = (56, 40, 24, 48)  # left, top, right, bottom
LEFT, TOP, RIGHT, BOTTOM = MARGIN[0], MARGIN[1], SIZE[0] - MARGIN[2], SIZE[1] - MARGIN[3]
INK, GRID, EVEN, JUMP = (40, 40, 46), (222, 222, 228), (160, 160, 170), (205, 20, 60)
COLOURS = ((40, 110, 200), (214, 110, 40), (60, 140, 70), (130, 80, 170))  # of the passes, in turn
LINE_HEIGHT, LINE_LENGTH = 18, 86  # of the text below, in pixels and in characters


def plot_passes(passes: Mapping[str, Report], text: str = "") -> Tensor:
    """Way travelled against frame, of passes that were measured: (1, H, W, 3) in 0..1.

    passes: name -> what was measured; the legend has the names. Each pass's way is a share of its own length, so that
    even steps are the straight line drawn behind. What changes at once is marked with its share. text: lines to stand
    below; without any the picture is of `SIZE`.
    """
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, LINE_LENGTH)]
    height = SIZE[1] + (LINE_HEIGHT * len(lines) + 12 if lines else 0)
    image = Image.new("RGB", (SIZE[0], height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=13)
    _axes(draw, font)
    coloured = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(passes)}
    for name, report in reversed(list(passes.items())):  # the first lies on top
        _pass(draw, font, report, coloured[name])
    marked = {"jump": JUMP} if any(report.jumps for report in passes.values()) else {}
    _legend(draw, font, {**coloured, "even": EVEN, **marked})
    for i, line in enumerate(lines):
        draw.text((LEFT, SIZE[1] + LINE_HEIGHT * i), line, fill=INK, font=font)
    return as_image(image)


def _point(frames: float, way: float) -> tuple[float, float]:
    """The pixel of a point of the chart, given as shares."""
    return LEFT + frames * (RIGHT - LEFT), BOTTOM - way * (BOTTOM - TOP)


def _axes(draw: ImageDraw.ImageDraw, font: Font) -> None:
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, y = _point(share, share)
        draw.line((LEFT, y, RIGHT, y), fill=GRID)
        draw.line((x, TOP, x, BOTTOM), fill=GRID)
        draw.text((LEFT - 8, y), f"{share:.0%}", fill=INK, font=font, anchor="rm")
        draw.text((x, BOTTOM + 8), f"{share:.0%}", fill=INK, font=font, anchor="mt")
    draw.text(((LEFT + RIGHT) / 2, SIZE[1] - 18), "frame", fill=INK, font=font, anchor="mm")
    draw.line((*_point(0, 0), *_point(1, 1)), fill=EVEN)


def _pass(draw: ImageDraw.ImageDraw, font: Font, report: Report, colour: Colour) -> None:
    travelled = np.concatenate([[0.0], np.cumsum(report.distances)]) / (report.path_length or 1.0)
    steps = len(report.distances)
    points = [_point(i / steps, way) for i, way in enumerate(travelled.tolist())]
    draw.line(points, fill=colour, width=2)
    for jump in report.jumps:
        _jump(draw, font, jump, points)
    for x, y in points:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)


def _jump(draw: ImageDraw.ImageDraw, font: Font, jump: LongStep, points: list[tuple[float, float]]) -> None:
    """The step in the colour of jumps, with its share of the path beside it."""
    (x, y), (next_x, next_y) = points[jump.frames[0]], points[jump.frames[0] + 1]
    draw.line((x, y, next_x, next_y), fill=JUMP, width=4)
    beside, anchor = (x - 8, "rm") if x > (LEFT + RIGHT) / 2 else (next_x + 8, "lm")
    draw.text((beside, (y + next_y) / 2), f"{percent(jump.share)} at once", fill=JUMP, font=font, anchor=anchor)


def _legend(draw: ImageDraw.ImageDraw, font: Font, names: Mapping[str, Colour]) -> None:
    x: float = LEFT
    for name, colour in {"distance travelled:": INK, **names}.items():
        draw.text((x, 12), name, fill=colour, font=font)
        x += draw.textlength(name, font=font) + 16
