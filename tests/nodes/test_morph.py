"""A morph of stock KSampler and the pack's nodes is the morph that the core makes with diffusers."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.attention.end_frames import BLOCKS, mixed_self_attention
from morph_pack.morph_core.denoise import Denoise
from morph_pack.morph_core.lora.blend import blended_loras
from morph_pack.morph_core.lora.fit import LoraFit
from morph_pack.morph_core.lora.low_rank import read_lora
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.models.unet import attention_layers
from morph_pack.morph_core.morphing.adain import adain
from morph_pack.morph_core.morphing.alphas import alpha_schedule
from morph_pack.morph_core.morphing.blend_text import blend_text
from morph_pack.morph_core.morphing.slerp import slerp
from morph_pack.morph_core.recipes.image import PreparedImage, prepare_image
from morph_pack.morph_core.recipes.morph import Morph, morph_prepared
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.schedule import ddim_sigmas
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.nodes.host.backbone import scaled_latent
from morph_tests.networks import denoiser_of
from morph_tests.nodes import models
from morph_tests.nodes.diffusers_twin import diffusers_twin
from morph_tests.nodes.graph import conditioning, latent, normal, random_lora, run, sample, with_lora

STEPS = 10
FRAMES = 5
PLAIN = Morph(frames=FRAMES, steps=STEPS, lora=None, reschedule=False)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def patched(model: Any, loras: tuple[Any, Any], config: Morph, alphas: Any) -> Any:
    """LoRA Blend, then Attention KV Inject."""
    (blend,) = run("LoraBlend", model=model, start=loras[0], end=loras[1], alphas=alphas)
    settings = {"strength": 1.0, "end_percent": config.attention, "blocks": config.attention_blocks}
    return run("AttentionKVInject", model=blend, alphas=alphas, **settings)[0]


def morph_in_comfyui(model: Any, latents: Any, prompts: Any, loras: Any, config: Morph) -> Tensor:
    """The latents of a morph's frames, by the graph that the example workflow shows."""
    (alphas,) = run("AlphaSchedule", frames=config.frames, easing="linear")
    spacing = {"steps": config.steps, "scheduler": "ddim_uniform", "start_at_step": 0}
    noise = [
        run("DdimInvert", model=with_lora(model, lora), positive=prompt, latent_image=image, **spacing)[0]
        for lora, prompt, image in zip(loras, prompts, latents, strict=True)
    ]
    frames, _ = run("SlerpLatents", start=noise[0], end=noise[1], alphas=alphas)
    if config.adain:
        frames, _ = run("AdaIN", frames=frames, start=noise[0], end=noise[1], alphas=alphas, strength=1.0)
    (prompt,) = run("BlendConditioning", start=prompts[0], end=prompts[1], alphas=alphas)
    return sample(patched(model, loras, config, alphas), prompt, frames["samples"], config.steps)


@pytest.mark.parametrize(
    "config",
    [
        replace(PLAIN, attention=0.6, attention_blocks="up blocks"),
        pytest.param(replace(PLAIN, attention=1.0, attention_blocks="all blocks", adain=False), marks=pytest.mark.slow),
        pytest.param(replace(PLAIN, attention=0.3, attention_blocks="last two up blocks"), marks=pytest.mark.slow),
    ],
    ids=lambda config: f"{config.attention_blocks}, {config.attention}",
)
def test_the_graph_makes_the_cores_morph(model: Any, core: ToyModel, config: Morph) -> None:
    latents, prompts = [latent(0), latent(1)], [conditioning(0), conditioning(1)]
    loras = random_lora(0), random_lora(1, rank=6, skip=3)
    ends = [
        PreparedImage(image["samples"] * SCALE_FACTOR, Text(prompt[0][0]), lora)
        for image, prompt, lora in zip(latents, prompts, loras, strict=True)
    ]
    expected = morph_prepared(core, ends[0], ends[1], config).latents / SCALE_FACTOR
    assert_close(morph_in_comfyui(model, latents, prompts, loras, config), expected, 1e-3)


