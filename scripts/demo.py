"""A morph and a drag with the bundled toy model, on the CPU, without ComfyUI.

Writes the morph's animation, contact sheet and perceptual curve, and the picture before and after the drag, with the
handle's track, and after an instant drag of the same points.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from morph_core.dragging.latent import published  # noqa: E402
from morph_core.dragging.points import DragPoints  # noqa: E402
from morph_core.lora.fit import LoraFit  # noqa: E402
from morph_core.morphing.report import Report  # noqa: E402
from morph_core.pictures.handle_tracks import draw_paths  # noqa: E402
from morph_core.pictures.perceptual_curve import plot_passes  # noqa: E402
from morph_core.recipes.drag import Drag, drag  # noqa: E402
from morph_core.recipes.morph import Morph, MorphResult, morph  # noqa: E402
from morph_core.recipes.warp_drag import WarpDrag  # noqa: E402
from morph_core.toy.drawing import FACTORS, Drawings, landmarks, one_drawing  # noqa: E402
from morph_core.toy.model import IMAGE_SIZE, ToyModel, load_toy_model  # noqa: E402

ENLARGE = 4
MORPH_LORA = LoraFit(steps=100, learning_rate=1e-3)
ENDS = (("cat", "red", "happy", "mint", 3), ("rabbit", "blue", "surprised", "lilac", 8))
DRAG = Drag(
    lora=LoraFit(steps=80, learning_rate=1e-3), latent=replace(published("GoodDrag"), reach=0.75), strength=0.75
)
DRAGGED, NOSE_GOES = ("rabbit", "purple", "calm", "mint", 7), (-0.14, 0.0)  # shares of the picture's side

OnStage = Callable[[str, int, int], None]


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


def save_morph(result: MorphResult, folder: Path) -> list[Path]:
    frames = [as_picture(frame) for frame in result.frames]
    back_and_forth = frames + frames[-2:0:-1]
    paths = [folder / name for name in ("morph.webp", "morph_frames.png", "morph_curve.png")]
    back_and_forth[0].save(paths[0], save_all=True, append_images=back_and_forth[1:], duration=90, loop=0, quality=90)
    contact_sheet(frames).save(paths[1])
    curve = morph_curve(result)[0]
    Image.fromarray((curve.numpy() * 255).astype(np.uint8)).save(paths[2])
    return paths


def morph_curve(result: MorphResult) -> torch.Tensor:
    """The paths of both passes, and the second's report: (1, H, W, 3) in 0..1."""
    first = result.first_pass
    passes = {"second pass": result, **({"first pass": first} if first else {})}
    reports = {name: Report(tuple(made.distances.tolist()), made.alphas) for name, made in passes.items()}
    return plot_passes(reports, reports["second pass"].text())


def morph_demo(model: ToyModel, frames: int, steps: int, folder: Path, on_stage: OnStage) -> list[Path]:
    drawings = [one_drawing(*looks, torch.Generator().manual_seed(seed)) for *looks, seed in ENDS]
    images = tuple(drawing.render(IMAGE_SIZE) for drawing in drawings)
    captions = tuple(drawing.captions[0] for drawing in drawings)
    print(f"morphing {captions[0]!r} into {captions[1]!r}")
    config = Morph(frames=frames, steps=steps, lora=MORPH_LORA)
    return save_morph(morph(model, images, captions, config, on_stage), folder)


def drag_demo(model: ToyModel, steps: int, folder: Path, on_stage: OnStage) -> list[Path]:
    *looks, seed = DRAGGED
    drawing = one_drawing(*looks, torch.Generator().manual_seed(seed))
    nose = landmarks(drawing.kinds, drawing.factors)["nose"]
    points = DragPoints(nose, nose + torch.tensor([NOSE_GOES]))
    print(f"dragging the nose of {drawing.captions[0]!r}")
    image = drawing.render(IMAGE_SIZE)
    levels = max(1, min(DRAG.latent.levels, round(DRAG.strength * steps)))  # there is one for each step that is left
    config = replace(DRAG, steps=steps, latent=replace(DRAG.latent, levels=levels))
    result = drag(model, image, drawing.captions[0], points, config, on_stage=on_stage)
    instant = drag(model, image, drawing.captions[0], points, WarpDrag(), _head(drawing), on_stage)
    track = draw_paths(image[0].movedim(0, -1), result.drag.tracks * IMAGE_SIZE, points.targets * IMAGE_SIZE)
    pictures = {"before": as_picture(image[0]), "after": as_picture(result.dragged[0]), "paths": track}
    pictures["instant"] = as_picture(instant.dragged[0])
    paths = [folder / f"drag_{name}.png" for name in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        picture.save(path)
    return paths


def _head(drawing: Drawings) -> torch.Tensor:
    """(1, 1, S, S), 1 within a circle around the face, ears included: what a user would paint."""
    x, y, size = (drawing.factors[0, FACTORS.index(name)].item() for name in ("x", "y", "size"))
    steps = (torch.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE
    return (((steps - x) ** 2 + (steps[:, None] - y + size / 2) ** 2) < (1.8 * size) ** 2).float()[None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=ROOT / "output")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def on_stage(stage: str, done: int, total: int, *_: object) -> None:
        if done == total:
            print(f"  {time.monotonic() - started:5.1f} s  {stage}: {total} steps done", flush=True)

    model = load_toy_model()
    paths = morph_demo(model, given.frames, given.steps, given.out, on_stage)
    paths += drag_demo(model, given.steps, given.out, on_stage)
    print(*paths, sep="\n")


if __name__ == "__main__":
    main()
