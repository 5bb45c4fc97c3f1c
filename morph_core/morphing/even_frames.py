"""Evenly spaced frames found by search: where to sample next, and which of the sampled frames to show.

One measured pass cannot place frames in a jump, of which it knows only that it lies between two of them. Halving the
longest steps finds it, and of all frames that were sampled those are shown whose steps vary least.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..errors import InvalidInput
from .alphas import Alphas, check_alphas

ROUNDS = 8  # of the search for the mean step; it settles in two or three
NEAREST = 2.0**-20  # of alpha: frames nearer to each other are not parted further


def alphas_between(alphas: Sequence[float], distances: Sequence[float], count: int) -> Alphas:
    """The middles of the `count` longest steps between frames at these rising alphas; fewer where none can be parted.

    distances: those between neighbours, one fewer than alphas.
    """
    known = _checked(alphas, distances)
    steps = [(distance, a, b) for distance, a, b in zip(distances, known, known[1:], strict=False) if b - a > NEAREST]
    longest = sorted(steps, reverse=True)[: max(0, count)]
    return tuple(sorted((a + b) / 2 for _, a, b in longest))


def alphas_within(alphas: Sequence[float], distances: Sequence[float], count: int) -> Alphas:
    """`count` alphas for one pass: each step is cut into equal parts, so that the longest part is as short as can be.

    alphas, distances: see `alphas_between`. In one pass it does nearly what that does in several. Fewer where none can
    be parted.
    """
    known = _checked(alphas, distances)
    widths = [b - a for a, b in zip(known, known[1:], strict=False)]
    parts = [1] * len(widths)
    for _ in range(max(0, count)):
        steps = [
            (distance / part, at)
            for at, (distance, part, width) in enumerate(zip(distances, parts, widths, strict=True))
            if width / part > NEAREST
        ]
        if steps:
            parts[max(steps)[1]] += 1
    return tuple(known[at] + widths[at] * i / part for at, part in enumerate(parts) for i in range(1, part))


def with_long_steps_cut(alphas: Sequence[float], distances: Sequence[float], frames: int) -> Alphas:
    """The alphas of a second pass of so many frames: the ends, and `alphas_within`. Fewer than two are refused."""
    if frames < 2:
        raise InvalidInput(f"a morph has at least 2 frames, its two ends; got frames = {frames}")
    between = alphas_within(alphas, distances, frames - 2)
    return (float(alphas[0]), *between, float(alphas[-1]))


def evenest(distances: Tensor, frames: int) -> list[int]:
    """Which of F frames in order to show so that their steps vary least: `frames` numbers, the first and last included.

    distances: (F, F), from each frame (row) to each later one. A dynamic programme finds the least sum of squares about
    the mean step, from the choice whose longest step is least on. Raises `InvalidInput` for more frames than there are.
    """
    chosen, between = least_longest(distances, frames), distances.double().cpu().numpy()
    for _ in range(ROUNDS):
        mean = between[chosen[:-1], chosen[1:]].mean()
        better = _cheapest((between - mean) ** 2, frames, longest=False)
        if better == chosen:
            break
        chosen = better
    return chosen


def least_longest(distances: Tensor, frames: int) -> list[int]:
    """The same for the choice whose longest step is least."""
    if not 2 <= frames <= len(distances):
        raise InvalidInput(f"frames must be from 2 to the {len(distances)} that were sampled, got {frames}")
    return _cheapest(distances.double().cpu().numpy(), frames, longest=True)


def _checked(alphas: Sequence[float], distances: Sequence[float]) -> Alphas:
    known = check_alphas(alphas)
    if len(distances) != len(known) - 1:
        raise InvalidInput(f"{len(known)} alphas need {len(known) - 1} distances, got {len(distances)}")
    return known


def _cheapest(costs: np.ndarray, frames: int, longest: bool) -> list[int]:
    """The rising numbers from the first to the last whose steps' greatest cost, or their sum, is least."""
    count = len(costs)
    best, before = np.full((frames, count), np.inf), np.zeros((frames, count), dtype=int)
    best[0, 0] = 0
    for place in range(1, frames):
        for frame in range(place, count):
            ways, steps = best[place - 1, :frame], costs[:frame, frame]
            totals = np.maximum(ways, steps) if longest else ways + steps
            before[place, frame] = totals.argmin()
            best[place, frame] = totals.min()
    chosen = [count - 1]
    for place in range(frames - 1, 0, -1):
        chosen.append(int(before[place, chosen[-1]]))
    return chosen[::-1]
