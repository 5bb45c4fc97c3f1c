"""A three-level UNet with random weights: its latents are 8 cells wide, its up blocks' outputs 4, 8 and 8."""

import pytest
import torch

from morph_pack.morph_core.dragging.points import from_grid, to_grid
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.models.feature_map import FeatureMap
from morph_pack.morph_core.models.features import CELLS_PER_LATENT_CELL, FEATURE_BLOCKS, up_block_features
from morph_pack.morph_core.sampling.schedule import alphas_cumprod, sigmas_of
from morph_tests.networks import denoiser_of

TRAIN_SIGMAS = sigmas_of(alphas_cumprod())
SIGMA = TRAIN_SIGMAS[681]
SECOND_TO_LAST = "second to last up block"
EVERY_BLOCK = pytest.mark.parametrize("block", FEATURE_BLOCKS)


def latent(height=8, width=8):
    x = torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(1))
    return x * (SIGMA**2 + 1) ** 0.5


@pytest.fixture
def denoise(unet):
    text = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(2))
    return denoiser_of(unet, text, TRAIN_SIGMAS)


class Called:
    """Counts a module's calls and keeps its last output."""

    def __init__(self, module):
        self.count, self.output = 0, None
        module.register_forward_hook(self)

    def __call__(self, module, args, output):
        self.count, self.output = self.count + 1, output


def raw_features(unet, denoise, block, x):
    """What the block puts out in a whole pass, before it is resized."""
    called = Called(unet.up_blocks[FEATURE_BLOCKS[block]])
    denoise(x, SIGMA)
    return called.output


def hooks_of(unet):
    return [hook for module in unet.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


@EVERY_BLOCK
def test_features_are_the_blocks_output_at_four_times_the_latents_resolution(unet, denoise, block):
    x = latent()
    features, _ = up_block_features(unet.up_blocks, denoise, block)(x, SIGMA, False)
    raw = raw_features(unet, denoise, block, x)
    assert torch.equal(features.values, raw) and features.size == (32, 32)


@EVERY_BLOCK
def test_a_place_of_the_image_is_at_the_same_place_in_the_features(unet, denoise, block):
    x = latent(8, 16)
    features, _ = up_block_features(unet.up_blocks, denoise, block)(x, SIGMA, False)
    raw = raw_features(unet, denoise, block, x)
    assert features.size == (32, 64)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(64), indexing="ij")
    middles = from_grid(torch.stack([columns, rows], dim=-1).float(), (32, 64))
    middles_of_raw = to_grid(middles, raw.shape[-2:])
    at_middles = FeatureMap(raw, tuple(raw.shape[-2:])).at(middles_of_raw)
    torch.testing.assert_close(features.at(to_grid(middles, (32, 64))), at_middles, rtol=0, atol=1e-4)


@EVERY_BLOCK
def test_features_are_the_same_whether_z0_is_wanted_or_not(unet, denoise, block):
    read, x = up_block_features(unet.up_blocks, denoise, block), latent()
    alone, nothing = read(x, SIGMA, False)
    beside, x0 = read(x, SIGMA, True)
    assert torch.equal(alone.values, beside.values)
    assert nothing is None and x0 is not None


@EVERY_BLOCK
def test_z0_is_the_denoisers(unet, denoise, block):
    _, x0 = up_block_features(unet.up_blocks, denoise, block)(latent(), SIGMA, True)
    assert torch.equal(x0, denoise(latent(), SIGMA))


@EVERY_BLOCK
def test_what_comes_after_the_block_is_computed_only_for_z0(unet, denoise, block):
    later = [*unet.up_blocks[FEATURE_BLOCKS[block] :][1:], unet.conv_norm_out, unet.conv_out]
    calls = [Called(module) for module in later]
    before = Called(unet.up_blocks[0])
    read = up_block_features(unet.up_blocks, denoise, block)
    read(latent(), SIGMA, False)
    assert before.count == 1 and [call.count for call in calls] == [0] * len(later)
    read(latent(), SIGMA, True)
    assert before.count == 2 and [call.count for call in calls] == [1] * len(later)


def test_the_blocks_are_three_different_ones(unet, denoise):
    everywhere = torch.cartesian_prod(torch.arange(32), torch.arange(32))
    maps = [
        up_block_features(unet.up_blocks, denoise, block)(latent(), SIGMA, False)[0].at(everywhere)
        for block in FEATURE_BLOCKS
    ]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert (maps[first] - maps[second]).abs().max() > 0.1


def test_the_published_block_is_the_default(unet, denoise):
    assert FEATURE_BLOCKS[SECOND_TO_LAST] == -2 and CELLS_PER_LATENT_CELL == 4
    default, named = (up_block_features(unet.up_blocks, denoise, *block) for block in ((), (SECOND_TO_LAST,)))
    assert torch.equal(default(latent(), SIGMA, False)[0].values, named(latent(), SIGMA, False)[0].values)


def gradient(read, wants_x0):
    x = latent().requires_grad_()
    features = read(x, SIGMA, wants_x0)[0].values
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(3))
    (features * weights).sum().backward()
    return x.grad


