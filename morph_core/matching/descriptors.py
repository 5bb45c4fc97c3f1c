"""What a network knows of each place of an image: its decoder's features of the image with some noise (DIFT).

Tang et al. 2023, "Emergent correspondence from image diffusion": features at a middle noise level are alike where two
images show the same part. They are the model's own, no further network is asked.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..errors import UnsupportedModel
from ..models.backbone import Backbone
from ..models.features import DEFAULT_BLOCK, up_block_features
from ..models.text import Text

NOISE_LEVEL = 0.26  # of the training's timesteps: DIFT's 261 of 1000
NOISES = 8  # over which features are averaged, as published
MOST_TOKENS = 4096


@torch.no_grad()
def descriptors(
    backbone: Backbone, text: Text, latent: Tensor, block: str = DEFAULT_BLOCK, noises: int = NOISES, seed: int = 0
) -> Tensor:
    """Features (D, h, w) of a clean latent (1, C, H, W), on the CPU in double precision, of at most `MOST_TOKENS`.

    text: of one row. Averaged over `noises` draws from the seed; two images are to have different seeds, or what the
    noise shows at a place would be alike in both. Raises `UnsupportedModel` for a network without up blocks.
    """
    read = up_block_features(_up_blocks(backbone), backbone.denoiser(text), block)
    sigmas = backbone.schedule.sigmas
    sigma = sigmas[round(NOISE_LEVEL * (len(sigmas) - 1))].to(latent)
    generator, seen = torch.Generator().manual_seed(seed), []
    for _ in range(noises):
        noise = torch.randn(latent.shape, generator=generator).to(latent)
        features, _ = read(backbone.schedule.noised(latent, noise, sigma), sigma, False)
        seen.append(features.values[0].double().cpu())
    return _pooled(torch.stack(seen).mean(0))


def _up_blocks(backbone: Backbone) -> list[torch.nn.Module]:
    try:
        return list(backbone.up_blocks())
    except UnsupportedModel as error:
        raise UnsupportedModel(
            "layouts are matched by the features of a UNet's up blocks, which this model has not; leave the matching "
            "out, or use a Stable Diffusion 1.x, 2.x or XL model"
        ) from error


def _pooled(features: Tensor) -> Tensor:
    height, width = features.shape[-2:]
    while height * width > MOST_TOKENS:
        height, width = -(-height // 2), -(-width // 2)
    return adaptive_avg_pool2d(features, (height, width))
