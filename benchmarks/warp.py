"""What is a drag by warping worth? python -m benchmarks.warp [--drags N] [--pictures FOLDER]

The drags of `benchmarks.drag`, warped, healed and taken as a start by GoodDrag, with the mask of what the right answer
changes, with a sloppy one and with none; then the warp alone on grounds that do not fill themselves. Evaluations are
calls of the UNet, time is a share of GoodDrag's on the same processor, LoRA fit included.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from benchmarks.drag import GOOD_DRAG, KINDS_OF_DRAG, LORA, METHODS, Task, make_task, measure
from benchmarks.factor_network import FactorNetwork, load_factor_network
from benchmarks.hard_drawings import before_another, on_dots, on_stripes
from benchmarks.pictures import decibels, sheet
from benchmarks.runner import arguments, measured, table
from morph_core.dragging.moves import Warp
from morph_core.dragging.points import DragPoints
from morph_core.dragging.warp import warp_image
from morph_core.recipes.drag import Drag, drag_prepared
from morph_core.recipes.image import prepare_image
from morph_core.recipes.warp_drag import WarpDrag, warp_drag
from morph_core.toy.model import ToyModel, load_toy_model

GROUNDS = {"stripes": on_stripes, "dots": on_dots, "another face": before_another}
WHOLE = "GoodDrag, mask"
OPTIMISED = {
    WHOLE: METHODS["GoodDrag"],
    "GoodDrag from the warp, mask": replace(METHODS["GoodDrag"], warp=Warp()),
    "GoodDrag from the warp, a third of the updates, mask": replace(
        METHODS["GoodDrag"], warp=Warp(), latent=replace(GOOD_DRAG, iterations=GOOD_DRAG.iterations // 3)
    ),
}
BY_LATENT = Drag(steps=20, strength=0.4, lora=None, latent=replace(GOOD_DRAG, iterations=1, levels=1), warp=Warp())
SLOPPY = 3  # pixels that a mask is too large by, and shifted


@dataclass(frozen=True)
class Outcome:
    """A drag by a method: its kind, `measure`, calls of the UNet, seconds."""

    kind: str
    values: Tensor
    calls: int
    seconds: float


def sloppy(mask: Tensor) -> Tensor:
    """Painted in haste."""
    return max_pool2d(mask, 2 * SLOPPY + 1, 1, SLOPPY).roll((SLOPPY, SLOPPY), (2, 3))


def warped(task: Task, points: DragPoints, mask: Tensor | None, warp: Warp | None = None) -> Tensor:
    return warp_image(task.image, points, mask, warp).values


def by_warp(model: ToyModel, task: Task) -> dict[str, Callable[[], Tensor]]:
    """Method -> what makes its picture (1, 3, S, S)."""

    def healed(steps: int, whole: bool) -> Tensor:
        config = WarpDrag(healing_steps=steps, whole=whole)
        return warp_drag(model, task.image, task.caption, task.pinned, config, task.moved).dragged

    return {
        "no drag": lambda: model.decode_latents(model.encode_images(task.image)),
        "warp, no pins": partial(warped, task, task.points, task.moved),
        "warp": partial(warped, task, task.pinned, task.moved),
        "warp, similarity": partial(warped, task, task.pinned, task.moved, Warp("similarity")),
        "warp, sloppy mask": partial(warped, task, task.pinned, sloppy(task.moved)),
        "warp, no mask": partial(warped, task, task.pinned, None),
        "warp, rim painted in 4 steps": partial(healed, 4, False),
        "warp, rim painted in 8 steps": partial(healed, 8, False),
        "warp, all painted in 4 steps": partial(healed, 4, True),
        "warp, all painted in 8 steps": partial(healed, 8, True),
    }


def by_optimisation(model: ToyModel, task: Task) -> dict[str, Callable[[], Tensor]]:
    """The same of what fits a LoRA first, each its own."""

    def dragged(config: Drag) -> Tensor:
        prepared = prepare_image(model, task.image, task.caption, LORA)
        return drag_prepared(model, prepared, task.pinned, config, task.moved).dragged

    return {name: partial(dragged, config) for name, config in OPTIMISED.items()}


def watched(model: ToyModel, work: Callable[[], Tensor]) -> tuple[Tensor, int, float]:
    """What it makes, the calls of the UNet, and the seconds."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    handle = model.backbone.network.register_forward_pre_hook(count)
    start = time.perf_counter()
    try:
        picture = work()
    finally:
        handle.remove()
    return picture, calls, time.perf_counter() - start


def measure_drag(place: int, folder: Path | None) -> dict[str, Outcome]:
    """Method -> the place-th drag by it."""
    model, network, task = load_toy_model(), load_factor_network(), make_task(place)
    results, pictures = {}, [task.image]
    for name, work in {**by_warp(model, task), **by_optimisation(model, task)}.items():
        picture, calls, seconds = watched(model, work)
        pictures.append(picture)
        results[name] = Outcome(task.name, measure(network, task, picture), calls, seconds)
    results["the right answer"] = Outcome(task.name, measure(network, task, task.answer), 0, 0.0)
    if folder:
        sheet(torch.cat([*pictures, task.answer]), folder / f"warp_{place:02}.png", columns=len(pictures) + 1)
    return results


def measure_ground(ground: str, place: int, folder: Path | None) -> Tensor:
    """`measure` of no drag, of the warp, and of the warp healed, on one of `GROUNDS`: (3, 3)."""
    model, network = load_toy_model(), load_factor_network()
    task = make_task(place, GROUNDS[ground])
    pictures = [task.image, warped(task, task.pinned, task.moved), warped(task, task.pinned, sloppy(task.moved))]
    if folder:
        sheet(torch.cat([*pictures, task.answer]), folder / f"warp_{ground}_{place:02}.png", columns=4)
    return torch.stack([measure(network, task, picture) for picture in pictures])


def main() -> None:
    given = arguments(__doc__, drags=32, pictures="each drag's pictures, a column a method,")
    results = measured([partial(measure_drag, place, given.pictures) for place in range(given.drags)], given.workers)
    kinds = [kind for kind in KINDS_OF_DRAG if any(outcome.kind == kind for outcome in results[0].values())]
    print(table(*summary(results)))
    print(table(*by_kind(results)))


if __name__ == "__main__":
    main()
