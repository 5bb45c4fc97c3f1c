"""The genuine drawing nearest to a picture: its factors fitted by gradient descent through the renderer."""

from collections.abc import Sequence

import torch
from torch import Tensor

from morph_core.toy.drawing import KINDS, draw

from .factor_network import FactorNetwork, factor_range

STEPS = 60
SOFTNESS = (4.0, 1.0)  # edge width in pixels, from first to last step: blurred edges let gradients reach far


def nearest_drawings(
    network: FactorNetwork, pictures: Tensor, kinds: Sequence[int] = tuple(range(len(KINDS)))
) -> tuple[Tensor, Tensor]:
    """Kinds (B,) and factors (B, len(FACTORS)) of the drawing of least squared error to each picture.

    pictures: (B, 3, S, S) in 0..1. kinds: those to choose among, indices into `KINDS`. Starts from what the network
    reads, once for each of the kinds, and keeps the best; every factor stays in the range of genuine drawings, colours
    may be any.
    """
    rows, size = len(pictures), pictures.shape[-1]
    with torch.no_grad():
        _, read = network(pictures)
    low, high = factor_range()
    place = ((read - low) / (high - low)).clamp(0.02, 0.98).repeat(len(kinds), 1).requires_grad_(True)
    tried = torch.tensor(kinds)
    drawn = tried.repeat_interleave(rows)
    targets = pictures.repeat(len(kinds), 1, 1, 1)
    optimiser = torch.optim.Adam([place], lr=0.03)
    for step in range(STEPS):
        softness = SOFTNESS[0] + (SOFTNESS[1] - SOFTNESS[0]) * min(1.0, 1.5 * step / STEPS)
        error = (draw(drawn, low + (high - low) * place, size, softness) - targets).square().sum()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        with torch.no_grad():
            place.clamp_(0, 1)
    with torch.no_grad():
        factors = low + (high - low) * place
        errors = (draw(drawn, factors, size) - targets).square().flatten(1).mean(1).reshape(len(kinds), rows)
        best = errors.argmin(0)
        return tried[best], factors.reshape(len(kinds), rows, -1)[best, torch.arange(rows)]


def drawing_error(network: FactorNetwork, pictures: Tensor) -> Tensor:
    """(B,) root mean square difference of each picture (0..1) to its nearest genuine drawing."""
    kinds, factors = nearest_drawings(network, pictures)
    return (draw(kinds, factors, pictures.shape[-1]) - pictures).square().flatten(1).mean(1).sqrt()
