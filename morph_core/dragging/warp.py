"""A drag by warping: what is in the mask moves as its points say, and what it leaves is filled, and named.

After Inpaint4Drag (Lu and Han, ICCV 2025) and FastDrag (Zhao et al., NeurIPS 2024): no model is asked. The field is
another than theirs, see `moving_least_squares`: it turns what two handles turn. It is a backward field, so that no
place of the result is left empty, and pictures are read between pixels. It is computed on the CPU, in double
precision.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d

from ..errors import InvalidInput
from .backward import pixel_middles
from .fill import box_around, filled
from .moves import Move, Warp, moves_of
from .points import DragPoints

ROUNDING = 1e-6  # of shares of a pixel
AROUND = 5  # cells a side, over which a latent's detail is told from its base


@dataclass(frozen=True)
class Warped:
    """values: the picture or the latent. The other tensors are (1, 1, H, W), bool.

    pieces: what moves, where it was; without a mask, all that changes. moved: where something came to. uncovered: what
    was left. A pixel that the edge of what moved goes through is both of the last two. has_edges: whether there was a
    mask.
    """

    values: Tensor
    pieces: Tensor
    moved: Tensor
    uncovered: Tensor
    has_edges: bool

    def to_repaint(self, rim: int, whole: bool = False) -> Tensor:
        """(1, 1, H, W), bool: what was uncovered and, `rim` cells to either side, the edge of what moved.

        whole: all that moved, too. Without a mask nothing has an edge, and everything that moved is meant.
        """
        if not self.has_edges:
            return _grown(self.moved, rim)
        inner = torch.zeros_like(self.moved) if whole else ~_grown(~self.moved, rim)
        return self.uncovered | (_grown(self.moved, rim) & ~inner)


def warp_image(
    image: Tensor,
    points: DragPoints,
    mask: Tensor | None = None,
    config: Warp | None = None,
    depth: Tensor | None = None,
) -> Warped:
    """Drag points of pictures (B, C, H, W) in 0..1, all of them alike, such as the frames of a video.

    mask: (1, 1, H, W), above 0 where something moves; each piece of it moves for itself, by the points in it. With
    none, or one that is 0 everywhere, everything near the arrows moves, less and less with the distance. What was left
    is filled by `filled`. depth: (1, 1, H, W), 0 far to 1 near, for the field "nearest". Raises `InvalidInput` as
    `moves_of` does, and for a mask or depth of another size.
    """
    pixels, moves = image.cpu().double(), _moves(image, points, mask, config, depth)
    left, result = _left(moves, pixels)
    shares = torch.zeros_like(left, dtype=torch.float64)
    for move in moves:
        share = _share(move, "bilinear")
        shares = torch.maximum(shares, share)
        if share.any():
            rows, columns = box_around(share > 0)
            seen = _read(pixels, move.came[rows, columns], "bicubic", "border").clamp(0, 1)
            within = (..., rows, columns)
            result[within] = torch.lerp(result[within], seen, share[within])
    return _warped(result.to(image), left, shares > ROUNDING, left & (shares < 1 - ROUNDING))


def warp_latent(
    latent: Tensor,
    points: DragPoints,
    mask: Tensor | None = None,
    config: Warp | None = None,
    depth: Tensor | None = None,
    seed: int = 0,
) -> Warped:
    """The same of latents (B, C, ..., h, w) with noise in them: values are moved as they are, never mixed.

    mask, depth: (1, 1, h, w). What was left gets the base that its surroundings suggest and seeded noise, as strong as
    the detail there is elsewhere, so that the latent's variance stays what a model expects.
    """
    flat = latent.flatten(1, -3).cpu().double()
    moves = _moves(flat, points, mask, config, depth)
    left, base = _left(moves, flat)
    result = _with_detail(base, flat, left, seed)
    moved = torch.zeros_like(left)
    for move in moves:
        here = _share(move, "nearest") > 0
        result = torch.where(here, _read(flat, move.came, "nearest", "border"), result)
        moved |= here
    return _warped(result.reshape(latent.shape).to(latent), left, moved, left & ~moved)


def _warped(values: Tensor, left: Tensor, moved: Tensor, uncovered: Tensor) -> Warped:
    has_edges = bool(left.any())
    left, moved, uncovered = (where.to(values.device) for where in (left, moved, uncovered))
    return Warped(values, left if has_edges else moved, moved, uncovered, has_edges)


def _moves(
    values: Tensor, points: DragPoints, mask: Tensor | None, config: Warp | None, depth: Tensor | None
) -> list[Move]:
    shape = (1, 1, *values.shape[2:])
    for name, given in (("mask", mask), ("depth", depth)):
        if given is not None and given.shape != shape:
            raise InvalidInput(f"{name} must be of shape {shape}, got {tuple(given.shape)}")
    on_cpu = DragPoints(points.handles.cpu(), points.targets.cpu(), points.pins.cpu())
    moving = None if mask is None else (mask > 0)[0, 0].cpu()
    near = None if depth is None else depth[0, 0].cpu().double()
    return moves_of(on_cpu, moving, (shape[2], shape[3]), config or Warp(), near)


def _left(moves: list[Move], values: Tensor) -> tuple[Tensor, Tensor]:
    """The places that pieces leave, (1, 1, H, W), and the values with each of them filled."""
    left = torch.zeros(1, 1, *values.shape[2:], dtype=torch.bool)
    for move in moves:
        if move.leaves:
            values, left = filled(values, move.piece[None, None]), left | move.piece
    return left, values.clone()


def _share(move: Move, mode: str) -> Tensor:
    """(1, 1, H, W), how much of each place what moves has come to; without a mask, 1 where another place is shown."""
    if move.leaves:
        return _read(move.piece[None, None].double(), move.came, mode, "zeros")
    height, width, _ = move.came.shape
    return (move.came != pixel_middles((height, width))).any(-1)[None, None].double()


def _read(values: Tensor, came: Tensor, mode: str, padding: str) -> Tensor:
    """(B, C, h, w), of came (h, w, 2); between cells but for "nearest"."""
    height, width = values.shape[-2:]
    grid = (came / torch.tensor([width, height]) * 2 - 1)[None].expand(len(values), -1, -1, -1)
    return grid_sample(values, grid, mode=mode, padding_mode=padding, align_corners=False)


def local_mean(latent: Tensor) -> Tensor:
    """A latent's base: the mean around each cell of (B, C, h, w)."""
    return avg_pool2d(latent, AROUND, 1, AROUND // 2, count_include_pad=False)


def _with_detail(base: Tensor, latent: Tensor, hole: Tensor, seed: int) -> Tensor:
    """The base with noise in its hole, of the deviation (per channel) that the latent has around its own base."""
    if not hole.any():
        return base
    detail = latent - local_mean(latent)
    kept = (~hole).to(latent)
    strength = ((detail.square() * kept).sum((2, 3), keepdim=True) / kept.sum()).sqrt()
    strength = strength * (AROUND**2 / (AROUND**2 - 1)) ** 0.5  # an average over so many takes its share of white noise
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latent.shape, generator=generator, dtype=torch.float32).to(latent)
    return torch.where(hole, base + strength * noise, base)


def _grown(where: Tensor, by: int) -> Tensor:
    return max_pool2d(where.float(), 2 * by + 1, 1, by) > 0
