"""Does a morph follow the true path? Between two drawings of one animal: python -m benchmarks.morph_within [--pairs N]

Both ends are held-out toy drawings of one kind with different factors, so what lies between is known: the drawings
whose factors lie on the straight line from one to the other. Prints a table, averages over the pairs: how far the
inner frames are from the nearest drawing of that line (root mean square, of 0..1), and how even their steps are in the
factors of the nearest genuine drawing of that kind, each factor divided by its range. The true path's own row says
what the fit of the factors adds.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.factor_network import FactorNetwork, factor_range, load_factor_network
from benchmarks.fit_drawing import nearest_drawings
from benchmarks.held_out import held_out
from benchmarks.morph import FRAMES, FULL, SLERP, cross_fade, prepared_pair
from benchmarks.pictures import sheet
from benchmarks.runner import arguments, measured, table
from morph_core.recipes.morph import morph_prepared
from morph_core.toy.drawing import KINDS, Drawings, draw
from morph_core.toy.model import IMAGE_SIZE, Network, ToyModel, load_toy_model

PLACES = 201  # drawings of the true path that a frame is compared with
TRUTH = "the true path"


def same_animal(drawings: Drawings) -> Drawings:
    """Each second drawing is of the first one's kind, and its caption says so."""
    kinds = drawings.kinds.clone()
    kinds[1::2] = kinds[::2]
    names = [(KINDS[old], KINDS[new]) for old, new in zip(drawings.kinds.tolist(), kinds.tolist(), strict=True)]
    captions = tuple(
        caption.replace(f" {old} ", f" {new} ") for caption, (old, new) in zip(drawings.captions, names, strict=True)
    )
    return Drawings(kinds, drawings.factors, captions)


def true_path(drawings: Drawings, pair: int, places: int) -> Tensor:
    """(places, 3, S, S) in 0..1, of factors that go straight from drawing 2·pair to 2·pair + 1."""
    start, end = drawings.factors[2 * pair], drawings.factors[2 * pair + 1]
    factors = torch.lerp(start, end, torch.linspace(0, 1, places)[:, None])
    return draw(drawings.kinds[2 * pair].expand(places), factors, IMAGE_SIZE)


def morphs(model: ToyModel, drawings: Drawings, pair: int) -> dict[str, Tensor]:
    """Method -> (FRAMES, 3, H, W) between drawings 2·pair and 2·pair + 1."""
    ends = prepared_pair(model, drawings, pair)
    bare = [replace(end, lora={}) for end in ends]
    full = morph_prepared(model, *ends, FULL)
    return {
        TRUTH: true_path(drawings, pair, FRAMES),
        "cross-fade": cross_fade(*(model.decode_latents(end.latent) for end in ends)),
        "latent slerp": morph_prepared(model, *bare, replace(SLERP, reschedule=False)).frames,
        "full, first pass": full.first_pass.frames,
        "full": full.frames,
    }


def deviation(frames: Tensor, path: Tensor) -> Tensor:
    """(F,) root mean square difference of each frame to the nearest picture of a path (P, 3, H, W)."""
    exact = "donot_use_mm_for_euclid_dist"  # by products of matrices a frame that is on the path would not be at 0
    return torch.cdist(frames.flatten(1), path.flatten(1), compute_mode=exact).amin(1) / frames[0].numel() ** 0.5


def factor_steps(network: FactorNetwork, frames: Tensor, kind: int) -> Tensor:
    """(F − 1,) distances of neighbours, in the factors of the nearest drawing of that kind, each by its range."""
    low, high = factor_range()
    _, factors = nearest_drawings(network, frames, kinds=(kind,))
    return ((factors[1:] - factors[:-1]) / (high - low)).norm(dim=1)


def measure(network: FactorNetwork, frames: Tensor, drawings: Drawings, pair: int) -> Tensor:
    """How far the inner frames are from the true path; of the steps in factors their sum, as a multiple of the
    straight way's, their variance (×1000), and the longest over the mean.
    """
    steps = factor_steps(network, frames, int(drawings.kinds[2 * pair]))
    low, high = factor_range()
    straight = ((drawings.factors[2 * pair + 1] - drawings.factors[2 * pair]) / (high - low)).norm()
    off = deviation(frames[1:-1], true_path(drawings, pair, PLACES)).mean()
    return torch.stack([off, steps.sum() / straight, 1000 * steps.var(unbiased=False), steps.max() / steps.mean()])


def measure_pair(kind: Network, pair: int, pairs: int, folder: Path | None) -> dict[str, Tensor]:
    """Method -> `measure` of one pair's frames."""
    network, drawings = load_factor_network(), same_animal(held_out(2 * pairs, offset=3))
    frames = morphs(load_toy_model(kind), drawings, pair)
    if folder:
        sheet(torch.cat(list(frames.values())), folder / f"pair_{pair:02}.png", columns=FRAMES)
    return {name: measure(network, shown, drawings, pair) for name, shown in frames.items()}


def main() -> None:
    given = arguments(__doc__, networks=True, pairs=8, pictures="each pair's frames, a row a method,")
    jobs = [partial(measure_pair, given.network, pair, given.pairs, given.pictures) for pair in range(given.pairs)]
    results = measured(jobs, given.workers)
    rows = []
    for name in results[0]:
        off, way, variance, longest = torch.stack([result[name] for result in results]).mean(0).tolist()
        rows.append([name, f"{off:.4f}", f"{way:.2f}", f"{variance:.1f}", f"{longest:.2f}"])
    print(
        table(["method", "off the true path", "way / straight way", "variance of steps ×1000", "longest / mean"], rows)
    )


if __name__ == "__main__":
    main()
