"""diffusers' Flux and Stable Diffusion 3 pipelines, of tiny random networks, in the library."""

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput, UnsupportedModel
from morph_pack.morph_core.lora.fit import LoraFit
from morph_pack.morph_core.models.diffusers_pipeline import DiffusersPipeline
from morph_pack.morph_core.recipes.edit import edit
from morph_pack.morph_core.recipes.morph import Morph, morph
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.guidance import guided_denoiser
from morph_tests.core.test_flux import new_transformer
from morph_tests.core.test_pipeline import autoencoder, seeded, text_encoder, tokenizer

pytest.importorskip("transformers")
pytest.importorskip("diffusers.pipelines.flux.pipeline_flux", exc_type=ImportError)

WIDTH = 32
T5_LENGTH = 256
assert tokenizer  # a fixture


@pytest.fixture
def t5():
    """A tokenizer of single letters and an encoder, as T5's."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    letters = {chr(code): code - ord("a") + 3 for code in range(ord("a"), ord("z") + 1)}
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, **letters}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        encoder = T5EncoderModel(T5Config(vocab_size=32, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>"), encoder.eval()


def shifted_autoencoder():
    """As those of both families: its latents have a mean, and no layers around them."""
    return autoencoder(scaling_factor=0.36, shift_factor=0.12, use_quant_conv=False, use_post_quant_conv=False)


@pytest.fixture
def make_flux(tokenizer, t5):
    """A `FluxPipeline`; arguments change its scheduler."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    def make(**schedule):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            transformer = new_transformer(guidance_embeds=True, text_width=WIDTH, pooled_width=16)
            pipeline = FluxPipeline(
                FlowMatchEulerDiscreteScheduler(**schedule),
                shifted_autoencoder(),
                text_encoder(tokenizer),
                tokenizer,
                t5[1],
                t5[0],
                transformer,
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return make


@pytest.fixture
def sd3(tokenizer, t5):
    """A `StableDiffusion3Pipeline` in the shape of 3.5 medium."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        transformer = SD3Transformer2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=32,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        encoders = [text_encoder(tokenizer, "CLIPTextModelWithProjection", layers=2) for _ in range(2)]
        pipeline = StableDiffusion3Pipeline(
            transformer.eval().requires_grad_(False),
            FlowMatchEulerDiscreteScheduler(shift=3.0),
            shifted_autoencoder(),
            encoders[0],
            tokenizer,
            encoders[1],
            tokenizer,
            t5[1],
            t5[0],
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise():
    return torch.randn(1, 4, 8, 8, generator=seeded(3))


@torch.no_grad()
def test_sd3_samples_as_its_own_pipeline_does(sd3):
    """The same latents from the same noise, with guidance, at even sigmas that the scheduler shifts."""
    model = DiffusersPipeline(sd3)
    prompts = {"prompt": "a b", "negative_prompt": "c"}
    expected = sd3(
        **prompts,
        latents=noise(),
        height=16,
        width=16,
        num_inference_steps=5,
        sigmas=[1.0, 0.8, 0.6, 0.4, 0.2],
        guidance_scale=4.0,
        output_type="latent",
    ).images
    conditional, unconditional = (model.backbone.denoiser(model.encode_text([text])) for text in prompts.values())
    sigmas = model.backbone.schedule.spaced(5)
    actual = ddim.sample(guided_denoiser(unconditional, conditional, 4.0), noise(), sigmas)
    assert (expected - noise()).abs().max() > 0.5
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("shift", [{"shift": 1.0}, {"shift": 3.0}])
def test_flux_samples_as_its_own_pipeline_does(make_flux, shift):
    pipeline = make_flux(**shift)
    model = DiffusersPipeline(pipeline, guidance=2.5)
    tokens = pipeline._pack_latents(noise(), 1, 4, 8, 8)
    expected = pipeline(
        "a b",
        latents=tokens,
        height=16,
        width=16,
        num_inference_steps=5,
        guidance_scale=2.5,
        output_type="latent",
    ).images
    expected = pipeline._unpack_latents(expected, 16, 16, pipeline.vae_scale_factor)
    actual = ddim.sample(
        model.backbone.denoiser(model.encode_text(["a b"])), noise(), model.backbone.schedule.spaced(5)
    )
    assert (expected - noise()).abs().max() > 0.1
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_a_shift_by_size_is_that_of_the_pipelines_own_size(make_flux):
    """1024² are 4096 tokens, for which Flux.1 dev's scheduler has the highest shift, exp(1.15)."""
    dynamic = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    schedule = DiffusersPipeline(make_flux(**dynamic)).backbone.schedule
    assert schedule.shift == pytest.approx(3.158, abs=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["flux", "sd3"])
def test_images_become_shifted_and_scaled_latents_and_come_back(kind, make_flux, sd3):
    pipeline = sd3 if kind == "sd3" else make_flux()
    model, image = DiffusersPipeline(pipeline), torch.rand(1, 3, 16, 24, generator=seeded(1))
    expected = (pipeline.vae.encode(2 * image - 1).latent_dist.mode() - 0.12) * 0.36
    torch.testing.assert_close(model.encode_images(image), expected)
    decoded = (pipeline.vae.decode(expected / 0.36 + 0.12).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(model.decode_latents(expected), decoded)


@pytest.mark.parametrize("kind", ["flux", "sd3"])
def test_a_morph_with_exact_ends_ends_in_its_images_and_an_edit_by_maps_is_refused(kind, make_flux, sd3):
    model = DiffusersPipeline(sd3 if kind == "sd3" else make_flux())
    images = [torch.rand(1, 3, 16, 16, generator=seeded(seed)) for seed in (1, 2)]
    config = Morph(frames=3, steps=3, lora=LoraFit(rank=2, steps=2), reschedule=False, exact_ends=True)
    result = morph(model, (images[0], images[1]), ("a", "b"), config)
    for row, image in ((0, images[0]), (-1, images[1])):
        torch.testing.assert_close(result.latents[row], model.encode_images(image)[0], rtol=0, atol=1e-5)
    with pytest.raises(UnsupportedModel, match="cross-attention"):
        edit(model, images[0], "a", "b")


def test_the_other_alpha_of_an_image_is_refused(make_flux):
    with pytest.raises(InvalidInput, match="set_alpha_to_one=False is for Stable Diffusion"):
        DiffusersPipeline(make_flux()).backbone.schedule.spaced(5, set_alpha_to_one=False)
