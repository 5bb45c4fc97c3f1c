"""Handles and targets on an image, and the text that carries them.

A point is (x, y) as a share of the image, (0, 0) its top left corner and (1, 1) its bottom right one, so that it
means the same place in the image, in a feature map and in a preview of any size.
"""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..crop import CentreCrop
from ..errors import InvalidInput

VERSIONS = (1, 2)
"""Of the text; the second has pins."""
MOST_POINTS = 1000
LONGEST_TEXT = 1_000_000  # characters
SAME_PLACE = 1e-6
LARGEST = sys.float_info.max  # of numbers; whole ones may be of any size in a text


@dataclass(frozen=True)
class DragPoints:
    """handles, targets: (N, 2) each as (x, y) in 0..1; handle i is to be moved to target i.

    pins: (P, 2), places that are to stay. Raises `InvalidInput` for no points, other shapes, points outside the image
    and a handle that is its own target.
    """

    handles: Tensor
    targets: Tensor
    pins: Tensor = field(default_factory=lambda: torch.zeros(0, 2))

    def __post_init__(self) -> None:
        if self.pins.ndim != 2 or self.pins.shape[1] != 2:
            raise InvalidInput(f"pins must be of shape (P, 2), got {tuple(self.pins.shape)}")
        if self.handles.ndim != 2 or self.handles.shape != self.targets.shape or self.handles.shape[1] != 2:
            shapes = f"{tuple(self.handles.shape)} and {tuple(self.targets.shape)}"
            raise InvalidInput(f"points must be as many handles as targets, (N, 2) each; got {shapes}")
        if not len(self.handles):
            raise InvalidInput("points is empty: pick a handle on the picture, then where it should go")
        named = (("the handle of pair", self.handles), ("the target of pair", self.targets), ("pin", self.pins))
        for name, places in named:
            outside = ~((places >= 0) & (places <= 1)).all(-1)  # also catches NaN
            if outside.any():
                number = int(outside.nonzero()[0])
                x, y = places[number].tolist()
                raise InvalidInput(f"points: {name} {number + 1} is outside the image, at ({x:g}, {y:g})")
        same = (self.handles - self.targets).norm(dim=-1) < SAME_PLACE
        if same.any():
            number = int(same.nonzero()[0]) + 1
            raise InvalidInput(f"points: handle and target of pair {number} are the same place; move or remove one")


