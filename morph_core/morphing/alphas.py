"""Blend weights of a morph's frames: making them, checking them, and spacing them evenly to the eye."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import InvalidInput

Alphas = tuple[float, ...]
"""One weight a frame, 0..1, never falling: 0 is the first image, 1 the second."""

EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda t: t,
    "ease in": lambda t: t * t,
    "ease out": lambda t: 1 - (1 - t) ** 2,
    "ease in and out": lambda t: (1 - math.cos(math.pi * t)) / 2,
}


MIN_PATH = 1e-4  # a path shorter than this is rounding: all frames are the same picture


def alpha_schedule(frames: int, easing: str = "linear") -> Alphas:
    """`frames` alphas from 0 to 1. easing: a key of `EASINGS`.

    Raises `InvalidInput` for fewer than two frames or an unknown easing.
    """
    if frames < 2:
        raise InvalidInput(f"a morph has at least 2 frames, its two ends; got frames = {frames}")
    if easing not in EASINGS:
        raise InvalidInput(f"easing must be one of {', '.join(EASINGS)}; got {easing!r}")
    return tuple(EASINGS[easing](i / (frames - 1)) for i in range(frames))


def check_alphas(alphas: Sequence[float]) -> Alphas:
    """`alphas` as a tuple. Raises `InvalidInput` when empty, outside 0..1, not finite or falling."""
    values = tuple(float(alpha) for alpha in alphas)
    if not values:
        raise InvalidInput("alphas is empty; give one weight a frame, for example from Alpha Schedule")
    for alpha in values:
        if not 0 <= alpha <= 1:  # also catches NaN
            raise InvalidInput(f"alphas must be between 0 and 1, got {alpha}")
    for before, after in zip(values, values[1:], strict=False):
        if after < before:
            raise InvalidInput(f"alphas must never fall, got {before:g} followed by {after:g}; sort them")
    return values


def reschedule_alphas(alphas: Sequence[float], distances: Sequence[float], frames: int) -> Alphas:
    """Alphas at which the path's length is spaced evenly (DiffMorpher, section 3.5).

    alphas: those of F frames already made. distances: the F − 1 perceptual distances between neighbours,
    >= 0. frames: how many alphas to return. The first and the last alpha stay. A path of no length (two equal
    images; shorter than `MIN_PATH`) is spaced evenly in alpha.
    """
    if frames < 2:
        raise InvalidInput(f"a morph has at least 2 frames, its two ends; got frames = {frames}")
    alpha_at = path_at(alphas, distances)
    inner = [alpha_at(i / (frames - 1)) for i in range(1, frames - 1)]
    return (float(alphas[0]), *inner, float(alphas[-1]))


def path_at(alphas: Sequence[float], distances: Sequence[float]) -> Callable[[float], float]:
    """From a share 0..1 of a measured path's length to the alpha there, between the frames linearly.

    alphas, distances: see `reschedule_alphas`.
    """
    known = check_alphas(alphas)
    lengths = np.asarray(distances, dtype=np.float64)
    if len(lengths) != len(known) - 1:
        raise InvalidInput(f"{len(known)} alphas need {len(known) - 1} distances, got {len(lengths)}")
    if not (np.isfinite(lengths).all() and (lengths >= 0).all()):
        raise InvalidInput("every perceptual distance must be finite and not negative; are the frames valid images?")
    travelled = np.concatenate([[0.0], np.cumsum(lengths)])
    if travelled[-1] < MIN_PATH:
        return lambda share: known[0] + share * (known[-1] - known[0])
    return lambda share: float(np.interp(share * travelled[-1], travelled, known))
