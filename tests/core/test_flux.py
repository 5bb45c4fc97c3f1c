"""diffusers' Flux transformers as backbones, beside its own pipeline and attention written out."""

import pytest
import torch

from morph_pack.morph_core.attention.end_frames import BLOCKS, mixed_self_attention
from morph_pack.morph_core.errors import InvalidInput, UnsupportedModel
from morph_pack.morph_core.lora.blend import blended_loras
from morph_pack.morph_core.lora.fit import LoraFit, fit_lora
from morph_pack.morph_core.lora.low_rank import read_lora
from morph_pack.morph_core.models.flux import FluxBackbone, latents_of, tokens_of
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.schedule import FlowMatching, flow_train_sigmas

pytest.importorskip("diffusers")

ALPHAS = (0.0, 0.3, 1.0)
LEVELS = flow_train_sigmas()
SIGMA = torch.tensor(0.6)
BLOCK = {
    "up blocks": ("single_transformer_blocks",),
    "last two up blocks": ("single_transformer_blocks.2",),
    "all blocks": ("transformer_blocks", "single_transformer_blocks"),
}


def rows(count, *shape, seed=1):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def text(count=1):
    return Text(rows(count, 5, 16, seed=2), rows(count, 12, seed=3))


def new_transformer(guidance_embeds=False, text_width=16, pooled_width=12):
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=3,
            num_single_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=text_width,
            pooled_projection_dim=pooled_width,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        )
        for parameter in transformer.parameters():  # no norm at 1, so that each one matters
            parameter.data += 0.05 * torch.randn(parameter.shape)
        return transformer.eval().requires_grad_(False)


@pytest.fixture
def backbone():
    return FluxBackbone(new_transformer(), FlowMatching(LEVELS))