@pytest.mark.slow
def test_every_ingredient_of_the_compared_morph_changes_it(core: ToyModel) -> None:
    """So that the comparison above would notice a node that does nothing."""
    ends = [PreparedImage(normal(1, 4, 8, 12, seed=i), Text(conditioning(i)[0][0]), random_lora(i)) for i in range(2)]
    bare = [replace(end, lora={}) for end in ends]
    full = morph_prepared(core, ends[0], ends[1], PLAIN).latents
    without = {
        "LoRAs": morph_prepared(core, bare[0], bare[1], PLAIN),
        "attention": morph_prepared(core, ends[0], ends[1], replace(PLAIN, attention=0.0)),
        "AdaIN": morph_prepared(core, ends[0], ends[1], replace(PLAIN, adain=False)),
    }
    for name, result in without.items():
        assert (result.latents - full).abs().max() > 0.01, name


@pytest.mark.slow
def test_from_drawings_to_frames(toy: tuple[Any, Any, Any], core: ToyModel) -> None:
    """The whole way with the toy's CLIP and VAE and with fitted LoRAs, for images of the pack's own."""
    import nodes

    model, clip, vae = toy
    fit = LoraFit(rank=4, steps=4, learning_rate=5e-3, seed=3)
    latents, prompts, loras, ends = [], [], [], []
    for animal, colour, seed in (("cat", "red", 1), ("rabbit", "blue", 2)):
        picture = {"animal": animal, "colour": colour, "mood": "happy", "background": "mint", "seed": seed}
        image, caption = run("ToyDrawing", **picture)
        with torch.inference_mode():
            prompts += nodes.CLIPTextEncode().encode(clip, caption)
            latents += nodes.VAEEncode().encode(vae, image)
        settings = {"rank": fit.rank, "steps": fit.steps, "learning_rate": fit.learning_rate, "seed": fit.seed}
        loras.append(run("FitImageLora", model=model, latent=latents[-1], positive=prompts[-1], **settings)[0])
        ends.append(prepare_image(core, image.movedim(-1, 1), caption, fit))
    expected = morph_prepared(core, ends[0], ends[1], PLAIN)
    actual = morph_in_comfyui(model, latents, prompts, loras, PLAIN)
    assert_close(actual, expected.latents / SCALE_FACTOR, 1e-3)
    with torch.inference_mode():
        (images,) = nodes.VAEDecode().decode(vae, {"samples": actual})
    assert_close(images, expected.frames.movedim(1, -1), 1e-3)


@pytest.mark.slow
def test_the_end_frames_are_each_image_alone_with_its_lora(model: Any) -> None:
    alphas = (0.0, 0.3, 1.0)
    prompts, loras = (conditioning(0), conditioning(1)), (random_lora(0), random_lora(1, rank=7))
    noise = 10 * normal(3, 4, 8, 12)
    (prompt,) = run("BlendConditioning", start=prompts[0], end=prompts[1], alphas=alphas)
    (blend,) = run("LoraBlend", model=model, start=loras[0], end=loras[1], alphas=alphas)
    frames = sample(blend, prompt, noise, STEPS)
    for row, (own_prompt, own_lora) in zip((0, -1), zip(prompts, loras, strict=True), strict=True):
        alone = sample(with_lora(model, own_lora), own_prompt, noise[row][None], STEPS)
        assert_close(frames[row][None], alone, 1e-4)
        assert (alone - sample(model, own_prompt, noise[row][None], STEPS)).abs().max() > 0.01


@pytest.mark.parametrize(("ranks", "skips"), [((4, 4), (0, 0)), ((3, 8), (0, 0)), ((4, 6), (2, 3))])
def test_frames_between_have_both_loras_merged(model: Any, ranks: tuple[int, int], skips: tuple[int, int]) -> None:
    """LoRAs of other ranks, and layers that only one LoRA has, are no exception."""
    loras = [random_lora(i, rank=ranks[i], skip=skips[i]) for i in range(2)]
    noise, alphas = 10 * normal(2, 4, 8, 12), (0.25, 0.6)
    (blend,) = run("LoraBlend", model=model, start=loras[0], end=loras[1], alphas=alphas)
    frames = sample(blend, conditioning(), noise, STEPS)
    for row, alpha in enumerate(alphas):
        merged = with_lora(with_lora(model, loras[0], 1 - alpha), loras[1], alpha)
        assert_close(frames[row][None], sample(merged, conditioning(), noise[row][None], STEPS), 1e-4)


