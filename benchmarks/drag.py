"""Does a drag arrive, and what else changes? Toy drawings with a right answer: python -m benchmarks.drag [--drags N]

Prints a table. A drag's right answer is the drawing with the part moved. Where a handle ended is found in the output by
matching features of the factor network, as DragBench does with a diffusion model's. Fidelity is measured where the
right answer does not differ from the original.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize

from benchmarks.factor_network import FactorNetwork, load_factor_network
from benchmarks.held_out import held_out
from benchmarks.pictures import decibels, differing, psnr, sheet
from benchmarks.runner import arguments, measured, table
from morph_core.dragging.latent import published
from morph_core.dragging.points import DragPoints
from morph_core.lora.fit import LoraFit
from morph_core.models.feature_map import FeatureMap
from morph_core.recipes.drag import Drag, drag_prepared
from morph_core.recipes.image import prepare_image
from morph_core.toy.drawing import FACTORS, KINDS, RANGES, draw, landmarks
from morph_core.toy.model import IMAGE_SIZE, ToyModel, load_toy_model

LORA = LoraFit(steps=80, learning_rate=1e-3)
REACH = 0.75  # of 64 cells; the published 2 are of a map four times as wide. Nearer than half a diagonal may not exist
DRAG_DIFFUSION = replace(published("DragDiffusion"), reach=REACH)
GOOD_DRAG = replace(published("GoodDrag"), reach=REACH)
METHODS = {
    "DragDiffusion": Drag(latent=DRAG_DIFFUSION, strength=0.7),
    "DragDiffusion, stronger": Drag(latent=replace(DRAG_DIFFUSION, learning_rate=0.02), strength=0.8),
    "GoodDrag": Drag(latent=GOOD_DRAG, strength=0.75),
}
AROUND = 4.0
MARGIN = 5  # pixels around the moved part that may change too


def pushed(value: float, name: str) -> float:
    """The end of the factor's range that is farther away."""
    low, high = RANGES[name]
    return high if value < (low + high) / 2 else low


# name: (factors that change, handles, animals it is seen on)
KINDS_OF_DRAG: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "move the head": (("x", "y"), ("nose",), KINDS),
    "tilt the head": (("tilt",), ("left ear", "right ear"), KINDS),
    "stretch the ears": (("ear_size",), ("left ear tip", "right ear tip"), ("cat", "rabbit")),
    "raise the brows": (("brow",), ("left brow", "right brow"), KINDS),
}
EYES = ("left eye", "right eye")
EARS = ("left ear", "right ear")
PINS = {  # what a user would pin, where something else than the whole head moves
    "stretch the ears": (*EARS, "nose", "left brow", "right brow"),
    "raise the brows": (*EYES, *EARS, "nose"),
}
TURNS = [list(KINDS_OF_DRAG)[i] for i in (0, 1, 2, 0, 1, 0, 2, 3)]


@dataclass(frozen=True)
class Task:
    """One drag: image, answer (1, 3, S, S), caption and points; moved: (1, 1, S, S), 1 where the answer differs.

    pinned: the points with `PINS`.
    """

    name: str
    image: Tensor
    answer: Tensor
    caption: str
    points: DragPoints
    pinned: DragPoints
    moved: Tensor

    @property
    def distances(self) -> Tensor:
        """(N,) in pixels, how far each handle is asked to go."""
        return ((self.points.targets - self.points.handles) * IMAGE_SIZE).norm(dim=1)


def drawn(kinds: Tensor, factors: Tensor) -> Tensor:
    """(B, 3, S, S), as the toy model knows them."""
    return draw(kinds, factors, IMAGE_SIZE)


def make_task(place: int, render: Callable[[Tensor, Tensor], Tensor] = drawn) -> Task:
    """The place-th held-out drag; the kinds of drags take turns. render: from kinds and factors to pictures."""
    name = TURNS[place % len(TURNS)]
    factors, handles, animals = KINDS_OF_DRAG[name]
    drawings = held_out(16, offset=100 + place)
    row = next(i for i, kind in enumerate(drawings.kinds.tolist()) if KINDS[kind] in animals)
    kind, before = drawings.kinds[row : row + 1], drawings.factors[row : row + 1]
    after = before.clone()
    for factor in factors:
        column = FACTORS.index(factor)
        after[0, column] = pushed(before[0, column].item(), factor)
    old, new = landmarks(kind, before), landmarks(kind, after)
    points = DragPoints(torch.cat([old[h] for h in handles]), torch.cat([new[h] for h in handles]))
    pins = torch.cat([torch.zeros(0, 2), *(old[place] for place in PINS.get(name, ()))])
    image, answer = (render(kind, factors) for factors in (before, after))
    moved = max_pool2d(differing(image, answer), 2 * MARGIN + 1, 1, MARGIN)
    return Task(name, image, answer, drawings.captions[row], points, replace(points, pins=pins), moved)


