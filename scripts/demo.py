"""A morph with the bundled toy model, on the CPU, without ComfyUI: animation, contact sheet, perceptual curve."""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from morph_core.lora_fit import LoraFit  # noqa: E402
from morph_core.morph import Morph, MorphResult, morph  # noqa: E402
from morph_core.plot import plot_paths  # noqa: E402
from morph_core.toy.drawing import one_drawing  # noqa: E402
from morph_core.toy.model import IMAGE_SIZE, load_toy_model  # noqa: E402

ENLARGE = 4
TOY_LORA = LoraFit(steps=100, learning_rate=1e-3)
ENDS = (("cat", "red", "happy", "mint", 3), ("rabbit", "blue", "surprised", "lilac", 8))


def as_picture(image: torch.Tensor) -> Image.Image:
    """(3, H, W) in 0..1, enlarged."""
    pixels = (image.movedim(0, -1) * 255).round().byte().numpy()
    side = IMAGE_SIZE * ENLARGE
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def contact_sheet(frames: list[Image.Image], columns: int = 8) -> Image.Image:
    side = IMAGE_SIZE * ENLARGE // 2
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for i, frame in enumerate(frames):
        sheet.paste(frame.resize((side, side)), (i % columns * side, i // columns * side))
    return sheet


def save(result: MorphResult, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    frames = [as_picture(frame) for frame in result.frames]
    back_and_forth = frames + frames[-2:0:-1]
    paths = [folder / name for name in ("morph.webp", "morph_frames.png", "morph_curve.png")]
    back_and_forth[0].save(paths[0], save_all=True, append_images=back_and_forth[1:], duration=90, loop=0, quality=90)
    contact_sheet(frames).save(paths[1])
    measured = result.first_pass or result
    curve = plot_paths(measured.alphas, measured.distances.tolist(), result.alphas)[0]
    Image.fromarray((curve.numpy() * 255).astype(np.uint8)).save(paths[2])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / "output")
    given = parser.parse_args()

    drawings = [one_drawing(*looks, torch.Generator().manual_seed(seed)) for *looks, seed in ENDS]
    images = tuple(drawing.render(IMAGE_SIZE) for drawing in drawings)
    captions = tuple(drawing.captions[0] for drawing in drawings)
    print(f"morphing {captions[0]!r} into {captions[1]!r}")
    started = time.monotonic()

    def on_stage(stage: str, done: int, total: int) -> None:
        if done == total:
            print(f"  {time.monotonic() - started:5.1f} s  {stage}: {total} steps done", flush=True)

    config = Morph(frames=given.frames, steps=given.steps, lora=TOY_LORA)
    result = morph(load_toy_model(), images, captions, config, on_stage)
    for path in save(result, given.out):
        print(path)


if __name__ == "__main__":
    main()