def of_published_pipeline(transformer, noise, prompt, steps, guidance):
    """Latents (B, C, h, w) that diffusers' own `FluxPipeline` samples from this noise."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline

    vae = AutoencoderKL(block_out_channels=(32,), norm_num_groups=8, latent_channels=4)
    parts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxPipeline(FlowMatchEulerDiscreteScheduler(), vae, **parts, transformer=transformer)
    pipeline.set_progress_bar_config(disable=True)
    side = noise.shape[-1] * pipeline.vae_scale_factor
    tokens = pipeline(
        prompt_embeds=prompt.context,
        pooled_prompt_embeds=prompt.pooled,
        latents=tokens_of(noise),
        height=side,
        width=side,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    return latents_of(tokens, noise.shape[-2:])


@pytest.mark.parametrize(("distilled", "guidance"), [(False, 1.0), (True, 1.0), (True, 3.5)])
def test_sampling_gives_the_latents_of_diffusers_own_pipeline(distilled, guidance):
    transformer, noise = new_transformer(distilled), rows(1, 4, 8, 8)
    backbone = FluxBackbone(transformer, FlowMatching(LEVELS), guidance)
    sampled = ddim.sample(backbone.denoiser(text()), noise, backbone.schedule.spaced(6))
    expected = of_published_pipeline(transformer, noise, text(), 6, guidance)
    assert (sampled - noise).abs().max() > 0.1
    torch.testing.assert_close(sampled, expected, rtol=0, atol=2e-5)


def test_patches_are_ordered_channel_row_column_and_come_back():
    latents = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    tokens = tokens_of(latents)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(tokens[1, 4], latents[1, :, 2:4, 2:4].flatten())  # the second row's second patch
    assert torch.equal(latents_of(tokens, (4, 6)), latents)


def test_an_odd_size_and_a_text_without_pooled_are_refused(backbone):
    with pytest.raises(InvalidInput, match="even height and width, got 8 and 7"):
        backbone.denoiser(text())(rows(1, 4, 8, 7), SIGMA)
    with pytest.raises(InvalidInput, match="needs pooled text"):
        backbone.denoiser(Text(text().context))(rows(1, 4, 8, 8), SIGMA)


def test_it_has_no_features_for_a_drag(backbone):
    with pytest.raises(UnsupportedModel, match="use a UNet"):
        backbone.up_blocks()


def by_hand(transformer, blocks):
    """Attention that mixes keys and values of image tokens after rotary embedding, as equation 7 of DiffMorpher."""
    from diffusers.models.embeddings import apply_rotary_emb
    from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

    class Mixed(FluxAttnProcessor):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, image_rotary_emb=None):
            def heads(x, projection, norm=None):
                x = projection(x).unflatten(-1, (attn.heads, -1))
                return x if norm is None else norm(x)

            parts = [
                heads(hidden_states, attn.to_q, attn.norm_q),
                heads(hidden_states, attn.to_k, attn.norm_k),
                heads(hidden_states, attn.to_v),
            ]
            if encoder_hidden_states is not None:
                texts = [
                    heads(encoder_hidden_states, attn.add_q_proj, attn.norm_added_q),
                    heads(encoder_hidden_states, attn.add_k_proj, attn.norm_added_k),
                    heads(encoder_hidden_states, attn.add_v_proj),
                ]
                parts = [torch.cat([of_text, part], dim=1) for of_text, part in zip(texts, parts, strict=True)]
            q, k, v = parts
            q, k = (apply_rotary_emb(x, image_rotary_emb, sequence_dim=1) for x in (q, k))
            alpha = torch.tensor(ALPHAS)[:, None, None, None]
            k, v = (torch.cat([x[:, :5], ((1 - alpha) * x[:1] + alpha * x[-1:])[:, 5:]], dim=1) for x in (k, v))
            q, k, v = (x.transpose(1, 2) for x in (q, k, v))
            scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
            out = (scores @ v).transpose(1, 2).flatten(2)
            if encoder_hidden_states is None:
                return out
            return attn.to_out[0](out[:, 5:]), attn.to_add_out(out[:, :5])

    for path, module in transformer.named_modules():
        if path.endswith(".attn") and path.startswith(BLOCK[blocks]):
            module.set_processor(Mixed())


@pytest.mark.parametrize("blocks", BLOCKS)
def test_keys_and_values_of_image_tokens_are_mixed_as_written_out_by_hand(backbone, blocks):
    x, denoise = rows(3, 4, 8, 12), backbone.denoiser(text(3))
    plain = denoise(x, SIGMA)
    with mixed_self_attention(backbone.attention_layers(), ALPHAS, blocks=blocks):
        mixed = denoise(x, SIGMA)
    assert torch.equal(denoise(x, SIGMA), plain)
    by_hand(backbone.network, blocks)
    torch.testing.assert_close(mixed, denoise(x, SIGMA), rtol=0, atol=1e-5)
    assert (mixed - plain)[1].abs().max() > 1e-2
    torch.testing.assert_close(mixed[[0, -1]], plain[[0, -1]], rtol=0, atol=1e-6)


def test_inverted_with_fixed_point_iterations_it_comes_back(backbone):
    image, sigmas = rows(1, 4, 8, 8), backbone.schedule.spaced(10)
    noise = ddim.invert(backbone.denoiser(text()), image, sigmas, backbone.schedule, iterations=20)
    torch.testing.assert_close(ddim.sample(backbone.denoiser(text()), noise, sigmas), image, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_fitted_lora_lowers_the_loss_and_blends_as_merged(backbone, checkpointed):
    if checkpointed:
        backbone.enable_gradient_checkpointing()
    image = rows(1, 4, 8, 8)
    fitted = fit_lora(backbone, image, text(), LoraFit(rank=2, steps=60, learning_rate=0.02))
    assert sum(fitted.losses[-10:]) < 0.8 * sum(fitted.losses[:10])
    assert len(fitted.weights) == 3 * (3 * 8 + 3 * 3)

    x, denoise = rows(1, 4, 8, 8, seed=5), backbone.denoiser(text())
    layers = read_lora(fitted.weights, backbone.network)
    with blended_loras(layers, {}, (0.0,)):
        blended = denoise(x, SIGMA)
    for layer, update in layers.items():
        layer.weight += update.up @ update.down * update.scale
    torch.testing.assert_close(denoise(x, SIGMA), blended, rtol=0, atol=1e-5)
