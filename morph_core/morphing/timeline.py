"""Where the frames of a sequence of pictures lie, and which have to be sampled for it.

A frame's position is a picture's number and how far it is from there to the next: 2.25 is a quarter of the way from the
third picture to the fourth. In a closed sequence of N pictures positions beyond N − 1 lead back to the first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InvalidInput
from .alphas import Alphas, alpha_schedule, path_at

MAX_PICTURES = 1000
Between = Callable[[Tensor, Tensor, Alphas], Tensor]
"""From what two pictures have, (1, ...) each, to what the frames between them have, (F, ...)."""


@dataclass(frozen=True)
class Segment:
    """The way from one picture to the next. rows: of the frames sampled between them. alphas: how far those are."""

    start: int
    end: int
    rows: tuple[int, ...]
    alphas: Alphas

    @property
    def ends(self) -> dict[int, float]:
        """The alpha of either picture; of one alone it is 0."""
        return {self.end: 1.0, self.start: 0.0}


@dataclass(frozen=True)
class Timeline:
    """positions: of the frames in the order in which they are shown, 0 .. N − 1, or to below N where it is closed.

    They may fall, and be the same again. Raises `InvalidInput` for fewer than two pictures, and for no or other
    positions.
    """

    positions: tuple[float, ...]
    pictures: int

    def __post_init__(self) -> None:
        segment_count(self.pictures, closed=False)
        if not self.positions:
            raise InvalidInput("a sequence's positions are empty; give one a frame")
        for position in self.positions:
            if not 0 <= position < self.pictures:  # also catches NaN
                raise InvalidInput(
                    f"positions among {self.pictures} pictures must be from 0 to below that number, got {position:g}"
                )

    @cached_property
    def sampled(self) -> tuple[float, ...]:
        """The positions of the frames to sample, each once and rising, with the pictures that they lie between."""
        pictures = {float(number) for place in self.positions for number in (math.floor(place), math.ceil(place))}
        return tuple(sorted({0.0 if place == self.pictures else place for place in {*self.positions, *pictures}}))

    @property
    def shown(self) -> list[int]:
        """The row, among those that are sampled, of each frame that is shown."""
        rows = {position: row for row, position in enumerate(self.sampled)}
        return [rows[position] for position in self.positions]

    @property
    def picture_rows(self) -> dict[int, int]:
        """The row of each picture that is sampled."""
        return {int(position): row for row, position in enumerate(self.sampled) if position.is_integer()}

    @property
    def segments(self) -> list[Segment]:
        """The segments that the sampled frames lie in; one of no frames and one picture for a picture on its own."""
        between: dict[int, list[int]] = {int(position): [] for position in self.sampled}
        for row, position in enumerate(self.sampled):
            if not position.is_integer():
                between[int(position)].append(row)
        ends = {(number + 1) % self.pictures for number, rows in between.items() if rows}
        return [
            Segment(
                number,
                (number + 1) % self.pictures if rows else number,
                tuple(rows),
                tuple(self.sampled[row] - number for row in rows),
            )
            for number, rows in between.items()
            if rows or number not in ends
        ]

    def between(self, pictures: Sequence[Tensor], blend: Between) -> Tensor:
        """What the sampled frames have (F, ...), of what each of the pictures has (1, ...)."""
        rows: list[Tensor | None] = [None] * len(self.sampled)
        for number, row in self.picture_rows.items():
            rows[row] = pictures[number]
        for segment in self.segments:
            if segment.rows:
                alphas = (0.0, *segment.alphas, 1.0)
                of_all = blend(pictures[segment.start], pictures[segment.end], alphas)
                for row, value in zip(segment.rows, of_all[1:-1].split(1), strict=True):
                    rows[row] = value
                rows[self.picture_rows[segment.start]] = of_all[:1]
                rows[self.picture_rows[segment.end]] = of_all[-1:]
        return torch.cat([value for value in rows if value is not None])

    def rescheduled(self, distances: Callable[[Sequence[int]], Sequence[float]]) -> "Timeline":
        """The timeline on which a frame has gone as much of its segment's path as its position says.

        distances: from rows of the frames that were sampled, which follow each other, to those between neighbours.
        """
        alphas_at: dict[int, Callable[[float], float]] = {}
        for segment in self.segments:
            if segment.rows:
                rows = [self.picture_rows[segment.start], *segment.rows, self.picture_rows[segment.end]]
                alphas_at[segment.start] = path_at((0.0, *segment.alphas, 1.0), distances(rows))

        def moved(position: float) -> float:
            number = math.floor(position)
            return position if position == number else number + alphas_at[number](position - number)

        return replace(self, positions=tuple(moved(position) for position in self.positions))


def segment_count(pictures: int, closed: bool) -> int:
    """How many segments lie between so many pictures. Raises `InvalidInput` for fewer than two, or very many."""
    if not 2 <= pictures <= MAX_PICTURES:
        raise InvalidInput(f"a sequence has 2 to {MAX_PICTURES} pictures, got {pictures}")
    return pictures if closed else pictures - 1


def timeline(
    pictures: int,
    frames: Sequence[int] = (16,),
    easings: Sequence[str] = ("linear",),
    holds: Sequence[int] = (0,),
    closed: bool = False,
) -> Timeline:
    """The timeline of all pictures, one after the other.

    frames: of each segment, both its pictures included, which it shares with its neighbours. easings: of each segment,
    keys of `EASINGS`. holds: for how many frames more each picture stays. One number or name is for all. closed: the
    last picture leads back to the first, which is not shown again. Raises `InvalidInput` for other counts or values.
    """
    segments = segment_count(pictures, closed)
    frames_of = _for_each("frames", frames, segments, "segments")
    easings_of = _for_each("easings", easings, segments, "segments")
    holds_of = _for_each("holds", holds, pictures, "pictures")
    if min(holds_of) < 0:
        raise InvalidInput(f"holds must not be negative, got {min(holds_of)}")
    shown: list[float] = []
    for segment, (count, easing) in enumerate(zip(frames_of, easings_of, strict=True)):
        shown += [float(segment)] * (1 + holds_of[segment])
        shown += [segment + alpha for alpha in alpha_schedule(count, easing)[1:-1]]
    return Timeline(tuple(shown if closed else [*shown, *[float(segments)] * (1 + holds_of[-1])]), pictures)


def timeline_of_values(values: Sequence[float], pictures: int, closed: bool = False) -> Timeline:
    """The timeline of a curve, or of how loud a sound is: 0 is the first picture and 1 the last, or the first again.

    Raises `InvalidInput` when there is no value, or one not in 0..1.
    """
    segments = segment_count(pictures, closed)
    for value in values:
        if not 0 <= value <= 1:  # also catches NaN
            raise InvalidInput(f"values must be from 0, the first picture, to 1, the last; got {value:g}")
    return Timeline(tuple(value * segments % pictures if closed else value * segments for value in values), pictures)


def _for_each(name: str, values: Sequence, count: int, of: str) -> Sequence:  # type: ignore[type-arg]
    if len(values) not in (1, count):
        raise InvalidInput(f"{name} must be one value or one for each of the {count} {of}, got {len(values)}")
    return list(values) * count if len(values) == 1 else list(values)
