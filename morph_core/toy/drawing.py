"""Drawings of animal faces with known factors: the domain of the toy model.

A drawing is a kind (an index into `KINDS`) and a vector of continuous factors (`FACTORS`). It is rendered
from signed distances, so it is anti-aliased, fast in batches and differentiable in every factor; the
benchmarks use the last to fit the factors of the nearest genuine drawing to any picture.

Lengths and positions are shares of the picture's side, y grows downwards, angles are radians, colours are
RGB in 0..1. Inside the face one unit is the head's radius.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InvalidInput

KINDS = ("cat", "bear", "rabbit", "mouse")

# name: (lowest, highest) value in a genuine drawing; the colours' ranges are given by the palettes.
RANGES = {
    "x": (0.42, 0.58),
    "y": (0.54, 0.65),
    "size": (0.23, 0.29),
    "tilt": (-0.25, 0.25),
    "ear_size": (0.85, 1.15),
    "eye_spacing": (0.36, 0.48),
    "eye_size": (0.17, 0.24),
    "gaze_x": (-1.0, 1.0),
    "gaze_y": (-1.0, 1.0),
    "brow": (0.0, 1.0),
    "mouth_curve": (-1.0, 1.0),
    "mouth_open": (0.0, 1.0),
}
COLOUR_FACTORS = ("fur_r", "fur_g", "fur_b", "back_r", "back_g", "back_b")
FACTORS = (*RANGES, *COLOUR_FACTORS)

FUR_COLOURS = {
    "red": (0.84, 0.20, 0.18),
    "orange": (0.95, 0.56, 0.16),
    "yellow": (0.95, 0.84, 0.30),
    "green": (0.30, 0.68, 0.30),
    "blue": (0.22, 0.42, 0.84),
    "purple": (0.56, 0.26, 0.72),
}
BACKGROUNDS = {
    "mint": (0.72, 0.93, 0.82),
    "sky": (0.70, 0.86, 0.97),
    "sand": (0.94, 0.87, 0.72),
    "lilac": (0.85, 0.77, 0.95),
    "rose": (0.98, 0.80, 0.84),
}
COLOUR_JITTER = 0.03

# mood: ranges of (mouth_curve, mouth_open, brow)
MOODS = {
    "happy": ((0.6, 1.0), (0.0, 0.0), (0.3, 0.6)),
    "calm": ((-0.1, 0.1), (0.0, 0.0), (0.0, 0.3)),
    "sad": ((-1.0, -0.6), (0.0, 0.0), (0.0, 0.3)),
    "surprised": ((0.0, 0.0), (0.7, 1.0), (0.7, 1.0)),
}

DARK = (0.13, 0.09, 0.10)
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Drawings:
    """A batch of drawings: what they show in words, and in numbers.

    kinds: (B,) indices into `KINDS`. factors: (B, len(FACTORS)). captions: B strings, or none where the
    factors were not drawn from the named moods and palettes.
    """

    kinds: Tensor
    factors: Tensor
    captions: tuple[str, ...] = ()

    def render(self, size: int, softness: float = 1.0) -> Tensor:
        """(B, 3, size, size) in 0..1; see `draw`."""
        return draw(self.kinds, self.factors, size, softness)


def describe(mood: str, colour: str, kind: str, background: str) -> str:
    """The caption of a drawing, in the words the toy text encoder knows."""
    return f"a {mood} {colour} {kind} on {background}"


def sample_drawings(count: int, generator: torch.Generator) -> Drawings:
    """`count` random genuine drawings with their captions; the same generator state gives the same drawings."""

    def pick(options: Iterable[str]) -> list[str]:
        names = list(options)
        return [names[i] for i in torch.randint(len(names), (count,), generator=generator).tolist()]

    return _drawings(pick(KINDS), pick(FUR_COLOURS), pick(MOODS), pick(BACKGROUNDS), generator)


def one_drawing(kind: str, colour: str, mood: str, background: str, generator: torch.Generator) -> Drawings:
    """A genuine drawing that looks so; the generator decides the rest.

    Raises `InvalidInput` for a kind, colour, mood or background that there is not.
    """
    looks = {"animal": kind, "colour": colour, "mood": mood, "background": background}
    known = {"animal": KINDS, "colour": FUR_COLOURS, "mood": MOODS, "background": BACKGROUNDS}
    for name, value in looks.items():
        if value not in known[name]:
            raise InvalidInput(f"{name} must be one of {', '.join(known[name])}; got {value!r}")
    return _drawings([kind], [colour], [mood], [background], generator)


def _drawings(
    kinds: list[str], colours: list[str], moods: list[str], backgrounds: list[str], generator: torch.Generator
) -> Drawings:
    count = len(kinds)
    low, high = torch.tensor(list(RANGES.values())).T
    shape = low + (high - low) * torch.rand(count, len(RANGES), generator=generator)
    low, high = torch.tensor([MOODS[mood] for mood in moods]).movedim(-1, 0)  # (B, 3) each
    mood_values = low + (high - low) * torch.rand(count, 3, generator=generator)
    for column, name in enumerate(("mouth_curve", "mouth_open", "brow")):
        shape[:, FACTORS.index(name)] = mood_values[:, column]
    looks = list(zip(moods, colours, kinds, backgrounds, strict=True))
    palette = torch.tensor([(*FUR_COLOURS[colour], *BACKGROUNDS[back]) for _, colour, _, back in looks])
    jitter = COLOUR_JITTER * (2 * torch.rand(palette.shape, generator=generator) - 1)
    return Drawings(
        kinds=torch.tensor([KINDS.index(kind) for kind in kinds]),
        factors=torch.cat([shape, (palette + jitter).clamp(0, 1)], dim=1),
        captions=tuple(describe(*look) for look in looks),
    )


def draw(kinds: Tensor, factors: Tensor, size: int, softness: float = 1.0) -> Tensor:
    """Render drawings.

    kinds: (B,) indices into `KINDS`. factors: (B, len(FACTORS)), see `RANGES`. size: side in pixels.
    softness: width of an edge in pixels; 1 is an anti-aliased edge, more helps gradients reach far.
    Returns (B, 3, size, size) in 0..1, differentiable in `factors`.
    """
    f = {name: factors[:, i, None, None] for i, name in enumerate(FACTORS)}  # (B, 1, 1) each
    u, v = _face_coordinates(f, size)
    soft = softness / (f["size"] * size)  # an edge's width in face units

    def paint(picture: Tensor, distance: Tensor, colour: Tensor | tuple[float, ...]) -> Tensor:
        cover = (0.5 - distance / soft).clamp(0, 1)[:, None]  # (B, 1, H, W)
        ink = torch.as_tensor(colour, dtype=picture.dtype, device=picture.device)
        return picture + cover * (ink.reshape(-1, 3, 1, 1) - picture)

    fur, back = factors[:, -6:-3], factors[:, -3:]
    light = fur + 0.55 * (1 - fur)
    rows = torch.linspace(0, 1, size, dtype=factors.dtype, device=factors.device)[:, None]
    shade = (1 - 0.08 * rows)[None, None].expand(-1, -1, -1, size)
    picture = back[..., None, None] * shade
    side = u.abs()
    ear, inner_ear = _ears(kinds, side, v, f["ear_size"])
    picture = paint(picture, ear, 0.88 * fur)
    picture = paint(picture, inner_ear, light)
    picture = paint(picture, _ellipse(u, v, 0.0, 0.0, 1.0, 0.92), fur)
    picture = paint(picture, _ellipse(u, v, 0.0, 0.42, 0.50, 0.38), light)
    eye_x, eye_y, eye = f["eye_spacing"], -0.18, f["eye_size"]
    picture = paint(picture, _ellipse(side, v, eye_x, eye_y, eye, eye), WHITE)
    look_x, look_y = 0.35 * eye * f["gaze_x"], eye_y + 0.35 * eye * f["gaze_y"]
    for sign in (-1, 1):
        pupil = _ellipse(u, v, sign * eye_x + look_x, look_y, 0.55 * eye, 0.55 * eye)
        picture = paint(picture, pupil, DARK)
    brow_y = eye_y - eye - 0.07 - 0.16 * f["brow"]
    picture = paint(picture, _arc(side - eye_x, v - brow_y, 0.17, -0.04, 0.045), DARK)
    picture = paint(picture, _ellipse(u, v, 0.0, 0.22, 0.13, 0.09), DARK)
    mouth = _arc(u, v - 0.50, 0.27, 0.13 * f["mouth_curve"], 0.04)
    opening = _ellipse(u, v, 0.0, 0.53, 0.06 + 0.08 * f["mouth_open"], 0.02 + 0.14 * f["mouth_open"])
    gone = 4 * f["mouth_open"]  # an open mouth has no line across it
    picture = paint(picture, mouth + gone, DARK)
    return paint(picture, opening + 0.12 * (1 - f["mouth_open"]), (0.45, 0.10, 0.13))


def landmarks(kinds: Tensor, factors: Tensor) -> dict[str, Tensor]:
    """Where the named points of the face are: name -> (B, 2) as (x, y) shares of the picture's side.

    kinds: (B,) indices into `KINDS`, which decide where the ears' middles are.
    """
    f = {name: factors[:, i] for i, name in enumerate(FACTORS)}
    zero = torch.zeros_like(f["x"])
    brow_y = -0.18 - f["eye_size"] - 0.07 - 0.16 * f["brow"]
    ear, rabbit_v = f["ear_size"], -0.72 - 0.45 * f["ear_size"]
    middles = {  # of the part of each ear in `_ears` that the head does not hide
        "cat": (zero + 0.73, -0.44 - 0.60 * ear),
        "bear": (zero + 0.74, zero - 0.80),
        "rabbit": (0.42 - 0.18 * (rabbit_v + 0.8), rabbit_v),
        "mouse": (zero + 0.92, zero - 0.66),
    }
    tip_v = -0.72 - 1.07 * ear
    tips = {  # where the ear's end is seen, a little inside its outline
        "cat": (zero + 0.80, -0.35 - 0.90 * ear),
        "bear": (0.72 + 0.22 * ear, -0.72 - 0.22 * ear),
        "rabbit": (0.42 - 0.18 * (tip_v + 0.8), tip_v),
        "mouse": (0.92 + 0.34 * ear, -0.66 - 0.34 * ear),
    }
    rows = torch.arange(len(kinds), device=kinds.device)

    def of_kind(places: dict[str, tuple[Tensor, Tensor]], axis: int) -> Tensor:
        return torch.stack([places[kind][axis] for kind in KINDS])[kinds, rows]

    ear_u, ear_v, tip_u, tip_v = (of_kind(places, axis) for places in (middles, tips) for axis in (0, 1))
    face = {
        "nose": (zero, zero + 0.22),
        "left eye": (-f["eye_spacing"], zero - 0.18),
        "right eye": (f["eye_spacing"], zero - 0.18),
        "left brow": (-f["eye_spacing"], brow_y),
        "right brow": (f["eye_spacing"], brow_y),
        "left ear": (-ear_u, ear_v),
        "right ear": (ear_u, ear_v),
        "left ear tip": (-tip_u, tip_v),
        "right ear tip": (tip_u, tip_v),
        "mouth": (zero, 0.50 + 0.13 * f["mouth_curve"] + 0.03 * f["mouth_open"]),
    }
    cos, sin = f["tilt"].cos(), f["tilt"].sin()
    return {
        name: torch.stack([f["x"] + f["size"] * (u * cos - v * sin), f["y"] + f["size"] * (u * sin + v * cos)], dim=1)
        for name, (u, v) in face.items()
    }


def _face_coordinates(f: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor]:
    """(B, size, size) coordinates of every pixel's centre in the face's own frame, right and down."""
    steps = (torch.arange(size, dtype=f["x"].dtype, device=f["x"].device) + 0.5) / size
    dx, dy = (steps - f["x"]) / f["size"], (steps[:, None] - f["y"]) / f["size"]
    cos, sin = f["tilt"].cos(), f["tilt"].sin()
    return dx * cos + dy * sin, dy * cos - dx * sin


def _ellipse(
    u: Tensor, v: Tensor, cu: Tensor | float, cv: Tensor | float, ru: Tensor | float, rv: Tensor | float
) -> Tensor:
    """First-order signed distance to an ellipse (exact for a circle, and on the outline)."""
    du, dv = u - cu, v - cv
    k0 = ((du / ru) ** 2 + (dv / rv) ** 2 + 1e-8).sqrt()
    k1 = ((du / ru**2) ** 2 + (dv / rv**2) ** 2 + 1e-8).sqrt()
    return k0 * (k0 - 1) / k1


def _arc(u: Tensor, v: Tensor, half_width: float, sag: Tensor | float, thickness: float) -> Tensor:
    """First-order signed distance to a stroke along v = sag·(1 − (u/half_width)²), |u| <= half_width."""
    inside = u.clamp(-half_width, half_width)
    slope = -2 * sag * inside / half_width**2
    across = (v - sag * (1 - (inside / half_width) ** 2)) / (1 + slope**2) ** 0.5
    return ((u - inside) ** 2 + across**2 + 1e-8).sqrt() - thickness


def _triangle(u: Tensor, v: Tensor, corners: tuple[tuple[Tensor | float, Tensor | float], ...]) -> Tensor:
    """Signed distance to a triangle's three lines (corners clockwise on the screen), a little rounded."""
    edges = []
    for (au, av), (bu, bv) in zip(corners, (*corners[1:], corners[0]), strict=True):
        eu, ev = bu - au, bv - av
        edges.append(((u - au) * ev - (v - av) * eu) / (eu**2 + ev**2) ** 0.5)
    return torch.logsumexp(torch.stack(edges) * 24, dim=0) / 24


