import json

import pytest
import torch

from morph_pack.morph_core.attention.word_edit import WordEdit
from morph_pack.morph_core.dragging.latent import DragLatent
from morph_pack.morph_core.dragging.points import DragPoints
from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.morph_core.lora.fit import LoraFit
from morph_pack.morph_core.models.diffusers_pipeline import DiffusersPipeline
from morph_pack.morph_core.recipes.drag import Drag, drag
from morph_pack.morph_core.recipes.edit import PromptEdit, edit
from morph_pack.morph_core.recipes.morph import Morph, morph
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.guidance import guided_denoiser
from morph_pack.morph_core.sampling.schedule import ddim_sigmas, sigmas_of

pytest.importorskip("transformers")
pytest.importorskip("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", exc_type=ImportError)

TOKENS = 10
SCALE = 0.25
POOLED = 16
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture
def tokenizer(tmp_path):
    """CLIP's, of single letters."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=TOKENS)


def text_encoder(tokenizer, kind="CLIPTextModel", layers=1):
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=POOLED,
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
    )
    return getattr(transformers, kind)(config).eval()


def autoencoder(**changes):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        **{"scaling_factor": SCALE, **changes},
    ).eval()


@pytest.fixture
def make_pipeline(make_unet, tokenizer):
    """A `StableDiffusionPipeline` of tiny random networks; arguments change its UNet and its scheduler."""

    def make(unet=None, **schedule):
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            parts = {"text_encoder": text_encoder(tokenizer), "vae": autoencoder()}
        return StableDiffusionPipeline(
            **parts,
            tokenizer=tokenizer,
            unet=unet or make_unet(),
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False, **schedule),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return make


@pytest.fixture
def sdxl(make_unet, tokenizer):
    """A `StableDiffusionXLPipeline` of tiny random networks."""
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    unet = make_unet(
        block_out_channels=(32,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + POOLED,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        parts = {
            "text_encoder": text_encoder(tokenizer, layers=2),
            "text_encoder_2": text_encoder(tokenizer, "CLIPTextModelWithProjection", layers=2),
            "vae": autoencoder(),
        }
    scheduler = DDIMScheduler(steps_offset=1, clip_sample=False, **SCHEDULE)
    return StableDiffusionXLPipeline(
        **parts, tokenizer=tokenizer, tokenizer_2=tokenizer, unet=unet, scheduler=scheduler, add_watermarker=False
    )


@pytest.fixture
def pipeline(make_pipeline):
    return make_pipeline(**SCHEDULE)


def pictures(count=2):
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(1))


def test_captions_become_padded_text_embeddings(pipeline):
    captions = ["a cat", "", "something longer than that"]
    ids = pipeline.tokenizer(
        captions, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        expected = pipeline.text_encoder(ids).last_hidden_state
    embeddings = DiffusersPipeline(pipeline).encode_text(captions).context
    assert embeddings.shape == (3, TOKENS, 16)
    torch.testing.assert_close(embeddings, expected)
    assert not embeddings.requires_grad


def test_images_become_the_modes_of_their_scaled_latents(pipeline):
    with torch.no_grad():
        expected = pipeline.vae.encode(2 * pictures() - 1).latent_dist.mean * SCALE
    latents = DiffusersPipeline(pipeline).encode_images(pictures())
    assert latents.shape == (2, 4, 8, 12)
    torch.testing.assert_close(latents, expected)


def test_latents_become_images_in_0_to_1(pipeline):
    latents = 2 * torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = ((pipeline.vae.decode(latents / SCALE).sample + 1) / 2).clamp(0, 1)
    images = DiffusersPipeline(pipeline).decode_latents(latents)
    assert images.shape == (3, 3, 16, 24)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-5)


def test_a_half_precision_autoencoder_gives_and_takes_single_precision(pipeline):
    exact = DiffusersPipeline(pipeline).encode_images(pictures())
    pipeline.vae.to(torch.bfloat16)
    model = DiffusersPipeline(pipeline)
    latents = model.encode_images(pictures())
    assert latents.dtype == model.decode_latents(latents).dtype == torch.float32
    assert (latents - exact).abs().max() < 0.05 * exact.abs().max()


def test_schedule_and_prediction_are_the_schedulers(make_pipeline):
    pipeline = make_pipeline(beta_start=0.001, beta_end=0.02, prediction_type="v_prediction")
    model = DiffusersPipeline(pipeline)
    assert model.backbone.schedule.prediction == "v_prediction"
    assert torch.equal(model.backbone.schedule.sigmas, sigmas_of(pipeline.scheduler.alphas_cumprod))
    assert model.backbone.network is pipeline.unet
    # torch's own arithmetic of a linear schedule
    expected = (1 - torch.linspace(0.001, 0.02, 1000)).cumprod(0)
    torch.testing.assert_close(model.backbone.schedule.sigmas, sigmas_of(expected))


def test_inpainting_unets_are_refused(make_pipeline, make_unet):
    pipeline = make_pipeline(make_unet(in_channels=9))
    with pytest.raises(UnsupportedModel, match="StableDiffusionPipeline"):
        DiffusersPipeline(pipeline)


def test_unets_that_take_an_image_beside_the_prompt_are_refused(make_pipeline, make_unet):
    unet = make_unet(addition_embed_type="image", encoder_hid_dim=16, encoder_hid_dim_type=None)
    with pytest.raises(UnsupportedModel, match="StableDiffusionPipeline.* 4 channels and image beside the prompt"):
        DiffusersPipeline(make_pipeline(unet))


def test_a_words_tokens_are_found_in_its_prompts(pipeline):
    model = DiffusersPipeline(pipeline)
    source, edited = model.tokenize(["a b c", "a d c"])
    assert len(source) == len(edited) == TOKENS
    assert [i for i in range(TOKENS) if source[i] != edited[i]] == [2]
    assert model.word_tokens("d") == [edited[2]]


def test_pipelines_without_a_unet_are_refused():
    class Transformer2DPipeline:
        pass

    with pytest.raises(UnsupportedModel, match="Transformer2DPipeline"):
        DiffusersPipeline(Transformer2DPipeline())


def test_sdxls_text_is_that_of_both_encoders_with_pooled_text_and_sizes(sdxl):
    captions = ["a cat", "something longer"]
    with torch.no_grad():
        context, _, pooled, _ = sdxl.encode_prompt(captions, device="cpu", do_classifier_free_guidance=False)
    text = DiffusersPipeline(sdxl).encode_text(captions, (96, 64))
    assert torch.equal(text.context, context) and text.context.shape == (2, TOKENS, 32)
    assert torch.equal(text.pooled, pooled) and text.pooled.shape == (2, POOLED)
    assert text.sizes.tolist() == [[96, 64, 0, 0, 96, 64]] * 2
    side = sdxl.unet.config.sample_size * sdxl.vae_scale_factor
    assert DiffusersPipeline(sdxl).encode_text(captions).sizes[0].tolist() == [side, side, 0, 0, side, side]


def test_sdxl_samples_as_its_own_pipeline_does(sdxl):
    """The same latents from the same noise, with guidance and the pipeline's own call."""
    model = DiffusersPipeline(sdxl)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    sdxl.set_progress_bar_config(disable=True)
    prompts = {"prompt": "a cat", "negative_prompt": "no"}
    expected = sdxl(
        **prompts, latents=z, height=16, width=16, num_inference_steps=5, guidance_scale=4.0, output_type="latent"
    ).images
    conditional, unconditional = (
        model.backbone.denoiser(model.encode_text([caption], (16, 16))) for caption in prompts.values()
    )
    sigmas = ddim_sigmas(model.backbone.schedule.sigmas, 5)
    denoise = guided_denoiser(unconditional, conditional, 4.0)
    with torch.no_grad():
        actual = ddim.sample(denoise, z * model.backbone.schedule.scale(sigmas[0]), sigmas)
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)
    assert (expected - z).abs().max() > 0.5


