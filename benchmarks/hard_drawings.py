"""Toy drawings on grounds that do not fill themselves: stripes, dots, and another face behind."""

import torch
from torch import Tensor

from morph_core.toy.drawing import FACTORS, KINDS, draw
from morph_core.toy.model import IMAGE_SIZE

PERIOD = 8  # pixels
COLOURS = torch.tensor([[0.95, 0.90, 0.80], [0.55, 0.70, 0.85]])
BACK = slice(-3, None)  # the ground's colour among the factors


def over(ground: Tensor, kinds: Tensor, factors: Tensor) -> Tensor:
    """The faces of drawings (B, 3, S, S) over another ground (1 or B, 3, S, S).

    A face is what it is over black.
    """
    return _over(0, kinds, factors) + (1 - silhouette(kinds, factors)) * ground


def silhouette(kinds: Tensor, factors: Tensor) -> Tensor:
    """(B, 3, S, S), 1 where the face is and 0 where the ground is seen, which black and white grounds tell."""
    out_of_sight = factors.clone()
    out_of_sight[:, [FACTORS.index("x"), FACTORS.index("y")]] = 10
    seen = _over(1, kinds, factors) - _over(0, kinds, factors)
    return 1 - seen / _over(1, kinds, out_of_sight)


def _over(grey: float, kinds: Tensor, factors: Tensor) -> Tensor:
    plain = factors.clone()
    plain[:, BACK] = grey
    return draw(kinds, plain, IMAGE_SIZE)


def on_stripes(kinds: Tensor, factors: Tensor) -> Tensor:
    """Slanting stripes."""
    x, y = _pixels()
    return over(_two_colours((x + 2 * y) % PERIOD < PERIOD // 2), kinds, factors)


def on_dots(kinds: Tensor, factors: Tensor) -> Tensor:
    """A grid of dots."""
    x, y = (axis % PERIOD - PERIOD / 2 + 0.5 for axis in _pixels())
    return over(_two_colours(x**2 + y**2 < (PERIOD / 3) ** 2), kinds, factors)


def before_another(kinds: Tensor, factors: Tensor) -> Tensor:
    """A bear of another colour, half hidden; it is the same for all, so that nothing of it moves."""
    behind = torch.zeros(1, len(FACTORS))
    looks = {"x": 0.32, "y": 0.42, "size": 0.26, "ear_size": 1.0, "eye_spacing": 0.42, "eye_size": 0.2, "brow": 0.3}
    colours = {"fur_r": 0.45, "fur_g": 0.35, "fur_b": 0.3, "back_r": 0.72, "back_g": 0.93, "back_b": 0.82}
    for name, value in {**looks, **colours}.items():
        behind[0, FACTORS.index(name)] = value
    return over(draw(torch.tensor([KINDS.index("bear")]), behind, IMAGE_SIZE), kinds, factors)


def _pixels() -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(IMAGE_SIZE), torch.arange(IMAGE_SIZE), indexing="ij")
    return x, y


def _two_colours(where: Tensor) -> Tensor:
    first, second = COLOURS[:, None, :, None, None]
    return torch.where(where, first, second)
