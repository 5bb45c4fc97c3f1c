"""What the tests of a whole morph share: a small untrained model, two ends, a plain and a full morph."""

import torch

from morph_pack.morph_core.lora.fit import LoraFit
from morph_pack.morph_core.models.unet import UnetBackbone
from morph_pack.morph_core.recipes.image import PreparedImage
from morph_pack.morph_core.recipes.morph import Morph
from morph_pack.morph_core.sampling.schedule import VariancePreserving, alphas_cumprod, sigmas_of
from morph_pack.morph_core.toy.model import TEXT_WIDTH, TextEncoder, ToyModel

CAPTIONS = ("a happy red cat on mint", "a sad blue mouse on sky")
ALPHAS = alphas_cumprod()
SHORT_FIT = LoraFit(rank=2, steps=2, learning_rate=1e-2)
PLAIN = Morph(frames=4, steps=5, lora=None, attention=0.0, adain=False, reschedule=False)
FULL = Morph(frames=4, steps=5, lora=SHORT_FIT, attention=0.6, adain=True, reschedule=True)


def small_model(make_unet, prediction="epsilon"):
    """Untrained, of one level, for pictures of 16 pixels."""
    from diffusers import AutoencoderKL

    unet = make_unet(
        block_out_channels=(32,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=TEXT_WIDTH,
    )
    unet.conv_out.weight.data *= 0.3  # closer to a smooth function, so that frames do not blow up
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        autoencoder = AutoencoderKL(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
        )
        backbone = UnetBackbone(unet, VariancePreserving(sigmas_of(ALPHAS), prediction))
        return ToyModel(backbone, autoencoder.eval().requires_grad_(False), TextEncoder().eval().requires_grad_(False))


def picture(seed):
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def two_ends(model, random_lora):
    """Two prepared ends with LoRAs of different ranks that are far from small."""
    return tuple(
        PreparedImage(
            torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)),
            model.encode_text([caption]),
            random_lora(model.backbone.network, seed, rank=2 + seed),
        )
        for seed, caption in enumerate(CAPTIONS, start=1)
    )
