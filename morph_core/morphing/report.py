"""What a morph's frames measure: how long the path is, how even its steps are, where it jumps, and how it ends.

Nothing here is predicted: every number comes from pictures that were made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from ..denoise import OnStep
from ..errors import InvalidInput
from .alphas import MIN_PATH
from .perceptual import perceptual_distances

LONG = 1.5  # mean steps; a longer step is named
NEAR = 1 / 64  # of the way from one picture to the next; a long step over more of it may yet be parted by more frames
ISOLATED = 3.0  # times its neighbours' speed (distance by alpha); a steep but smooth change has neighbours as steep
LISTED = 5  # long steps that the text names, the longest first


@dataclass(frozen=True)
class LongStep:
    """A step of more than `LONG` mean steps.

    frames: the two, counted from 0. alphas: theirs, where known. share: of the path's length, 0..1. means: its length
    in mean steps. is_jump: whether the picture changes at once there.
    """

    frames: tuple[int, int]
    alphas: tuple[float, float] | None
    share: float
    means: float
    is_jump: bool

    def text(self) -> str:
        """A sentence."""
        if self.alphas is None:
            return self._uneven(f"frames {self.frames[0] + 1} and {self.frames[1] + 1}")
        if self.is_jump:
            place = _place(sum(self.alphas) / 2)
            return (
                f"The picture changes at once at {place} ({percent(self.share)} of the path); no spacing can part it."
            )
        return self._uneven(f"{_place(self.alphas[0])} and {_place(self.alphas[1])}")

    def _uneven(self, places: str) -> str:
        return (
            f"Uneven: {percent(self.share)} of the path lies between {places} ({self.means:.1f} mean steps); more "
            "frames there would part it, or show a jump."
        )


@dataclass(frozen=True)
class EndError:
    """How an end frame differs from the picture it should be: the greatest and the root mean square, of 0..1."""

    greatest: float
    rms: float

    def text(self) -> str:
        """What follows "differs from it by"."""
        return f"up to {self.greatest:.3g}, root mean square {self.rms:.2g}"


@dataclass(frozen=True)
class Report:
    """A measured pass.

    distances: of each frame to the next, F − 1 numbers >= 0; of a closed path F, the last from the last frame to the
    first. alphas: the frames' places, F numbers that need not rise, or None; from one picture to the next is 1.
    start, end: how the first and the last frame differ from what they should be, where that was given.

    A hold, two frames of one alpha that show the same, is no step: means and variances leave it out. Raises
    `InvalidInput` where a number is missing, not finite or a distance negative.
    """

    distances: tuple[float, ...]
    alphas: tuple[float, ...] | None = None
    closed: bool = False
    start: EndError | None = None
    end: EndError | None = None
    metric: str = "laplacian pyramid"

    def __post_init__(self) -> None:
        if not all(isfinite(distance) and distance >= 0 for distance in self.distances):
            raise InvalidInput(
                "every perceptual distance must be finite and not negative; are the frames valid images?"
            )
        if self.alphas is None:
            return
        if len(self.alphas) != self.frames:
            raise InvalidInput(f"images has {self.frames} frames but alphas has {len(self.alphas)}; they must match")
        if wrong := [alpha for alpha in self.alphas if not isfinite(alpha)]:
            raise InvalidInput(f"alphas must be finite numbers, got {wrong[0]}")

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.distances) + (not self.closed)

    @property
    def path_length(self) -> float:
        """The sum of the distances."""
        return sum(self.distances)

    @property
    def is_still(self) -> bool:
        """Whether all frames are one picture, but for rounding."""
        return self.path_length < MIN_PATH

    @property
    def mean_step(self) -> float:
        """The mean distance, without holds."""
        return self.path_length / (len(self._moving()) or 1)

    @property
    def variance(self) -> float:
        """Of the steps' distances, without holds (DiffMorpher's PDV, in the metric's own unit)."""
        moving = self._moving()
        return sum((self.distances[i] - self.mean_step) ** 2 for i in moving) / (len(moving) or 1)

    @property
    def longest(self) -> float:
        """The longest step, in mean steps; 1 on an even path, and on one that does not move."""
        return 1.0 if self.is_still else max(self.distances) / self.mean_step

    @property
    def long_steps(self) -> tuple[LongStep, ...]:
        """Steps of more than `LONG` mean steps, in order.

        One is a jump where its two frames' alphas are equal; or where they are no more than `NEAR` apart and the path
        is `ISOLATED` times as fast there as just before and just after. A change that is steep but smooth is as fast in
        the steps beside it, and can be parted by a spacing.
        """
        moving = [] if self.is_still else self._moving()
        long = [place for place, i in enumerate(moving) if self.distances[i] > LONG * self.mean_step]
        return tuple(self._long_step(moving, place) for place in long)

    @property
    def jumps(self) -> tuple[LongStep, ...]:
        """The long steps that are jumps."""
        return tuple(step for step in self.long_steps if step.is_jump)

    def summary(self) -> str:
        """The path, and how even it is: two lines."""
        if self.is_still:
            return f"{self.frames} frames that show the same picture: there is no path to measure."
        moving = self._moving()
        holds = len(self.distances) - len(moving)
        steps = f"{len(moving)} steps" + (f" and {holds} holds" if holds else "") + (", closed" if self.closed else "")
        deviation = self.variance**0.5 / self.mean_step
        return (
            f"Path length {self.path_length:.4g} ({self.metric}; {steps}), mean step {self.mean_step:.3g}.\n"
            f"Variance of the steps {self.variance:.2g}, their deviation {percent(deviation)} of "
            f"the mean step; longest step {self.longest:.2f} mean steps."
        )

    def text(self) -> str:
        """The report in words, a line each."""
        lines = [self.summary()]
        longest_first = sorted(self.long_steps, key=lambda step: (not step.is_jump, -step.share))
        lines += [step.text() for step in longest_first[:LISTED]]
        if unnamed := longest_first[LISTED:]:
            lines.append(f"{len(unnamed)} more steps are longer than {LONG} mean steps.")
        if not longest_first and not self.is_still:
            lines.append(f"No step is longer than {LONG} mean steps.")
        for name, error in (("first frame differs from start_image", self.start), ("last from end_image", self.end)):
            if error:
                lines.append(f"The {name} by {error.text()}.")
        return "\n".join(lines)

    def _widths(self) -> list[float]:
        """What lies between two frames' alphas, for each step; without alphas all that can."""
        if self.alphas is None:
            return [inf] * len(self.distances)
        return [abs(self.alphas[b] - self.alphas[a]) for a, b in map(self._ends, range(len(self.distances)))]

    def _ends(self, step: int) -> tuple[int, int]:
        return step, (step + 1) % self.frames

    def _moving(self) -> list[int]:
        """The steps that are no holds."""
        pairs = zip(self.distances, self._widths(), strict=True)
        return [i for i, (distance, width) in enumerate(pairs) if width > 0 or distance >= MIN_PATH]

    def _long_step(self, moving: Sequence[int], place: int) -> LongStep:
        step = moving[place]
        first, second = self._ends(step)
        alphas = None if self.alphas is None else (self.alphas[first], self.alphas[second])
        distance = self.distances[step]
        share, means = distance / self.path_length, distance / self.mean_step
        return LongStep((first, second), alphas, share, means, self._is_jump(moving, place))

    def _is_jump(self, moving: Sequence[int], place: int) -> bool:
        widths = self._widths()
        speeds = [self.distances[i] / widths[i] if widths[i] else inf for i in moving]
        width, places = widths[moving[place]], (place - 1, place + 1)
        beside = [speeds[i % len(speeds)] for i in places if self.closed or 0 <= i < len(speeds)]
        return width == 0 or (width <= NEAR and all(speeds[place] > ISOLATED * other for other in beside))


