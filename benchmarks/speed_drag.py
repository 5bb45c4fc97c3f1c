"""What a drag costs beside its network: an update's time, the forwards around updates, what is saved for backward."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed_networks import Place, now, place, saved_bytes, seconds
from morph_core.dragging.latent import DragResult, drag_latent, published
from morph_core.dragging.points import DragPoints
from morph_core.models.feature_map import FeatureMap
from morph_core.models.features import DEFAULT_BLOCK, FEATURE_BLOCKS, up_block_features

POINTS = DragPoints(torch.tensor([[0.3, 0.5]]), torch.tensor([[0.7, 0.5]]))
NEVER = 1e-6  # a reach in which no handle ever is
LOWER_HALF = torch.tensor([0.0, 1.0]).reshape(1, 1, 2, 1)  # a mask
MASKS = {"": None, ", mask": LOWER_HALF}


def rows(network: str, repeats: int, units: int) -> list[list[str]]:
    """Rows of work, its time, forwards a level beside those of the updates, and bytes saved for backward.

    Times and bytes are those of an update in relation to `bare`'s. network: of `NETWORKS`. repeats: drags whose median
    is taken. units: updates of each.
    """
    at, found = place(network), []
    for objective in ("DragDiffusion", "GoodDrag"):
        for name, mask in MASKS.items():
            ratio = statistics.median(update_ratio(at, objective, mask, units) for _ in range(repeats))
            result, forwards = drag(at, objective, mask, iterations=1)
            beside = (forwards - len(result.losses)) / (result.level + 1)
            saved = bytes_of_update(at, objective, mask) / bytes_of_bare(at, mask)
            found.append([f"drag, {objective}{name}", f"{ratio:.2f}", f"{beside:.2f}", f"{saved:.2f}"])
    return [*found, forwards_of_all_levels(at)]


def forwards_of_all_levels(at: Place) -> list[str]:
    """The row of GoodDrag's forwards, of those that it needs: each update's, and a level's first and last look."""
    result, forwards = drag(at, "GoodDrag", None, iterations=3)
    levels = result.level + 1
    return [f"GoodDrag, {levels} levels of 3 updates", "", f"{forwards} of {len(result.losses) + 2 * levels}", ""]


def drag(
    at: Place, objective: str, mask: Tensor | None, before: Callable[[], None] | None = None, **changes: Any
) -> tuple[DragResult, int]:
    """A drag that never arrives, and its forwards. before: called at each. changes: of the published settings."""
    read, seen = up_block_features(at.backbone.up_blocks(), at.backbone.denoiser(at.text)), []

    def counted(x: Tensor, sigma: Tensor, wants_x0: bool) -> tuple[FeatureMap, Tensor | None]:
        seen.append(sigma)
        if before:
            before()
        return read(x, sigma, wants_x0)

    config = replace(published(objective), reach=NEVER, **changes)
    return drag_latent(counted, at.backbone.schedule, at.noise(), at.sigmas, POINTS, config, mask), len(seen)


class _BlockReached(Exception):
    """Ends the bare forward."""


@torch.enable_grad()
def bare(at: Place, mask: Tensor | None) -> None:
    """The network's forward and its backward to the latent, by hand: up to the block, or with a mask to its end."""
    network, sigma = at.backbone.network, at.sigmas[0]
    x = at.noise().requires_grad_()
    seen: list[Tensor] = []

    def stop(module: object, args: object, output: Tensor) -> None:
        seen.append(output)
        raise _BlockReached

    hook = None if mask is not None else network.up_blocks[FEATURE_BLOCKS[DEFAULT_BLOCK]].register_forward_hook(stop)
    try:
        scaled = x / at.backbone.schedule.scale(sigma)
        seen.append(network(scaled, at.backbone.schedule.timestep(sigma), at.text.context).sample)
    except _BlockReached:
        pass
    finally:
        if hook is not None:
            hook.remove()
    torch.autograd.grad(seen[0], x, torch.ones_like(seen[0]))


def update_ratio(at: Place, objective: str, mask: Tensor | None, units: int) -> float:
    """What a drag's updates take in relation to `bare`, which runs before each of them."""
    ended, floors, began = [], [], []

    def between() -> None:
        ended.append(now())
        floors.append(seconds(lambda: bare(at, mask)))
        began.append(now())

    drag(at, objective, mask, between, iterations=units, levels=1)
    own = slice(1, units + 1)  # of the forwards: the first is the original's, the last the level's end
    return (sum(ended[own.start + 1 : own.stop + 1]) - sum(began[own])) / sum(floors[own])


def bytes_of_update(at: Place, objective: str, mask: Tensor | None) -> int:
    return saved_bytes(at, lambda: drag(at, objective, mask, iterations=1, levels=1))


def bytes_of_bare(at: Place, mask: Tensor | None) -> int:
    return saved_bytes(at, lambda: bare(at, mask))