def test_the_gradient_is_that_of_a_whole_pass(unet, denoise):
    read = up_block_features(unet.up_blocks, denoise)
    short, whole = gradient(read, False), gradient(read, True)
    assert torch.equal(short, whole)
    assert whole.abs().max() > 0.1


def test_the_gradient_is_the_slope(unet, denoise):
    unet.double()
    read = up_block_features(unet.up_blocks, denoiser_of(unet, torch.ones(1, 5, 16), TRAIN_SIGMAS))
    x = latent().double().requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    read(x, SIGMA, False)[0].values.square().mean().backward()
    ends = [read((x + sign * 1e-2 * direction).detach(), SIGMA, False)[0].values.square().mean() for sign in (1, -1)]
    slope = (ends[0] - ends[1]).item() / 2e-2
    assert (x.grad * direction).sum().item() == pytest.approx(slope, rel=2e-2)


def test_z0_has_a_gradient_too(unet, denoise):
    x = latent().requires_grad_()
    _, x0 = up_block_features(unet.up_blocks, denoise)(x, SIGMA, True)
    direct = latent().requires_grad_()
    x0.square().sum().backward()
    denoise(direct, SIGMA).square().sum().backward()
    torch.testing.assert_close(x.grad, direct.grad)


def test_features_follow_the_latent(unet, denoise):
    read, x = up_block_features(unet.up_blocks, denoise), latent()
    other = x.flip(-1)
    assert (read(x, SIGMA, False)[0].values - read(other, SIGMA, False)[0].values).abs().max() > 0.1
    assert torch.equal(read(x, SIGMA, False)[0].values, read(x, SIGMA, False)[0].values)


def test_a_half_precision_models_features_are_float32(unet):
    text = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(2))
    whole, _ = up_block_features(unet.up_blocks, denoiser_of(unet, text, TRAIN_SIGMAS))(latent(), SIGMA, False)
    unet.to(torch.bfloat16)
    half, _ = up_block_features(unet.up_blocks, denoiser_of(unet, text, TRAIN_SIGMAS))(latent(), SIGMA, False)
    assert half.values.dtype == torch.float32
    assert (half.values - whole.values).abs().mean() < 0.05 * whole.values.abs().mean()


@pytest.mark.parametrize("wants_x0", [False, True])
def test_no_hook_stays(unet, denoise, wants_x0):
    up_block_features(unet.up_blocks, denoise)(latent(), SIGMA, wants_x0)
    assert hooks_of(unet) == []


@pytest.mark.parametrize("wants_x0", [False, True])
def test_an_exception_of_the_denoiser_passes_and_leaves_no_hook(unet, denoise, wants_x0):
    def broken(x, sigma):
        if wants_x0:  # then the pass does not end with the block
            denoise(x, sigma)
        raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        up_block_features(unet.up_blocks, broken)(latent(), SIGMA, wants_x0)
    assert hooks_of(unet) == []


@pytest.mark.parametrize(("place", "wants_x0"), [("mid_block", False), ("mid_block", True), ("conv_out", True)])
def test_an_exception_inside_the_network_passes_and_leaves_no_hook(unet, denoise, place, wants_x0):
    def out_of_memory(*_):
        raise MemoryError(place)

    broken = getattr(unet, place).register_forward_pre_hook(out_of_memory)
    with pytest.raises(MemoryError, match=place):
        up_block_features(unet.up_blocks, denoise)(latent(), SIGMA, wants_x0)
    broken.remove()
    assert hooks_of(unet) == []
    assert torch.isfinite(denoise(latent(), SIGMA)).all()  # whole passes are whole again


def test_the_hooks_of_others_stay(unet, denoise):
    others = Called(unet.up_blocks[-2])
    up_block_features(unet.up_blocks, denoise)(latent(), SIGMA, False)
    assert len(hooks_of(unet)) == 1 and others.count == 1


@pytest.mark.parametrize("block", ["", "up_blocks.2", "first up block", "Last up block"])
def test_an_unknown_block_is_refused_and_the_known_are_told(unet, denoise, block):
    with pytest.raises(InvalidInput, match="feature_block must be one of") as refused:
        up_block_features(unet.up_blocks, denoise, block)
    assert repr(block) in str(refused.value) and all(name in str(refused.value) for name in FEATURE_BLOCKS)


@pytest.mark.parametrize("block", [SECOND_TO_LAST, "third to last up block"])
def test_a_block_that_the_model_lacks_is_refused(small_unet, denoise, block):
    with pytest.raises(InvalidInput, match=f"feature_block is the {block} but the model has 1 up block"):
        up_block_features(small_unet.up_blocks, denoise, block)


def test_the_only_block_of_a_model_is_its_last(small_unet):
    denoise = denoiser_of(small_unet, torch.ones(1, 5, 16), TRAIN_SIGMAS)
    features, _ = up_block_features(small_unet.up_blocks, denoise, "last up block")(latent(), SIGMA, False)
    raw = raw_features(small_unet, denoise, "last up block", latent())
    assert torch.equal(features.values, raw) and features.size == (32, 32)
