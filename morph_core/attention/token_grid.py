"""How the tokens of an attention layer lie on the latent."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..errors import InvalidInput


def token_grid(tokens: int, latent_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a layer's tokens, of a latent of (h, w) cells halved as often as it takes.

    An odd side is halved as strided convolutions and padded patches do it, upwards. Raises `InvalidInput` when no
    halving of the latent has so many tokens.
    """
    height, width = latent_size
    while height * width > tokens and (height > 1 or width > 1):
        height, width = -(-height // 2), -(-width // 2)
    if height * width != tokens:
        raise InvalidInput(
            f"a layer has {tokens} tokens, which is no halving of a latent of {latent_size[1]}x{latent_size[0]} cells; "
            "use a latent whose sides are multiples of 8, or leave out the mask and the matches"
        )
    return height, width


class TokenMask:
    """A soft mask of the latent's cells, as the tokens of its layers see it; each size is made once.

    cells: (1, 1, h, w) in 0..1.
    """

    def __init__(self, cells: Tensor) -> None:
        self.cells = cells
        self._made: dict[tuple[int, int, int], Tensor | None] = {}

    def of(self, tokens: int, frames: int = 1, padding: int = 0) -> Tensor | None:
        """(frames·tokens + padding, 1), the mean of each token's cells; None: 1 everywhere, to leave no trace of it.

        tokens: of one frame, which all are alike. padding: tokens of nothing behind them, with the mean of all. Raises
        `InvalidInput` as `token_grid` does.
        """
        key = (tokens, frames, padding)
        if key not in self._made:
            grid = token_grid(tokens, (self.cells.shape[-2], self.cells.shape[-1]))
            cells = self.cells
            while cells.shape[-2:] != grid:
                cells = avg_pool2d(cells, 2, ceil_mode=True)
            made = torch.cat([cells.flatten().repeat(frames), self.cells.mean().expand(padding)])[:, None]
            self._made[key] = None if bool((made == 1).all()) else made
        return self._made[key]
