"""A fitted LoRA is what others know as one: PEFT where it starts, kohya by its names, diffusers by its effect."""

import copy

import pytest
import torch

from morph_pack.morph_core.lora.fit import LoraFit, trainable_lora
from morph_pack.morph_core.lora.low_rank import read_lora
from morph_pack.morph_core.models.unet import UnetBackbone
from morph_pack.morph_core.sampling.schedule import VariancePreserving, sigmas_of
from morph_tests.core.lora_fits import ALPHAS, SHORT, context, fit, latent


@pytest.fixture
def unet(small_unet):
    return small_unet


def test_it_starts_as_pefts_gaussian_lora_does_and_computes_the_same(unet):
    peft = pytest.importorskip("peft")
    other = copy.deepcopy(unet)
    torch.manual_seed(5)
    config = peft.LoraConfig(
        r=3, lora_alpha=3, init_lora_weights="gaussian", target_modules=["to_q", "to_k", "to_v", "to_out.0"]
    )
    other.add_adapter(config)
    layers = {path: module for path, module in other.named_modules() if hasattr(module, "lora_A")}
    with trainable_lora(UnetBackbone(unet, VariancePreserving(sigmas_of(ALPHAS))), LoraFit(rank=3, seed=5)) as updates:
        assert updates.keys() == layers.keys()
        for path, update in updates.items():
            assert torch.equal(update.down, layers[path].lora_A["default"].weight)
            assert torch.equal(update.up, layers[path].lora_B["default"].weight)
            update.up.data.normal_()
            layers[path].lora_B["default"].weight.data.copy_(update.up)
        actual = unet(latent(), 500, context()).sample
    torch.testing.assert_close(actual, other(latent(), 500, context()).sample, rtol=0, atol=1e-6)
    assert (actual - unet(latent(), 500, context()).sample).abs().max() > 1e-2


def test_every_attention_projection_is_fitted_under_kohyas_names(unet):
    weights = fit(unet, latent(), context(), SHORT).weights
    places = (
        "down_blocks_0_attentions_0",
        "mid_block_attentions_0",
        "up_blocks_0_attentions_0",
        "up_blocks_0_attentions_1",
    )
    expected = {
        f"lora_unet_{place}_transformer_blocks_0_{attention}_{projection}.{part}"
        for place in places
        for attention in ("attn1", "attn2")
        for projection in ("to_q", "to_k", "to_v", "to_out_0")
        for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    assert weights.keys() == expected


def test_shapes_dtype_and_scale_of_the_weights(unet):
    weights = fit(unet, latent(), context(), SHORT).weights
    layers = read_lora(weights, unet)
    assert len(layers) == len(weights) / 3
    for layer, update in layers.items():
        assert update.down.shape == (2, layer.in_features) and update.up.shape == (layer.out_features, 2)
        assert update.down.dtype == update.up.dtype == torch.float32
        assert update.scale == 1
        assert update.up.abs().max() > 0  # it was trained: it starts at 0
        assert not update.down.requires_grad


def test_diffusers_loads_the_lora_to_the_same_effect(unet, merged):
    pytest.importorskip("peft")
    pytest.importorskip("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", exc_type=ImportError)
    from diffusers import StableDiffusionPipeline

    config = LoraFit(rank=3, steps=5, learning_rate=1e-2)
    weights = fit(unet, latent(), context(), config).weights
    expected = merged(unet, (weights, 1))(latent(), 500, context()).sample
    other = copy.deepcopy(unet)
    state, network_alphas = StableDiffusionPipeline.lora_state_dict(dict(weights))
    StableDiffusionPipeline.load_lora_into_unet(state, network_alphas, other)
    loaded = other(latent(), 500, context()).sample
    torch.testing.assert_close(loaded, expected, rtol=0, atol=1e-5)
    assert (loaded - unet(latent(), 500, context()).sample).abs().max() > 1e-2
