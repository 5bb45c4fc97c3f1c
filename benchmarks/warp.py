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
from benchmarks.factor_network import load_factor_network
from benchmarks.hard_drawings import before_another, on_dots, on_stripes, silhouette
from benchmarks.pictures import decibels, sheet
from benchmarks.runner import arguments, measured, table
from morph_core.dragging.moves import Warp
from morph_core.dragging.points import DragPoints
from morph_core.dragging.warp import warp_image
from morph_core.recipes.drag import Drag, drag_prepared, sample_beside, warped_noise
from morph_core.recipes.image import inverted, prepare_image
from morph_core.recipes.warp_drag import WarpDrag, warp_drag
from morph_core.toy.model import ToyModel, load_toy_model

GROUNDS = {"stripes": on_stripes, "dots": on_dots, "another face": before_another}
WHOLE = "GoodDrag, mask"
OPTIMISED = {
    WHOLE: METHODS["GoodDrag"],
    "GoodDrag from the warp, a third of the updates, mask": replace(
        METHODS["GoodDrag"], warp=Warp(), latent=replace(GOOD_DRAG, iterations=GOOD_DRAG.iterations // 3)
    ),
}
STEPS = 20  # of which the last sample a warped latent
SEEN = 0.02  # of a face's edge
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


def tight(place: int, task: Task) -> Tensor:
    """Painted with care: the face, as far as it is in the mask."""
    face = make_task(place, silhouette).image[:, :1]
    return (face > SEEN).float() * task.moved


def warped(task: Task, points: DragPoints, mask: Tensor | None, warp: Warp | None = None) -> Tensor:
    return warp_image(task.image, points, mask, warp).values


def by_latent(model: ToyModel, task: Task, steps: int) -> Tensor:
    """The latent inverted for the last steps, warped, and sampled beside the original, at whose keys it looks."""
    prepared, backbone = prepare_image(model, task.image, task.caption, None), model.backbone
    sigmas = backbone.schedule.spaced(STEPS)[STEPS - steps :]
    noise = inverted(model, prepared, sigmas).noise
    dragged = warped_noise(noise, task.pinned, task.moved, Warp())
    return sample_beside(model, backbone.denoiser(prepared.text), noise, dragged, sigmas, Drag().reference)[1:]


def by_warp(model: ToyModel, place: int, task: Task) -> dict[str, Callable[[], Tensor]]:
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
        "warp, tight mask": partial(warped, task, task.pinned, tight(place, task)),
        "warp, no mask": partial(warped, task, task.pinned, None),
        "warp, rim painted in 4 steps": partial(healed, 4, False),
        "warp, rim painted in 8 steps": partial(healed, 8, False),
        "warp, all painted in 4 steps": partial(healed, 4, True),
        "warp, all painted in 8 steps": partial(healed, 8, True),
        "warp of the latent, 4 steps": partial(by_latent, model, task, 4),
        "warp of the latent, 8 steps": partial(by_latent, model, task, 8),
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
    for name, work in {**by_warp(model, place, task), **by_optimisation(model, task)}.items():
        picture, calls, seconds = watched(model, work)
        pictures.append(picture)
        results[name] = Outcome(task.name, measure(network, task, picture), calls, seconds)
    results["the right answer"] = Outcome(task.name, measure(network, task, task.answer), 0, 0.0)
    if folder:
        sheet(torch.cat([*pictures, task.answer]), folder / f"warp_{place:02}.png", columns=len(pictures) + 1)
    return results


def measure_ground(ground: str, place: int, folder: Path | None) -> dict[str, Outcome]:
    """The warp alone, on one of `GROUNDS`."""
    network, task = load_factor_network(), make_task(place, GROUNDS[ground])
    pictures = {
        "no drag": task.image,
        "warp": warped(task, task.pinned, task.moved),
        "warp, sloppy mask": warped(task, task.pinned, sloppy(task.moved)),
        "warp, tight mask": warped(task, task.pinned, tight(place, task)),
        "warp, no mask": warped(task, task.pinned, None),
    }
    if folder:
        shown = torch.cat([*pictures.values(), task.answer])
        sheet(shown, folder / f"warp_{ground}_{place:02}.png", columns=len(shown))
    return {name: Outcome(task.name, measure(network, task, picture), 0, 0.0) for name, picture in pictures.items()}


def medians(results: list[dict[str, Outcome]], method: str, kind: str | None = None) -> Tensor:
    """(3,), of `measure`, over all drags or those of a kind."""
    found = [result[method] for result in results if kind in (None, result[method].kind)]
    return torch.stack([outcome.values for outcome in found]).quantile(0.5, dim=0)


def summary(results: list[dict[str, Outcome]]) -> str:
    """A row for each method, with its cost beside GoodDrag's."""
    rows = []
    whole = sum(result[WHOLE].seconds for result in results)
    for method in results[0]:
        left, outside, answer = medians(results, method).tolist()
        calls = torch.tensor([float(result[method].calls) for result in results]).quantile(0.5).item()
        share = sum(result[method].seconds for result in results) / whole
        rows.append([method, f"{left:.0%}", decibels(outside), decibels(answer), f"{calls:.0f}", f"{share:.3f}"])
    header = ["method", "distance left", "PSNR outside", "PSNR to the answer", "evaluations", "time, GoodDrag's is 1"]
    return table(header, rows)


def by_kind(results: list[dict[str, Outcome]]) -> str:
    """A row for each method: the distance left and the PSNR to the answer, of each kind of drag."""
    kinds = [kind for kind in KINDS_OF_DRAG if any(result["no drag"].kind == kind for result in results)]
    rows = []
    for method in results[0]:
        values = [medians(results, method, kind) for kind in kinds]
        rows.append([method, *(f"{left:.0%}, {decibels(answer.item())}" for left, _, answer in values)])
    return table(["method", *kinds], rows)


def main() -> None:
    given = arguments(__doc__, drags=32, pictures="each drag's pictures, a column a method,")
    places = range(given.drags)
    results = measured([partial(measure_drag, place, given.pictures) for place in places], given.workers)
    print(summary(results))
    print("\nDistance left and PSNR to the answer, by kind of drag:\n")
    print(by_kind(results))
    for ground in GROUNDS:
        harder = measured([partial(measure_ground, ground, place, given.pictures) for place in places], given.workers)
        print(f"\nThe same before {ground}:\n")
        print(by_kind(harder))


if __name__ == "__main__":
    main()