@pytest.mark.slow
def test_lora_blend_works_on_a_model_that_carries_a_lora(model: Any) -> None:
    loras, noise = [random_lora(i) for i in range(3)], 10 * normal(2, 4, 8, 12)
    carrying = with_lora(model, loras[2], 0.5)
    (blend,) = run("LoraBlend", model=carrying, start=loras[0], end=loras[1], alphas=(0.0, 1.0))
    frames = sample(blend, conditioning(), noise, STEPS)
    for row in range(2):
        both = with_lora(carrying, loras[row])
        assert_close(frames[row][None], sample(both, conditioning(), noise[row][None], STEPS), 1e-4)


@pytest.fixture(scope="module")
def sd1() -> Any:
    """Unlike the toy it has attention in three up blocks, so that the last two are not all of them."""
    return models.sd1()


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_attention_kv_inject_is_the_cores(sd1: Any, blocks: str, strength: float) -> None:
    alphas, noise, text = alpha_schedule(4), 10 * normal(4, 4, 8, 12), conditioning(rows=4)
    settings = {"strength": strength, "end_percent": 1.0, "blocks": blocks}
    frames = sample(run("AttentionKVInject", model=sd1, alphas=alphas, **settings)[0], text, noise, 2)
    with (
        diffusers_twin(sd1) as twin,
        torch.no_grad(),
        mixed_self_attention(attention_layers(twin.unet), alphas, strength, blocks),
    ):
        train_sigmas = twin.schedule.sigmas
        denoise = denoiser_of(twin.unet, text[0][0], train_sigmas)
        expected = ddim.sample(denoise, scaled_latent(sd1, noise), ddim_sigmas(train_sigmas, 2)) / 0.18215
    assert_close(frames, expected, 1e-4)


def test_every_setting_of_attention_kv_inject_matters(sd1: Any) -> None:
    """All choices of blocks and strengths give different frames; strength 0 gives those of the plain model."""
    noise, text = 10 * normal(4, 4, 8, 12), conditioning(rows=4)

    def frames(strength: float, blocks: str) -> Tensor:
        settings = {"strength": strength, "end_percent": 1.0, "blocks": blocks}
        return sample(run("AttentionKVInject", model=sd1, alphas=alpha_schedule(4), **settings)[0], text, noise, 2)

    plain = sample(sd1, text, noise, 2)
    assert_close(frames(0.0, "all blocks"), plain, 1e-5)
    outcomes = [plain, *(frames(1.0, blocks) for blocks in BLOCKS), frames(0.4, "all blocks")]
    for one, other in itertools.combinations(outcomes, 2):
        assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize(("end_percent", "start", "acting"), [(0.0, 0, 0), (0.6, 0, 6), (1.0, 0, 10), (0.5, 4, 3)])
def test_attention_kv_inject_acts_in_its_share_of_the_steps(
    model: Any, monkeypatch: pytest.MonkeyPatch, end_percent: float, start: int, acting: int
) -> None:
    """Of 10 steps; of the 6 that are left when sampling starts at step 4."""
    import morph_pack.nodes.host.end_frames as end_frames

    mixed: list[int] = []

    def count(context: Tensor, *_: Any) -> Tensor:
        mixed.append(1)
        return context

    monkeypatch.setattr(end_frames, "mix_end_contexts", count)
    settings = {"strength": 1.0, "end_percent": end_percent, "blocks": "all blocks"}
    (patched_model,) = run("AttentionKVInject", model=model, alphas=(0.0, 1.0), **settings)
    sample(patched_model, conditioning(), 10 * normal(2, 4, 8, 12), 10, start=start)
    layers = sum(name.endswith("attn1") for name, _ in model.model.diffusion_model.named_modules())
    assert len(mixed) == acting * layers


