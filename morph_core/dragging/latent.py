"""DragDiffusion (Shi et al., CVPR 2024) and GoodDrag (Zhang et al., ICLR 2025): a latent whose handles have moved.

Both optimise an inverted latent until the features that were at each handle are found at its target. DragDiffusion
does so at one noise level, against the features where the handle is now; GoodDrag alternates with denoising steps,
against the features where the handle began.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..crop import free_cells
from ..errors import InvalidInput
from ..models.feature_map import FeatureMap
from ..models.features import ReadFeatures
from ..sampling.ddim import step
from ..sampling.schedule import NoiseSchedule
from .points import DragPoints, from_grid, to_grid
from .tracking import motion_loss, track_points

Objective = Literal["DragDiffusion", "GoodDrag"]
OnDrag = Callable[[int, int, Tensor], None]
"""Called before every update and after a level's last with (updates done, at most, handles (N, 2) in shares)."""

INTEGER_FIELDS = ("iterations", "motion_radius", "tracking_radius", "drags_per_tracking", "levels")
POSITIVE_FIELDS = (
    "iterations",
    "learning_rate",
    "drag_distance",
    "tracking_radius",
    "drags_per_tracking",
    "levels",
    "reach",
)


@dataclass(frozen=True)
class DragLatent:
    """How to drag. Defaults are DragDiffusion's; `published` has GoodDrag's too. Lengths are in cells of the map."""

    objective: Objective = "DragDiffusion"
    iterations: int = 80
    """Updates of the latent at each noise level, at most."""
    learning_rate: float = 0.01
    motion_radius: int = 1
    """r1: patches of (2r + 1)² cells are moved."""
    drag_distance: float = 1.0
    """How far ahead of the handle its patch is wanted, at most."""
    tracking_radius: int = 3
    """r2: the handle is looked for in (2r + 1)² cells."""
    drags_per_tracking: int = 1
    levels: int = 1
    """Noise levels to drag at, one denoising step apart."""
    mask_weight: float = 0.1
    """λ, of what changes outside the mask."""
    reach: float = 2.0
    """A handle this near to its target has arrived."""

    def __post_init__(self) -> None:
        if self.objective not in PUBLISHED:
            raise InvalidInput(f"objective must be one of {', '.join(PUBLISHED)}; got {self.objective!r}")
        for name in POSITIVE_FIELDS:
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidInput(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("motion_radius", "mask_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidInput(f"{name} must not be negative, got {getattr(self, name)}")
        for name in INTEGER_FIELDS:
            if getattr(self, name) % 1:
                raise InvalidInput(f"{name} must be a whole number, got {getattr(self, name)}")


PIN_RADIUS = 1  # of the patch that a pin holds; a larger one would hold what is to move beside it
FIRST_SCALE, LAST_SCALE = 2.0**8, 2.0**-16  # of losses

PUBLISHED: dict[str, dict[str, float]] = {
    "GoodDrag": {
        "iterations": 30,  # 10 trackings of 3 drags
        "learning_rate": 0.02,
        "motion_radius": 4,
        "drag_distance": 4.0,
        "tracking_radius": 12,
        "drags_per_tracking": 3,
        "levels": 7,
    },
    "DragDiffusion": {},
}


def published(objective: str) -> DragLatent:
    """The settings that a method's authors released. objective: a key of `PUBLISHED`."""
    return replace(DragLatent(), objective=objective, **PUBLISHED.get(objective, {}))  # type: ignore[arg-type]


@dataclass(frozen=True)
class DragResult:
    """original, dragged: (1, C, h, w) at the noise level `level` steps below that of the input.

    tracks: (I, N, 2), where each handle was found before every update and at each level's end, as shares of the image.
    losses: one a update. remaining: (N,), the last distance to each target in cells of the feature map.
    """

    original: Tensor
    dragged: Tensor
    level: int
    tracks: Tensor
    losses: list[float]
    remaining: Tensor


def drag_latent(
    read: ReadFeatures,
    schedule: NoiseSchedule,
    x: Tensor,
    sigmas: Tensor,
    points: DragPoints,
    config: DragLatent | None = None,
    mask: Tensor | None = None,
    on_drag: OnDrag | None = None,
    start: Tensor | None = None,
) -> DragResult:
    """Move the handles of an inverted latent to their targets; what is at its pins is to stay as it is.

    read: the model's features and estimate of x0, see `features`. schedule: the model's. x: (1, C, h, w) at sigmas[0].
    sigmas: (S + 1,), falling, those that remain to be sampled. mask: (1, 1, H, W), above 0 where the image may change;
    without one, or with one that is 0 everywhere, all of it may, as in DragDiffusion. start: like x, what the dragged
    latent begins as, such as x warped; its handles are looked for around their targets first, and may be there. Raises
    `InvalidInput` for a batch, for a start of another shape, for more levels than there are steps, when every handle of
    x has arrived before the first update, and when features or gradients are not finite.
    """
    config = config or DragLatent()
    x = x.float()
    if len(x) != 1:
        raise InvalidInput(f"a drag is of one image, got a batch of {len(x)}")
    if start is not None and start.shape != x.shape:
        raise InvalidInput(f"start must be of the latent's shape {tuple(x.shape)}, got {tuple(start.shape)}")
    if config.levels >= len(sigmas):
        raise InvalidInput(
            f"levels is {config.levels} but only {len(sigmas) - 1} sampling steps remain; take more steps, start "
            "earlier, or drag at fewer levels"
        )
    pinned = _pinned_cells(mask, x)
    original, dragged, handles = x, x, points.handles.to(x)
    if start is not None:
        dragged, handles = start.to(x), points.targets.to(x)
    tracks: list[Tensor] = []
    losses: list[float] = []
    loss_scale = _LossScale()

    def note(places: Tensor) -> None:
        tracks.append(places)
        if on_drag:
            on_drag(len(losses), config.levels * config.iterations, places)

    for done in range(config.levels):
        goes_on, is_ahead = done + 1 < config.levels, start is not None
        level = _Level(read, schedule, original, sigmas[done : done + 2], points, config, pinned, goes_on, is_ahead)
        if not done and start is None and (level.distances(handles) < config.reach).all():
            raise InvalidInput(
                f"every handle is within reach of its target already ({config.reach:g} cells); move them apart"
            )
        dragged, handles, following = level.optimise(dragged, handles, loss_scale, losses, note)
        if following is None or level.following is None:
            break
        original, dragged = level.following, following
    return DragResult(original, dragged, done, torch.stack(tracks), losses, level.distances(handles))


class _LossScale:
    """By what losses are multiplied before backward.

    A power of two: it changes nothing in float32 and saves small gradients in half precision.
    """

    def __init__(self) -> None:
        self.value = FIRST_SCALE

    def fall(self) -> None:
        """After a gradient that overflowed half precision. Raises when no scale can help."""
        self.value /= 2
        if self.value < LAST_SCALE:
            raise InvalidInput(
                "the model's gradients are not finite at any scale: lower learning_rate, or use float32 where it is not"
            )


class _Level:
    """A drag at one noise level: what the original looks like there, and the loop that moves the handles.

    following: the original after a step to the next level; None where neither that level nor a mask asks for it.
    """

    def __init__(
        self,
        read: ReadFeatures,
        schedule: NoiseSchedule,
        original: Tensor,
        sigmas: Tensor,
        points: DragPoints,
        config: DragLatent,
        pinned: Tensor | None,
        goes_on: bool,
        is_ahead: bool,
    ) -> None:
        self.read, self.sigmas, self.config, self.pinned = read, sigmas, config, pinned
        self.goes_on = goes_on  # to another level, unless all handles arrive
        self.is_ahead = is_ahead  # whether the handles are elsewhere from the first update on
        self.scale, self.next_scale = schedule.scale(sigmas[0]), schedule.scale(sigmas[1])
        start = original / self.scale * self.scale  # as the first update sees it, so that nothing has changed by then
        with torch.no_grad():
            self.features, x0 = read(start, sigmas[0], pinned is not None or goes_on)
        self.following = None if x0 is None else self._step(start, x0)
        self.origins, self.targets, self.pins = (
            to_grid(places.to(original), self.features.size) for places in (points.handles, points.targets, points.pins)
        )
        self.pin_radius = min(PIN_RADIUS, config.motion_radius)
        self.shown = self.features.at(self.origins)  # what the handles are tracked by
        self.patches = self.features.around(self.origins, config.motion_radius)
        self.pinned_patches = self.features.around(self.pins, self.pin_radius)

    @torch.enable_grad()
    def optimise(
        self,
        dragged: Tensor,
        handles: Tensor,
        loss_scale: _LossScale,
        losses: list[float],
        note: Callable[[Tensor], None],
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The dragged latent, its handles (shares of the image), and the latent at the next level if it is to go on.

        Appends each update's loss.
        """
        config, scale, size = self.config, self.scale, self.features.size
        z = (dragged / scale).detach().requires_grad_()  # what the paper optimises: the latent as the network sees it
        optimiser = torch.optim.Adam([z], config.learning_rate)
        places = to_grid(handles, size)
        update = 0
        while update < config.iterations:
            x = z * scale
            features, x0 = self.read(x, self.sigmas[0], self.pinned is not None)
            if (losses or self.is_ahead) and update % config.drags_per_tracking == 0:
                places = self._tracked(features, places)
            note(from_grid(places, size))
            if self._have_arrived(places):
                return x.detach(), from_grid(places, size), None
            loss = self._loss(features, None if x0 is None else self._step(x, x0), places)
            [gradient] = torch.autograd.grad(loss * loss_scale.value, [z])  # and none of the network's own weights
            value, is_finite = torch.stack([loss.detach(), gradient.isfinite().all()]).tolist()  # one wait for a GPU
            if not math.isfinite(value):
                raise InvalidInput(_why_not_finite(len(losses)))
            if not is_finite:
                loss_scale.fall()
                continue  # nothing was changed: once more
            z.grad = gradient / loss_scale.value
            optimiser.step()
            losses.append(value)
            update += 1
        x = (z * scale).detach()
        with torch.no_grad():
            features, x0 = self.read(x, self.sigmas[0], self.goes_on)
        places = self._tracked(features, places)
        note(from_grid(places, size))
        following = None if x0 is None or self._have_arrived(places) else self._step(x, x0)
        return x, from_grid(places, size), following

    def distances(self, handles: Tensor) -> Tensor:
        """From each handle (shares of the image) to its target, in cells: (N,)."""
        return self._distances(to_grid(handles, self.features.size))

    def _distances(self, places: Tensor) -> Tensor:
        return (self.targets - places).norm(dim=-1)

    def _have_arrived(self, places: Tensor) -> bool:
        return bool((self._distances(places) < self.config.reach).all())

    def _tracked(self, features: FeatureMap, places: Tensor) -> Tensor:
        return track_points(self.shown, features, places, self.config.tracking_radius)

    def _step(self, x: Tensor, x0: Tensor) -> Tensor:
        return step(x, x0, self.sigmas[0], self.sigmas[1])

    def _loss(self, features: FeatureMap, following: Tensor | None, places: Tensor) -> Tensor:
        config, distances = self.config, self._distances(places)
        lengths = distances.clamp(max=config.drag_distance)
        moves = (self.targets - places) * (lengths / distances.clamp(min=1e-6))[:, None]
        wanted = self.patches
        if config.objective == "DragDiffusion":
            with torch.no_grad():
                wanted = features.around(places, config.motion_radius)
        losses = motion_loss(features, places + moves, wanted, config.motion_radius)
        loss = losses.where(distances >= config.reach, 0).sum()
        if len(self.pins):
            loss = loss + motion_loss(features, self.pins, self.pinned_patches, self.pin_radius).sum()
        if following is not None and self.following is not None and self.pinned is not None:
            change = (following - self.following).abs() / self.next_scale  # eq. 4 of DragDiffusion
            loss = loss + config.mask_weight * (change * self.pinned).sum()
        return loss


def _why_not_finite(updates: int) -> str:
    if updates:
        return f"the drag is not finite after {updates} updates: lower learning_rate, or use float32 where it is not"
    return (
        "the model's features are not finite before the first update: check the model, its prompt and the latent, or "
        "use float32 where it is not"
    )


def _pinned_cells(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """(1, 1, h, w), 1 for the cells that must not change, see `free_cells`. None when all may."""
    if mask is None:
        return None
    free = free_cells(mask, (x.shape[2], x.shape[3]))
    return None if free.all() or not free.any() else (~free)[None, None].to(x)
