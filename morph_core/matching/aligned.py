"""The ends of a morph, each led to the layout that a frame has between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ..attention.end_frames import AlignContexts
from ..attention.token_grid import token_grid
from ..dragging.backward import pixel_middles
from ..dragging.warp import AROUND, local_mean
from ..errors import InvalidInput
from ..morphing.alphas import Alphas
from .bilinear import Bilinear
from .matches import Matches

Seen = tuple[Bilinear, Bilinear]


@dataclass(frozen=True)
class AlignedEnds:
    """What the frames see of both ends when each end gives way to the other by alpha, as `Matches.ways` has it.

    Where nothing moves every value stays as it is. What is computed of a grid and alphas is kept.
    """

    matches: Matches
    _kept: dict[tuple[object, ...], Seen] = field(default_factory=dict, repr=False, compare=False)

    def latents(self, start: Tensor, end: Tensor, alphas: Alphas) -> tuple[Tensor, Tensor]:
        """Noise of either end, (1, C, ..., h, w) each, as it lies in each frame: two of (F, C, ..., h, w).

        Reading noise between its cells weakens it: the detail, not what is the same around, is made as strong again.
        """
        if start.shape != end.shape or start.ndim < 4 or len(start) != 1:
            raise InvalidInput(
                f"start and end must be of one shape (1, C, h, w), got {tuple(start.shape)} and {tuple(end.shape)}"
            )
        seen = self._seen((start.shape[-2], start.shape[-1]), alphas, start.device)
        return _noise(start, seen[0]), _noise(end, seen[1])

    def contexts_of(self, latent_size: Sequence[int]) -> AlignContexts:
        """`tokens`, of a latent of (h, w)."""
        height, width = latent_size
        return partial(self.tokens, latent_size=(height, width))

    def tokens(self, start: Tensor, end: Tensor, alphas: Alphas, latent_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Attention contexts of either end, (k, 1, T, D) each, as they lie in each frame: two of (k, F, T, D).

        There may be heads before T. latent_size: (h, w) of the latent, of whose halvings the tokens are one.
        """
        seen = self._seen(token_grid(start.shape[-2], latent_size), alphas, start.device)
        return _contexts(start, seen[0]), _contexts(end, seen[1])

    def _seen(self, size: tuple[int, int], alphas: Alphas, device: torch.device) -> Seen:
        key = (size, alphas, device)
        if key not in self._kept:
            ways, places = self.matches.ways(alphas, size), pixel_middles(size)
            alpha = torch.tensor(alphas, dtype=ways.dtype)[:, None, None, None]
            both = (places - alpha * ways, places + (1 - alpha) * ways)
            start, end = (Bilinear.at(came, size).to(device) for came in both)
            self._kept[key] = (start, end)
        return self._kept[key]


def _noise(latent: Tensor, reading: Bilinear) -> Tensor:
    """Of white noise the base, a mean over n cells, has the variance 1/n, and hardly loses any between cells."""
    flat = latent.flatten(1, -3).float()
    detail, of_base = flat - local_mean(flat), 1 / AROUND**2
    stronger = ((1 - of_base) / (reading.variance() - of_base)).sqrt() - 1  # (F, h, w)
    moved = reading.read(flat[0].flatten(1)) + stronger.to(flat) * reading.read(detail[0].flatten(1))  # (C, F, h, w)
    return moved.movedim(1, 0).reshape(-1, *latent.shape[1:]).to(latent)


def _contexts(tokens: Tensor, reading: Bilinear) -> Tensor:
    read = reading.read(tokens[:, 0].mT)  # (k, D, F, h, w), where there are heads (k, heads, D, F, h, w)
    return read.movedim(-3, 1).flatten(-2).mT