@pytest.mark.slow
def test_guidance_treats_cond_and_uncond_rows_as_two_runs_of_the_frames(model: Any, core: ToyModel) -> None:
    """One batch of both predictions gives what two batches, combined by hand, give."""
    alphas, noise, cfg = alpha_schedule(4), 10 * normal(4, 4, 8, 12), 2.0
    prompts, negative, loras = [conditioning(0), conditioning(1)], conditioning(2), (random_lora(0), random_lora(1))
    config = replace(PLAIN, attention=1.0, attention_blocks="all blocks")
    chunks: list[list[int]] = []

    def watch(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        chunks.append(arguments["cond_or_uncond"])
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    watched = patched(model, loras, config, alphas).clone()
    watched.set_model_unet_function_wrapper(watch)
    (positive,) = run("BlendConditioning", start=prompts[0], end=prompts[1], alphas=alphas)
    frames = sample(watched, positive, noise, STEPS, negative=negative, cfg=cfg)
    assert all(len(chunk) == 2 for chunk in chunks) and len(chunks) == STEPS

    train_sigmas = core.backbone.schedule.sigmas
    text = blend_text(prompts[0][0][0], prompts[1][0][0], alphas)
    layers = [read_lora(lora, core.backbone.network) for lora in loras]

    def alone(text: Tensor) -> Denoise:
        denoise = denoiser_of(core.backbone.network, text, train_sigmas)

        def patched_denoise(x: Tensor, sigma: Tensor) -> Tensor:
            with (
                blended_loras(*layers, alphas),
                mixed_self_attention(core.backbone.attention_layers(), alphas, 1.0, "all blocks"),
            ):
                return denoise(x, sigma)

        return patched_denoise

    cond, uncond = alone(text), alone(negative[0][0])

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        without = uncond(x, sigma)
        return without + cfg * (cond(x, sigma) - without)

    with torch.no_grad():
        assert_close(frames, ddim.sample(guided, noise, ddim_sigmas(train_sigmas, STEPS)), 1e-3)


def test_slerp_latents_and_adain_are_the_cores() -> None:
    start, end, alphas = latent(0), latent(1), (0.0, 0.4, 1.0)
    frames, _ = run("SlerpLatents", start=start, end=end, alphas=alphas)
    assert torch.equal(frames["samples"], slerp(start["samples"], end["samples"], alphas))
    styled, _ = run("AdaIN", frames=frames, start=start, end=end, alphas=alphas, strength=0.7)
    expected = adain(frames["samples"], start["samples"], end["samples"], alphas, 0.7)
    assert torch.equal(styled["samples"], expected)


def test_adain_leaves_the_two_ends_nearly_as_they_are() -> None:
    """They have the statistics they are given, but for the published formula's factor sqrt(n / (n - 1)), n cells."""
    start, end, alphas = latent(0), latent(1), (0.0, 0.5, 1.0)
    frames, _ = run("SlerpLatents", start=start, end=end, alphas=alphas)
    styled, _ = run("AdaIN", frames=frames, start=start, end=end, alphas=alphas, strength=1.0)
    assert_close(styled["samples"][[0, 2]], frames["samples"][[0, 2]], 0.03)
    assert (styled["samples"][1] - frames["samples"][1]).abs().max() > 0.1


def test_prompts_of_other_lengths_are_blended_to_either_prompt_at_the_ends(model: Any) -> None:
    """Pooled outputs are blended as well, and what both prompts share is kept."""
    short, long = conditioning(0, pooled_output=normal(1, 6, seed=7), strength=0.9), conditioning(1)
    long[0] = [torch.cat([long[0][0], long[0][0].flip(1)], 1), {"pooled_output": normal(1, 6, seed=8), "strength": 0.9}]
    (blend,) = run("BlendConditioning", start=short, end=long, alphas=(0.0, 0.25, 1.0))
    pooled = short[0][1]["pooled_output"] * 0.75 + long[0][1]["pooled_output"] * 0.25
    assert_close(blend[0][1]["pooled_output"][1:2], pooled, 1e-6)
    assert blend[0][1]["strength"] == 0.9
    noise = 10 * normal(3, 4, 8, 12)
    frames = sample(model, blend, noise, 4)
    assert_close(frames[:1], sample(model, short, noise[:1], 4), 1e-4)
    assert_close(frames[2:], sample(model, long, noise[2:], 4), 1e-4)


@pytest.mark.slow
def test_a_morph_of_an_image_with_itself_stands_still(model: Any) -> None:
    image, prompt, lora = latent(0), conditioning(0), random_lora(0)
    frames = morph_in_comfyui(model, [image] * 2, [prompt] * 2, [lora] * 2, replace(PLAIN, attention=0.0))
    assert_close(frames, frames[:1].expand_as(frames), 1e-4)
