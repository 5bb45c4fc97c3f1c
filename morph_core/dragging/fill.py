"""What was behind something, as its surroundings suggest."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

SWEEPS = 32  # at each resolution


def filled(image: Tensor, hole: Tensor) -> Tensor:
    """The image with its hole filled smoothly from the border of the hole, as a membrane would (Laplace's equation).

    image: (1, C, H, W). hole: (1, 1, H, W), bool. Solved from coarse to fine by relaxation. An image that is all hole
    comes back as it is.
    """
    if hole.all() or not hole.any():
        return image
    return torch.where(hole, _solved(image, (~hole).to(image)), image)


def _solved(image: Tensor, known: Tensor) -> Tensor:
    """image, where `known` (1, 1, H, W) is 1; elsewhere harmonic."""
    if known.all():
        return image
    height, width = known.shape[-2:]
    padded, seen = (pad(x, (0, width % 2, 0, height % 2)) for x in (image * known, known))
    share = avg_pool2d(seen, 2)
    coarse = _solved(avg_pool2d(padded, 2) / share.clamp(min=1e-6), (share > 0).to(image))
    guess = interpolate(coarse, scale_factor=2, mode="bilinear")[..., :height, :width]
    kernel = image.new_tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]).div(4).expand(image.shape[1], 1, 3, 3)
    result = torch.where(known > 0, image, guess)
    for _ in range(SWEEPS):
        around = conv2d(pad(result, (1, 1, 1, 1), mode="replicate"), kernel, groups=image.shape[1])
        result = torch.where(known > 0, image, around)
    return result