def test_the_recipes_work_on_sdxl(sdxl):
    """Ends that are the images, an original that is the image, and a source that is the image: in one step each."""
    model, images = DiffusersPipeline(sdxl), [torch.rand(1, 3, 16, 16, generator=seeded(seed)) for seed in (1, 2)]
    fit = LoraFit(rank=2, steps=2)
    config = Morph(frames=3, steps=3, lora=fit, reschedule=False, exact_ends=True)
    result = morph(model, (images[0], images[1]), ("a", "b"), config)
    for row, image in ((0, images[0]), (-1, images[1])):
        torch.testing.assert_close(result.latents[row], model.encode_images(image)[0], rtol=0, atol=1e-5)
    points = DragPoints(torch.tensor([[0.2, 0.5]]), torch.tensor([[0.8, 0.5]]))
    settings = Drag(steps=4, lora=fit, latent=DragLatent(iterations=2), feature_block="last up block")
    dragged = drag(model, images[0], "a", points, settings)
    assert dragged.dragged.shape == images[0].shape and len(dragged.drag.losses) == 2
    assert (dragged.drag.dragged - dragged.drag.original).abs().max() > 1e-3
    edited = edit(model, images[0], "a b c", "a d c", PromptEdit(steps=3, words=WordEdit(self_steps=0.5)))
    wanted = model.decode_latents(model.encode_images(images[0]))
    torch.testing.assert_close(edited.source, wanted, rtol=0, atol=1e-4)
    assert (edited.edited - edited.source).abs().max() > 1e-3


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_an_autoencoder_that_overflows_in_half_precision_runs_in_single(sdxl):
    wanted = DiffusersPipeline(sdxl).encode_images(pictures())
    sdxl.vae.register_to_config(force_upcast=True)
    sdxl.vae.to(torch.float16)
    model = DiffusersPipeline(sdxl)
    torch.testing.assert_close(model.encode_images(pictures()), wanted, rtol=0, atol=5e-3)
    assert model.decode_latents(wanted).isfinite().all() and sdxl.vae.dtype == torch.float16


def test_latents_are_scaled_by_the_autoencoders_own_statistics(sdxl):
    plain = DiffusersPipeline(sdxl).encode_images(pictures()) / SCALE
    mean, deviation = [1.0, 2.0, 3.0, 4.0], [0.5, 1.0, 2.0, 4.0]
    sdxl.vae.register_to_config(latents_mean=mean, latents_std=deviation)
    model = DiffusersPipeline(sdxl)
    scaled = model.encode_images(pictures())
    by_channel = [torch.tensor(values)[:, None, None] for values in (mean, deviation)]
    torch.testing.assert_close(scaled, (plain - by_channel[0]) / by_channel[1] * SCALE)
    with torch.no_grad():
        decoded = (sdxl.vae.decode(plain).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(model.decode_latents(scaled), decoded, rtol=0, atol=1e-4)
