import json

import pytest
import torch

from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.morph_core.models.diffusers_pipeline import DiffusersPipeline
from morph_pack.morph_core.sampling.schedule import sigmas_of

pytest.importorskip("transformers")
pytest.importorskip("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", exc_type=ImportError)

TOKENS = 10
SCALE = 0.25


@pytest.fixture
def make_pipeline(make_unet, tmp_path):
    """A `StableDiffusionPipeline` of tiny random networks; arguments change its UNet and its scheduler."""

    def make(unet=None, **schedule):
        from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
        vocabulary = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
        (tmp_path / "merges.txt").write_text("#version: 0.2\n")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            text_encoder = CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(vocabulary),
                    hidden_size=16,
                    intermediate_size=32,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    max_position_embeddings=TOKENS,
                    bos_token_id=len(vocabulary) - 2,
                    eos_token_id=len(vocabulary) - 1,
                )
            )
            vae = AutoencoderKL(
                block_out_channels=(32, 32),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                norm_num_groups=8,
                scaling_factor=SCALE,
            )
        return StableDiffusionPipeline(
            vae=vae.eval(),
            text_encoder=text_encoder.eval(),
            tokenizer=CLIPTokenizer(
                str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=TOKENS
            ),
            unet=unet or make_unet(),
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False, **schedule),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return make


@pytest.fixture
def pipeline(make_pipeline):
    return make_pipeline(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


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
    with pytest.raises(UnsupportedModel, match="StableDiffusionPipeline .* 4 channels and image beside the prompt"):
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