def parse_points(text: str, size: tuple[int, int]) -> DragPoints:
    """The points in a text. size: (width, height) of the image in pixels.

    Two forms are read: `{"v": 2, "points": [{"handle": [x, y], "target": [x, y]}, ...], "pins": [[x, y], ...]}` with
    shares of the image, of which version 1 has no pins, and `[{"x": x, "y": y}, ...]` in pixels, handle and target by
    turns. Raises `InvalidInput` for anything else.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"points must be text, got {type(text).__name__}")
    if not text.strip(" \t\n\r"):  # what JSON calls white space
        raise InvalidInput("points is empty: pick a handle on the picture, then where it should go")
    if len(text) > LONGEST_TEXT:
        raise InvalidInput(f"points is {len(text)} characters long; {MOST_POINTS} pairs need far less")
    constants: list[str] = []  # NaN and the like, which are no JSON although Python reads them

    def note(constant: str) -> float:
        constants.append(constant)
        return float(constant)

    try:
        value = json.loads(text, parse_constant=note)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"points is not JSON ({error}); clear it and pick the points anew") from error
    pairs, pins = (_pixel_pairs(value, size), []) if isinstance(value, list) else (_pairs(value), _pins(value))
    for given, name in ((pairs, "pairs"), (pins, "pins")):
        if len(given) > MOST_POINTS:
            raise InvalidInput(f"points has {len(given)} {name}; at most {MOST_POINTS} can be used at once")
    if constants:
        raise InvalidInput(f"points is not JSON (it has {constants[0]}); clear it and pick the points anew")
    places = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2, 2)
    staying = torch.tensor(pins, dtype=torch.float64).reshape(-1, 2)
    exact = DragPoints(places[:, 0], places[:, 1], staying)  # before rounding, which may bring a place into the image
    return DragPoints(exact.handles.float(), exact.targets.float(), exact.pins.float())


def _pairs(value: Any) -> list[Any]:
    if not isinstance(value, dict) or not isinstance(value.get("points"), list):
        raise InvalidInput(
            'points must be JSON like {"v": 1, "points": [{"handle": [0.5, 0.5], "target": [0.6, 0.5]}]}'
        )
    version, size = value.get("v", 1), value.get("size", [1, 1])
    if not _is_number(version) or version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise InvalidInput(f"points has version {_short(version)}, this is for versions {known}; update Morph & Drag")
    if not (isinstance(size, list) and len(size) == 2 and all(_is_number(side) and side > 0 for side in size)):
        raise InvalidInput(f"points: size must be the picture's [width, height] in pixels, got {_short(size)}")
    pairs = []
    for number, pair in enumerate(value["points"], 1):
        if not isinstance(pair, dict):
            raise InvalidInput(f"points: pair {number} must have a handle and a target, got {_short(pair)}")
        if pair.get("target") is None:
            raise InvalidInput(f"points: the handle of pair {number} has no target; place it or remove the handle")
        pairs.append([_place(pair.get(end), f"the {end} of pair {number}") for end in ("handle", "target")])
    return pairs


def _pins(value: dict[str, Any]) -> list[Any]:
    """Of version 2; in a text of version 1 the word means nothing, as any other."""
    if value.get("v", 1) == 1:
        return []
    pins = value.get("pins", [])
    if not isinstance(pins, list):
        raise InvalidInput(f"points: pins must be a list of places [x, y], got {_short(pins)}")
    return [_place(pin, f"pin {number}") for number, pin in enumerate(pins, 1)]


def _place(value: Any, name: str) -> list[float]:
    if not (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))):
        raise InvalidInput(f"points: {name} must be two numbers [x, y], got {_short(value)}")
    return [float(number) for number in value]


def _pixel_pairs(value: list[Any], size: tuple[int, int]) -> list[Any]:
    for number, point in enumerate(value, 1):
        if not (isinstance(point, dict) and _is_number(point.get("x")) and _is_number(point.get("y"))):
            raise InvalidInput(f"points: point {number} must have numbers x and y, got {_short(point)}")
    if len(value) % 2:
        raise InvalidInput(f"points has {len(value)} points, an odd number; each handle is followed by its target")
    places = [[point["x"] / size[0], point["y"] / size[1]] for point in value]
    return [places[i : i + 2] for i in range(0, len(places), 2)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def in_pixels(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Shares of the image (..., 2) as pixels of one of `size` (H, W), (0, 0) its corner, in double precision."""
    height, width = size
    return points.double() * torch.tensor([width, height], dtype=torch.float64, device=points.device)


def to_grid(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Shares of the image (..., 2) as positions on a grid of `size` (H, W) cells, clamped to the border's middles."""
    height, width = size
    cells = torch.tensor([width, height], dtype=points.dtype, device=points.device)
    return (points * cells - 0.5).clamp(min=torch.zeros_like(cells), max=cells - 1)


def from_grid(points: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `to_grid`, but for what that clamps."""
    (x, y), (height, width) = points.unbind(-1), size
    return torch.stack([(x + 0.5) / width, (y + 0.5) / height], dim=-1)


def points_in_crop(points: DragPoints, crop: CentreCrop) -> DragPoints:
    """Points of the image as points of the crop. Raises `InvalidInput` for one that was cut off."""
    handles, targets = crop.places(points.handles), crop.places(points.targets)
    outside = [((places < 0) | (places > 1)).any(-1) for places in (handles, targets)]
    pins = crop.places(points.pins)
    kept = ((pins >= 0) & (pins <= 1)).all(-1)  # one that is cut off has nothing to hold
    if (lost := outside[0] | outside[1]).any():
        raise InvalidInput(
            f"points: pair {int(lost.nonzero()[0]) + 1} reaches into the border that VAE Encode cuts off; move it, "
            "or crop the image to sides that are multiples of 8"
        )
    return DragPoints(handles, targets, pins[kept])
