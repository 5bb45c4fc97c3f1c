"""What was behind something, as its surroundings suggest."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

SWEEPS, FINE_SWEEPS = 64, 4  # at each resolution, and where it is fine: what is left to mend there is small
FINE = 128  # pixels a side


def filled(image: Tensor, hole: Tensor) -> Tensor:
    """The image with its hole filled smoothly from the border of the hole, as a membrane would (Laplace's equation).

    image: (B, C, H, W). hole: (1, 1, H, W), bool. Solved from coarse to fine by relaxation. An image that is all hole
    comes back as it is.
    """
    if hole.all() or not hole.any():
        return image
    within = (..., *box_around(hole))
    result = image.clone()
    result[within] = torch.where(hole[within], _solved(image[within], (~hole[within]).to(image)), image[within])
    return result


def box_around(where: Tensor) -> tuple[slice, slice]:
    """The rows and columns of what is True in (1, 1, H, W), and of a pixel more to each side."""
    where = where[0, 0].nonzero()
    low, high = where.amin(0).tolist(), where.amax(0).tolist()
    rows, columns = (slice(max(0, first - 1), last + 2) for first, last in zip(low, high, strict=True))
    return rows, columns


def _solved(image: Tensor, known: Tensor) -> Tensor:
    """image, where `known` (1, 1, H, W) is 1; elsewhere harmonic."""
    if known.all():
        return image
    height, width = known.shape[-2:]
    padded, seen = (pad(x, (0, width % 2, 0, height % 2)) for x in (image * known, known))
    share = avg_pool2d(seen, 2)
    coarse = _solved(avg_pool2d(padded, 2) / share.clamp(min=1e-6), (share > 0).to(image))
    guess = interpolate(coarse, scale_factor=2, mode="bilinear")[..., :height, :width]
    is_known = known > 0
    result = torch.where(is_known, image, guess)
    for _ in range(SWEEPS if max(height, width) <= FINE else FINE_SWEEPS):
        wide = pad(result, (1, 1, 1, 1), mode="replicate")
        around = (wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1] + wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:]) / 4
        result = torch.where(is_known, image, around)
    return result