def found(network: FactorNetwork, image: Tensor, output: Tensor, points: DragPoints) -> Tensor:
    """Where in the output the features of the image's handles are: (N, 2) in pixels, to a fraction of one.

    Faces are symmetrical, so a handle is looked for in the disc around it and its target, `AROUND` pixels wider.
    """
    maps = [FeatureMap(network.features(x)[0], (IMAGE_SIZE, IMAGE_SIZE)) for x in (image, output)]
    handles, targets = points.handles * IMAGE_SIZE, points.targets * IMAGE_SIZE
    radius = (targets - handles).norm(dim=1) / 2 + AROUND
    wanted = normalize(maps[0].at(handles - 0.5), dim=-1)  # (N, D)
    steps = torch.arange(0, IMAGE_SIZE, 0.25) + 0.125
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1)  # (P, 2)
    likeness = wanted @ normalize(maps[1].at(places - 0.5), dim=-1).T  # (N, P)
    likeness[torch.cdist((handles + targets) / 2, places) > radius[:, None]] = -1
    return places[likeness.argmax(1)]


def measure(network: FactorNetwork, task: Task, output: Tensor) -> Tensor:
    """Share of the distance that is left, PSNR outside the moved part (dB), PSNR against the answer (dB)."""
    left = (found(network, task.image, output, task.points) - task.points.targets * IMAGE_SIZE).norm(dim=1)
    share = (left / task.distances).mean(0, keepdim=True)
    return torch.cat([share, psnr(output, task.image, 1 - task.moved), psnr(output, task.answer)])


def drag_task(model: ToyModel, task: Task) -> dict[str, Tensor]:
    """Method -> (1, 3, S, S)."""
    prepared = prepare_image(model, task.image, task.caption, LORA)
    pictures = {}
    for name, config in METHODS.items():
        plain = drag_prepared(model, prepared, task.points, config)
        pictures.setdefault("no drag", plain.original)
        pictures[name] = plain.dragged
        pictures[f"{name}, mask"] = drag_prepared(model, prepared, task.points, config, task.moved).dragged
    return {**pictures, "the right answer": task.answer}


@dataclass(frozen=True)
class Measured:
    """One drag: its name, the distance asked in pixels, method -> `measure`."""

    name: str
    asked: float
    values: dict[str, Tensor]


def measure_task(place: int, folder: Path | None) -> Measured:
    """The place-th drag, by every method."""
    task, network = make_task(place), load_factor_network()
    pictures = drag_task(load_toy_model(), task)
    if folder:
        shown = torch.cat([task.image, *pictures.values()])
        sheet(shown, folder / f"drag_{place:02}.png", columns=len(shown))
    values = {name: measure(network, task, picture) for name, picture in pictures.items()}
    return Measured(task.name, task.distances.mean().item(), values)


def median(values: Iterable[float]) -> float:
    return torch.tensor(list(values)).quantile(0.5).item()


def rows(results: list[Measured]) -> list[list[str]]:
    """Medians over all drags, then of the distance left for each kind of drag, and last of the distance asked."""
    kinds = [[result for result in results if result.name == name] for name in kinds_of(results)]
    lines = []
    for method in results[0].values:
        left, outside, answer = torch.stack([result.values[method] for result in results]).quantile(0.5, dim=0).tolist()
        by_kind = [median(result.values[method][0].item() for result in kind) for kind in kinds]
        shares = [f"{share:.0%}" for share in by_kind]
        lines.append([method, f"{left:.0%}", decibels(outside), decibels(answer), *shares])
    asked = [f"{median(result.asked for result in kind):.1f} px" for kind in kinds]
    return [*lines, ["distance asked", "", "", "", *asked]]


def kinds_of(results: list[Measured]) -> list[str]:
    """Those kinds of drag that were measured."""
    return [name for name in KINDS_OF_DRAG if name in {result.name for result in results}]


def main() -> None:
    given = arguments(__doc__, drags=32, pictures="each drag's pictures, a column a method,")
    results = measured([partial(measure_task, place, given.pictures) for place in range(given.drags)], given.workers)
    first, *others = kinds_of(results)
    header = ["method", "distance left", "PSNR outside", "PSNR to the answer", f"left: {first}", *others]
    print(table(header, rows(results)))


if __name__ == "__main__":
    main()