def _ears(kinds: Tensor, side: Tensor, v: Tensor, ear: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distances to the ears and to their insides; mirrored, so `side` is |u|. ear: (B, 1, 1) scale."""
    tip = -0.45 - 0.90 * ear
    cat = _triangle(side, v, ((0.22, -0.70), (0.80, tip), (0.96, -0.15)))
    cat_in = _triangle(side, v, ((0.42, -0.70), (0.77, tip + 0.24), (0.84, -0.40)))
    bear = _ellipse(side, v, 0.72, -0.72, 0.36 * ear, 0.36 * ear)
    bear_in = _ellipse(side, v, 0.72, -0.72, 0.20 * ear, 0.20 * ear)
    lean_u, lean_v = side + 0.18 * (v + 0.8), v
    rabbit = _ellipse(lean_u, lean_v, 0.42, -0.72 - 0.45 * ear, 0.23, 0.68 * ear)
    rabbit_in = _ellipse(lean_u, lean_v, 0.42, -0.76 - 0.45 * ear, 0.11, 0.48 * ear)
    mouse = _ellipse(side, v, 0.92, -0.66, 0.56 * ear, 0.56 * ear)
    mouse_in = _ellipse(side, v, 0.92, -0.66, 0.38 * ear, 0.38 * ear)
    ears = torch.stack([cat, bear, rabbit, mouse])  # (4, B, H, W), in the order of KINDS
    insides = torch.stack([cat_in, bear_in, rabbit_in, mouse_in])
    rows = torch.arange(len(kinds), device=kinds.device)
    return ears[kinds, rows], insides[kinds, rows]
