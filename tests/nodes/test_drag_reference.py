"""After a drag, Attention KV Inject gives the dragged row the look of the original."""

from typing import Any

import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.attention.end_frames import mixed_self_attention
from morph_pack.morph_core.models.unet import attention_layers
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.nodes.host.backbone import scaled_latent
from morph_tests.networks import denoiser_of
from morph_tests.nodes import models
from morph_tests.nodes.diffusers_twin import diffusers_twin
from morph_tests.nodes.dragging import (
    KV_INJECT,
    START,
    STEPS,
    Dragged,
    assert_close,
    drag,
    invert,
    ksampler_sigmas,
    options,
    toy_denoiser,
)
from morph_tests.nodes.graph import conditioning, normal, run, sample


@pytest.fixture(scope="module")
def inverted(model: Any) -> dict[str, Any]:
    return invert(model)


@pytest.fixture(scope="module")
def dragged(model: Any, inverted: Any) -> Dragged:
    """So roughly that the rows have little in common."""
    return drag(model, inverted, options=options(iterations=4, learning_rate=0.5))


class TestReferenceControl:
    """Attention KV Inject without alphas, under KSampler."""

    def test_is_the_cores(self, model: Any, core: ToyModel, dragged: Dragged) -> None:
        (patched,) = run("AttentionKVInject", model=model, **KV_INJECT)
        frames = sample(patched, conditioning(), dragged.samples, STEPS, start=START)
        rows = dragged.samples.clone() * SCALE_FACTOR
        with (
            torch.no_grad(),
            mixed_self_attention(core.backbone.attention_layers(), (0.0, 0.0), blocks="last two up blocks"),
        ):
            expected = ddim.sample(toy_denoiser(core), rows, ksampler_sigmas(model))
        assert_close(frames, expected / SCALE_FACTOR, 1e-3)
        plain = sample(model, conditioning(), dragged.samples, STEPS, start=START)
        assert_close(frames[:1], plain[:1], 1e-4)
        assert (frames[1] - plain[1]).abs().max() > 0.01

    def test_is_the_cores_where_more_than_two_up_blocks_have_attention(self) -> None:
        sd1, noise = models.sd1(), 10 * normal(2, 4, 8, 12)
        (patched,) = run("AttentionKVInject", model=sd1, **KV_INJECT)
        frames = sample(patched, conditioning(), noise, 2)
        with diffusers_twin(sd1) as twin, torch.no_grad():
            denoise = denoiser_of(twin.unet, conditioning()[0][0], twin.schedule.sigmas)
            with mixed_self_attention(attention_layers(twin.unet), (0.0, 0.0), blocks="last two up blocks"):
                expected = ddim.sample(denoise, scaled_latent(sd1, noise), ksampler_sigmas(sd1, 0, 2))
        assert_close(frames, expected / 0.18215, 1e-4)

    def test_leaves_the_original_as_it_is_alone(self, model: Any, dragged: Dragged) -> None:
        (patched,) = run("AttentionKVInject", model=model, **KV_INJECT)
        frames = sample(patched, conditioning(), dragged.samples, STEPS, start=START)
        alone = sample(model, conditioning(), dragged.samples[:1], STEPS, start=START)
        assert_close(frames[:1], alone, 1e-4)

    def test_with_guidance_each_prompts_rows_look_at_their_own_original(
        self, model: Any, core: ToyModel, dragged: Dragged
    ) -> None:
        """Cond and uncond are one batch of four rows."""
        cfg, chunks = 3.0, []

        def watch(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
            chunks.append(len(arguments["cond_or_uncond"]))
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

        (patched,) = run("AttentionKVInject", model=model, **KV_INJECT)
        patched.set_model_unet_function_wrapper(watch)
        settings = {"negative": conditioning(1), "cfg": cfg, "start": START}
        frames = sample(patched, conditioning(), dragged.samples, STEPS, **settings)
        assert chunks == [2] * (STEPS - START)
        cond, uncond = toy_denoiser(core), toy_denoiser(core, conditioning(1))

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            return uncond(x, sigma) + cfg * (cond(x, sigma) - uncond(x, sigma))

        rows = dragged.samples.clone() * SCALE_FACTOR
        with (
            torch.no_grad(),
            mixed_self_attention(core.backbone.attention_layers(), (0.0, 0.0), blocks="last two up blocks"),
        ):
            assert_close(frames, ddim.sample(guided, rows, ksampler_sigmas(model)) / SCALE_FACTOR, 1e-3)
        alone = sample(model, conditioning(), dragged.samples[:1], STEPS, **settings)
        assert_close(frames[:1], alone, 1e-3)
