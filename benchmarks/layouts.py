"""Do matched layouts help a morph? Pairs whose layouts differ, and pairs of one layout: python -m benchmarks.layouts

Prints a table, averages over the pairs, of the full method with and without correspondence. Held-out drawings are put
at opposite ends of the ranges of x, y, size and tilt, or at one place. --offset says which drawings: those that were
tuned on have 30, those that are reported 20.

drawing error: of the inner frames, to the nearest genuine drawing. off the interpolation: mean distance, in pixels of
64, of the landmarks of that drawing from those of the drawing whose layout is interpolated by the frame's alpha. off
the line: from the straight line between the two ends' places of the landmark.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.factor_network import FactorNetwork, load_factor_network
from benchmarks.fit_drawing import nearest_drawings
from benchmarks.held_out import held_out
from benchmarks.morph import FULL, LORA
from benchmarks.pictures import sheet
from benchmarks.runner import arguments, measured, table
from morph_core.recipes.image import prepare_image
from morph_core.recipes.morph import MorphResult, morph_prepared
from morph_core.toy.drawing import FACTORS, RANGES, Drawings, draw, landmarks
from morph_core.toy.model import IMAGE_SIZE, ToyModel, load_toy_model

LAYOUT = ("x", "y", "size", "tilt")
KINDS_OF_PAIRS = ("differing layouts", "one layout")
METHODS = {"full": FULL, "full, matched layouts": replace(FULL, correspondence=True)}


@dataclass(frozen=True)
class Pair:
    """drawings: two, the morph's ends."""

    drawings: Drawings

    @property
    def pictures(self) -> Tensor:
        """(2, 3, H, W) in 0..1."""
        return self.drawings.render(IMAGE_SIZE)


def pair_of(kind: str, number: int, offset: int) -> Pair:
    """The number-th pair of held-out drawings, with layouts at opposite corners of their ranges, or that of the first.

    kind: one of `KINDS_OF_PAIRS`.
    """
    drawings = held_out(2, offset=offset * 100 + number)
    factors = drawings.factors.clone()
    for bit, name in enumerate(LAYOUT):
        column, ends = FACTORS.index(name), RANGES[name]
        is_high = (number * 5 + number // 4) >> bit & 1  # each pair has another corner
        factors[0, column], factors[1, column] = ends[is_high], ends[1 - is_high]
        if kind == "one layout":
            factors[1, column] = factors[0, column]
    return Pair(replace(drawings, factors=factors))


def measure(network: FactorNetwork, result: MorphResult, pair: Pair) -> Tensor:
    """Drawing error, distance off the interpolation and off the line, of the inner frames."""
    frames, alphas = result.frames[1:-1], torch.tensor(result.alphas[1:-1])
    kinds, factors = nearest_drawings(network, frames)
    error = (draw(kinds, factors, IMAGE_SIZE) - frames).square().flatten(1).mean(1).sqrt()
    ends = pair.drawings.factors
    start, end, found = (
        _face(with_layout(factors, layout)) for layout in (ends[0], ends[1], None)
    )  # the landmarks of the face that the frame has, in either layout and in its own
    between = _face(with_layout(factors, torch.lerp(ends[0], ends[1], alphas[:, None])))
    return torch.stack([error.mean(), (found - between).norm(dim=-1).mean(), off_line(found, start, end).mean()])


def with_layout(factors: Tensor, layout: Tensor | None) -> Tensor:
    """factors (B, ...) with the layout of others, (B or 1, ...)."""
    columns = [FACTORS.index(name) for name in LAYOUT]
    if layout is None:
        return factors
    result = factors.clone()
    result[:, columns] = layout[..., columns]
    return result


def _face(factors: Tensor) -> Tensor:
    """(B, 5, 2), in pixels: what all animals have."""
    places = landmarks(torch.zeros(len(factors), dtype=torch.long), factors)
    return IMAGE_SIZE * torch.stack(
        [places[name] for name in ("nose", "left eye", "right eye", "mouth", "left brow")], 1
    )


def off_line(places: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Distance of places from the segments from start to end, all (B, N, 2)."""
    way = end - start
    share = ((places - start) * way).sum(-1) / way.square().sum(-1).clamp(min=1e-6)
    return (start + share.clamp(0, 1)[..., None] * way - places).norm(dim=-1)


def morphs(model: ToyModel, pair: Pair) -> dict[str, MorphResult]:
    """Method -> its frames at even alphas, and rescheduled."""
    pictures, captions = pair.pictures, pair.drawings.captions
    ends = [prepare_image(model, pictures[i : i + 1], captions[i], LORA) for i in range(2)]
    results = {}
    for name, config in METHODS.items():
        made = morph_prepared(model, *ends, config)
        results[name], results[f"{name}, rescheduled"] = made.first_pass, made
    return results


def measure_pair(kind: str, number: int, offset: int, folder: Path | None) -> dict[str, Tensor]:
    """Method -> `measure` of one pair's frames."""
    network, pair = load_factor_network(), pair_of(kind, number, offset)
    results = morphs(load_toy_model(), pair)
    if folder:
        frames = torch.cat([result.frames for result in results.values()])
        sheet(frames, folder / f"{kind.replace(' ', '_')}_{number:02}.png", columns=FULL.frames)
    return {name: measure(network, result, pair) for name, result in results.items()}


def main() -> None:
    given = arguments(__doc__, pairs=6, offset=20, pictures="each pair's frames, a row a method,")
    jobs = [
        partial(measure_pair, kind, number, given.offset, given.pictures)
        for kind in KINDS_OF_PAIRS
        for number in range(given.pairs)
    ]
    results = measured(jobs, given.workers)
    header = ["pairs", "method", "drawing error", "off the interpolation", "off the line"]
    rows = []
    for number, kind in enumerate(KINDS_OF_PAIRS):
        of_kind = results[number * given.pairs : (number + 1) * given.pairs]
        for name in of_kind[0]:
            error, interpolation, line = torch.stack([result[name] for result in of_kind]).mean(0).tolist()
            rows.append([kind, name, f"{error:.4f}", f"{interpolation:.2f}", f"{line:.2f}"])
    print(table(header, rows))


if __name__ == "__main__":
    main()
