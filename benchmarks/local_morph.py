"""Does a local morph stay in its place, and join there? python -m benchmarks.local_morph [--pairs N]

Held-out toy drawings whose ears become another animal's, all else being equal, so that the truth is known: every frame
should be near a genuine drawing, at the mask's rim too, and not change outside of the mask. The mask covers both kinds
of ears and is soft at its rim. Prints a table, averages over the pairs, but for what is greatest.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from benchmarks.factor_network import load_factor_network
from benchmarks.fit_drawing import nearest_drawings
from benchmarks.held_out import held_out
from benchmarks.morph import LORA
from benchmarks.pictures import sheet
from benchmarks.runner import arguments, measured, table
from morph_core.recipes.image import prepare_image
from morph_core.recipes.local_mask import LocalMask
from morph_core.recipes.morph import Morph, morph_prepared
from morph_core.toy.drawing import KINDS, Drawings, draw
from morph_core.toy.model import IMAGE_SIZE, load_toy_model

FRAMES = 7
CONFIG = Morph(frames=FRAMES, lora=LORA, reschedule=False, exact_ends=True)
GROWN, SOFT = 5, 9  # pixels: by how much a mask is larger than what changes, and how wide its soft rim is


def two_drawings(pair: int, pairs: int) -> tuple[Tensor, tuple[str, str]]:
    """One held-out drawing with its own ears and with the next kind's: (2, 3, S, S) and the captions."""
    one = held_out(pairs, offset=7)
    kind = int(one.kinds[pair])
    other = (kind + 1) % len(KINDS)
    factors = one.factors[pair : pair + 1]
    both = Drawings(torch.tensor([kind, other]), factors.repeat(2, 1))
    caption = one.captions[pair]
    return both.render(IMAGE_SIZE), (caption, caption.replace(KINDS[kind], KINDS[other]))


def mask_of(images: Tensor, softness: int = SOFT) -> Tensor:
    """(1, 1, S, S), white where two pictures differ and a little around it. softness: width of the rim, 1 for hard."""
    differs = ((images[:1] - images[1:]).abs().amax(1, keepdim=True) > 0.02).float()
    grown = max_pool2d(differs, 2 * GROWN + 1, 1, GROWN)
    soft = max_pool2d(grown, 2 * (softness // 2) + 1, 1, softness // 2)
    return avg_pool2d(soft, softness, 1, softness // 2, count_include_pad=False)


def rim_of(mask: Tensor) -> Tensor:
    """(1, 1, S, S) of 0 and 1: the pixels of the soft rim of `mask_of`, or as many around a hard one's."""
    side = SOFT // 2
    return (max_pool2d(mask, 2 * side + 1, 1, side) + max_pool2d(1 - mask, 2 * side + 1, 1, side) > 1.001).float()


def measure_pair(pair: int, pairs: int, folder: Path | None) -> dict[str, Tensor]:
    """Method -> greatest difference outside of the mask, drawing error at the rim, and of whole frames."""
    model, network = load_toy_model(), load_factor_network()
    images, captions = two_drawings(pair, pairs)
    ends = [prepare_image(model, images[i : i + 1], captions[i], CONFIG.lora) for i in range(2)]
    first, last = (model.decode_latents(end.latent) for end in ends)
    soft, hard = mask_of(images), mask_of(images, 1)
    mixed = torch.lerp(first, last, torch.linspace(0, 1, FRAMES)[:, None, None, None])
    whole = morph_prepared(model, *ends, CONFIG)
    local = morph_prepared(model, *ends, CONFIG, mask=soft)
    sharp = morph_prepared(model, *ends, CONFIG, mask=hard)
    shown = {
        "cross-fade": (mixed, soft),
        "global morph": (whole.frames, soft),
        "global morph, pasted into the mask": (LocalMask(soft, ends[0].latent).pasted(whole.frames, first), soft),
        "local morph, as decoded": (model.decode_latents(local.latents), soft),
        "local morph": (local.frames, soft),
        "local morph, hard mask": (sharp.frames, hard),
    }
    if folder:
        sheet(torch.cat([frames for frames, _ in shown.values()]), folder / f"local_{pair:02}.png", columns=FRAMES)
    results = {}
    for name, (frames, mask) in shown.items():
        inner = frames[1:-1]
        kinds, factors = nearest_drawings(network, inner)
        error = (draw(kinds, factors, IMAGE_SIZE) - inner).square().mean(1, keepdim=True)
        rim = rim_of(soft)
        at_rim = ((error * rim).flatten(1).sum(1) / rim.sum()).sqrt().mean()
        outside = ((frames - first).abs() * (mask == 0)).max()
        results[name] = torch.stack([outside, at_rim, error.flatten(1).mean(1).sqrt().mean()])
    return results


def main() -> None:
    given = arguments(__doc__, pairs=8, pictures="each pair's frames, a row a method,")
    jobs = [partial(measure_pair, pair, given.pairs, given.pictures) for pair in range(given.pairs)]
    results = measured(jobs, given.workers)
    rows = []
    for name in results[0]:
        found = torch.stack([result[name] for result in results])
        rows.append([name, f"{found[:, 0].max():.1e}", *(f"{value:.4f}" for value in found[:, 1:].mean(0).tolist())])
    print(table(["method", "greatest difference outside", "drawing error at the rim", "of the frame"], rows))


if __name__ == "__main__":
    main()