def morph_report(
    frames: Tensor,
    metric: str = "laplacian pyramid",
    alphas: Sequence[float] | None = None,
    start_image: Tensor | None = None,
    end_image: Tensor | None = None,
    closed: bool = False,
    on_step: OnStep | None = None,
    name: str = "images",
) -> Report:
    """Measure a morph's frames.

    frames: (F, 3, H, W) in 0..1. metric: a key of `perceptual.METRICS`. alphas: one number a frame. start_image,
    end_image: (1, 3, H, W) in 0..1, what the first and the last frame should be. closed: whether the last frame is
    followed by the first. name: what errors call the frames. Raises `InvalidInput` for fewer than two frames, values
    that are not finite, an end of another size, and what `Report` refuses.
    """
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise InvalidInput(f"{name} must be frames of shape (F, 3, H, W), got {tuple(frames.shape)}")
    if not torch.isfinite(frames).all():
        raise InvalidInput(f"{name} has values that are not finite (NaN or infinite); check what made it")
    whole = torch.cat([frames, frames[:1]]) if closed and len(frames) > 1 else frames
    return Report(
        distances=tuple(perceptual_distances(whole, metric, on_step, name).tolist()),
        alphas=None if alphas is None else tuple(float(alpha) for alpha in alphas),
        closed=closed,
        start=None if start_image is None else _end_error(frames[:1], start_image, "start_image"),
        end=None if end_image is None else _end_error(frames[-1:], end_image, "end_image"),
        metric=metric,
    )


def _end_error(frame: Tensor, image: Tensor, name: str) -> EndError:
    if image.shape != frame.shape:
        raise InvalidInput(
            f"{name} must be one picture of the frames' size {tuple(frame.shape)}, got {tuple(image.shape)}; scale it"
        )
    if not torch.isfinite(image).all():
        raise InvalidInput(f"{name} has values that are not finite (NaN or infinite); check what made it")
    difference = frame.float() - image.to(frame.device).float()
    return EndError(difference.abs().max().item(), difference.square().mean().sqrt().item())


def percent(share: float) -> str:
    """0.38 as "38 %"."""
    return f"{100 * share:.0f} %"


def _place(alpha: float) -> str:
    return f"{alpha:.3f}".rstrip("0").rstrip(".")
