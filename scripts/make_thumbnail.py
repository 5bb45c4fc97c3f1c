"""A workflow's thumbnail from the animation or frames it made.

python scripts/make_thumbnail.py FRAMES... example_workflows/NAME.jpg
FRAMES: one animated WebP, or still pictures in order.
"""

import sys
from pathlib import Path

from PIL import Image, ImageSequence

TILES, SIDE = 4, 192


def main() -> None:
    *sources, target = map(Path, sys.argv[1:])
    frames = [frame.convert("RGB") for path in sources for frame in ImageSequence.Iterator(Image.open(path))]
    picture = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    for i in range(TILES):
        frame = frames[round(i * (len(frames) - 1) / (TILES - 1))]
        picture.paste(frame.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (i % 2 * SIDE, i // 2 * SIDE))
    picture.save(target, quality=90)


if __name__ == "__main__":
    main()
