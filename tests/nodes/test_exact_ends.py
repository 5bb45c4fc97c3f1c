"""Direct Inversion and Null-text Inversion under stock KSampler."""

from typing import Any

import nodes
import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.morphing.alphas import alpha_schedule
from morph_pack.morph_core.recipes.image import PreparedImage
from morph_pack.morph_core.recipes.morph import Morph, morph_prepared
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.null_text import NullText, null_text_inversion
from morph_pack.morph_core.sampling.schedule import ddim_sigmas
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_tests.networks import denoiser_of
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, latent, normal, random_lora, run, sample, with_lora

STEPS = 5  # divides 1000: the core's steps and ComfyUI's are the same then
CFG = 4.0
IMAGE = {"samples": normal(1, 4, 8, 12) / SCALE_FACTOR}
POSITIVE, NEGATIVE = conditioning(0), conditioning(5)
NULL_TEXT = {"cfg": CFG, "inner_steps": 3, "learning_rate": 0.05, "early_stop": 0.0, "budget": 0}


def invert(model: Any, start: int = 0, image: Any = IMAGE, positive: Any = POSITIVE, **settings: Any) -> Any:
    """LATENT, INVERSION_TRAJECTORY and report."""
    spacing = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": start, **settings}
    return run("DdimInvert", model=model, positive=positive, latent_image=image, **spacing)


def pin(model: Any, trajectory: Any, row: int = 0, mask: Tensor | None = None) -> Any:
    return run("DirectInversion", model=model, trajectory=trajectory, row=row, mask=mask)[0]


def psnr(actual: Tensor, expected: Tensor) -> float:
    """In dB, of latents of unit variance."""
    return float(-10 * ((actual - expected) * SCALE_FACTOR).square().mean().log10())


@pytest.fixture(scope="module")
def inverted(model: Any) -> Any:
    return invert(model)


@pytest.mark.parametrize("iterations", [0, 2])
def test_the_trajectory_is_the_cores(model: Any, core: ToyModel, iterations: int) -> None:
    train_sigmas = core.backbone.schedule.sigmas
    denoise, sigmas = denoiser_of(core.backbone.network, POSITIVE[0][0], train_sigmas), ddim_sigmas(train_sigmas, STEPS)
    with torch.no_grad():
        expected = ddim.trace(
            denoise, IMAGE["samples"] * SCALE_FACTOR, sigmas, core.backbone.schedule, iterations=iterations
        )
    noise, trajectory, report, _ = invert(model, fixed_point_iterations=iterations)
    torch.testing.assert_close(trajectory.trajectory.sigmas, sigmas)
    torch.testing.assert_close(trajectory.trajectory.latents, expected.latents, rtol=0, atol=1e-3)
    torch.testing.assert_close(trajectory.trajectory.residuals, expected.residuals, rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(noise["samples"] * SCALE_FACTOR, expected.noise, rtol=0, atol=1e-3)
    wanted = f"{float(expected.residuals.max()):.2g} at most" if iterations else "plain DDIM inversion"
    assert wanted in report


@pytest.mark.parametrize("cfg", [1.0, CFG])
@pytest.mark.parametrize("row", [0, -1])
def test_the_pinned_row_is_the_image_and_the_others_are_as_without(
    model: Any, inverted: Any, cfg: float, row: int
) -> None:
    noise, trajectory, *_ = inverted
    batch = torch.cat([noise["samples"], 14 * normal(1, 4, 8, 12, seed=3), noise["samples"]])
    settings = {"negative": NEGATIVE, "cfg": cfg}
    plain = sample(model, POSITIVE, batch, STEPS, **settings)
    pinned = sample(pin(model, trajectory, row), POSITIVE, batch, STEPS, **settings)
    others = [i for i in range(3) if i != row % 3]
    assert torch.equal(pinned[others], plain[others])
    assert psnr(pinned[row], IMAGE["samples"][0]) > 100
    assert psnr(plain[row], IMAGE["samples"][0]) < 60


def test_what_the_others_see_of_the_row_is_the_true_trajectory(model: Any, inverted: Any) -> None:
    """Reference control at guidance: the dragged row attends to the original's own inversion, step by step."""
    noise, trajectory, *_ = inverted
    seen: list[Tensor] = []

    def watch(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        seen.append(arguments["input"][0].clone())
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    watched = pin(model, trajectory)
    watched.set_model_unet_function_wrapper(watch)
    sample(watched, POSITIVE, noise["samples"], STEPS, negative=NEGATIVE, cfg=CFG)
    assert len(seen) == len(trajectory.trajectory.latents) - 1
    torch.testing.assert_close(torch.stack(seen), trajectory.trajectory.latents[:-1, 0], rtol=1e-4, atol=1e-4)


def test_a_mask_says_where_the_row_may_differ(model: Any, inverted: Any) -> None:
    """A cell of the latent is free if any of its pixels is."""
    _, trajectory, *_ = inverted
    mask = torch.zeros(1, 32, 48)
    mask[0, 8:17, :20] = 1
    free = torch.zeros(8, 12, dtype=torch.bool)
    free[2:5, :5] = True
    other = 14 * normal(1, 4, 8, 12, seed=3)
    result = sample(pin(model, trajectory, mask=mask), POSITIVE, other, STEPS)[0]
    away = (result - IMAGE["samples"][0]).abs().amax(0)
    assert away[~free].max() < 1e-4 and away[free].min() > 1e-3
    whole = sample(pin(model, trajectory, mask=torch.zeros(1, 32, 48)), POSITIVE, other, STEPS)[0]
    assert (whole - IMAGE["samples"][0]).abs().max() < 1e-4, "an empty mask is none, as Load Image gives it"


@pytest.mark.parametrize(("wide", "crop"), [(4, 3), (5, 4), (48, 47)])
def test_a_mask_is_of_the_picture_whose_middle_the_vae_has_seen(
    model: Any, inverted: Any, wide: int, crop: int
) -> None:
    """Of a picture 50 pixels wide the 12 cells of 4 are pixels 1 to 48."""
    other = inverted[0]["samples"] + 3 * normal(1, 4, 8, 12, seed=7)
    results = []
    for width, column in ((50, wide), (48, crop)):
        mask = torch.zeros(1, 32, width)
        mask[..., column] = 1
        results.append(sample(pin(model, inverted[1], mask=mask), POSITIVE, other, STEPS))
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [(48, 32), (32, 60), (4, 6)])
def test_a_mask_of_no_picture_of_the_trajectory_is_refused(model: Any, inverted: Any, size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match=f"Direct Inversion: mask is {size[1]}x{size[0]}, .*latent of 12x8 cells"):
        pin(model, inverted[1], mask=torch.ones(1, *size))


def test_removing_it_removes_its_effect_and_nothing_is_left_for_the_next_run(model: Any, inverted: Any) -> None:
    noise, trajectory, *_ = inverted
    plain = sample(model, POSITIVE, noise["samples"], STEPS)
    patched = pin(model, trajectory)
    first = sample(patched, POSITIVE, noise["samples"], STEPS)
    assert torch.equal(sample(model, POSITIVE, noise["samples"], STEPS), plain)
    assert torch.equal(sample(patched, POSITIVE, noise["samples"], STEPS), first)
    assert not torch.equal(first, plain)


def test_a_morph_with_pinned_ends_is_the_cores(model: Any, core: ToyModel) -> None:
    loras, alphas = [random_lora(0), random_lora(1)], alpha_schedule(3)
    images = [{"samples": normal(1, 4, 8, 12, seed=i) / SCALE_FACTOR} for i in range(2)]
    prompts = [conditioning(0), conditioning(1)]
    found = [
        invert(with_lora(model, lora), image=image, positive=prompt)
        for lora, image, prompt in zip(loras, images, prompts, strict=True)
    ]
    frames, _ = run("SlerpLatents", start=found[0][0], end=found[1][0], alphas=alphas)
    (prompt,) = run("BlendConditioning", start=prompts[0], end=prompts[1], alphas=alphas)
    (blend,) = run("LoraBlend", model=model, start=loras[0], end=loras[1], alphas=alphas)
    settings = {"strength": 1.0, "end_percent": 0.6, "blocks": "up blocks"}
    (patched,) = run("AttentionKVInject", model=blend, alphas=alphas, **settings)
    for row, (_, trajectory, *_) in zip((0, -1), found, strict=True):
        patched = pin(patched, trajectory, row)
    result = sample(patched, prompt, frames["samples"], STEPS)
    for row, image in zip((0, -1), images, strict=True):
        assert psnr(result[row], image["samples"][0]) > 100
    config = Morph(frames=3, steps=STEPS, lora=None, adain=False, reschedule=False, exact_ends=True)
    ends = [
        PreparedImage(image["samples"] * SCALE_FACTOR, Text(prompt[0][0]), lora)
        for image, prompt, lora in zip(images, prompts, loras, strict=True)
    ]
    torch.testing.assert_close(result * SCALE_FACTOR, morph_prepared(core, *ends, config).latents, rtol=0, atol=1e-3)


def test_null_text_is_the_cores(model: Any, core: ToyModel, inverted: Any) -> None:
    _, trajectory, *_ = inverted
    (negative,) = run("NullTextInversion", model=model, trajectory=trajectory, negative=NEGATIVE, **NULL_TEXT)
    train_sigmas = core.backbone.schedule.sigmas

    def of(embedding: Tensor) -> Any:
        return denoiser_of(core.backbone.network, embedding, train_sigmas)

    config = NullText(CFG, 3, 0.05, 0.0)
    way = trajectory.trajectory.to("cpu")
    expected = null_text_inversion(of(POSITIVE[0][0]), of, NEGATIVE[0][0], way, config)
    assert len(negative) == len(expected.embeddings)
    for (embedding, _), own in zip(negative, expected.embeddings, strict=True):
        torch.testing.assert_close(embedding, own, rtol=0, atol=2e-3)


@pytest.mark.slow
def test_ksampler_uses_each_steps_null_text_and_returns_nearer_to_the_image(model: Any, inverted: Any) -> None:
    noise, trajectory, *_ = inverted
    settings = {**NULL_TEXT, "inner_steps": 10}
    (negative,) = run("NullTextInversion", model=model, trajectory=trajectory, negative=NEGATIVE, **settings)
    contexts: list[Tensor] = []

    def watch(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        rows = dict(zip(arguments["cond_or_uncond"], arguments["c"]["c_crossattn"], strict=True))
        contexts.append(rows[1].clone())
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    watched = model.clone()
    watched.set_model_unet_function_wrapper(watch)
    guided = {"cfg": CFG}
    back = sample(watched, POSITIVE, noise["samples"], STEPS, negative=negative, **guided)
    assert len(contexts) == len(negative)
    for context, (embedding, _) in zip(contexts, negative, strict=True):
        assert torch.equal(context, embedding[0])
    plain = sample(model, POSITIVE, noise["samples"], STEPS, negative=NEGATIVE, **guided)
    assert psnr(back, IMAGE["samples"]) > psnr(plain, IMAGE["samples"]) + 3


@pytest.mark.parametrize("scheduler", ["ddim_uniform", "karras", "simple"])
@pytest.mark.parametrize("start", [0, 4])
def test_each_step_has_its_own_null_text_on_every_scheduler(model: Any, scheduler: str, start: int) -> None:
    _, trajectory, *_ = invert(model, start, scheduler=scheduler)
    settings = {**NULL_TEXT, "inner_steps": 1}
    (negative,) = run("NullTextInversion", model=model, trajectory=trajectory, negative=NEGATIVE, **settings)
    sampling = model.get_model_object("model_sampling")
    for sigma, own in zip(trajectory.trajectory.sigmas[:-1].tolist(), negative, strict=True):
        active = [
            entry
            for entry in negative
            if sampling.percent_to_sigma(entry[1]["end_percent"])
            <= sigma
            <= sampling.percent_to_sigma(entry[1]["start_percent"])
        ]
        assert len(active) == 1 and active[0] is own


def test_null_text_keeps_what_the_negative_carries(inverted: Any) -> None:
    sdxl = models.sdxl()
    text = [conditioning(i, pooled_output=normal(1, models.POOLED_WIDTH, seed=i), width=96) for i in (0, 5)]
    _, trajectory, *_ = invert(sdxl, positive=text[0])
    settings = {**NULL_TEXT, "inner_steps": 1}
    (negative,) = run("NullTextInversion", model=sdxl, trajectory=trajectory, negative=text[1], **settings)
    for _, options in negative:
        assert options["width"] == 96 and torch.equal(options["pooled_output"], text[1][0][1]["pooled_output"])


def other_sampler(name: str) -> Any:
    def run_it(model: Any, noise: Tensor, scheduler: str = "ddim_uniform", steps: int = STEPS) -> Tensor:
        with torch.inference_mode():
            (result,) = nodes.KSamplerAdvanced().sample(
                *(model, "disable", 0, steps, 1.0, name, scheduler, POSITIVE, NEGATIVE),
                *({"samples": noise}, 0, 10000, "disable"),
            )
        return result["samples"]

    return run_it


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_samplers_that_lead_where_the_inversion_came_from(model: Any, inverted: Any, name: str) -> None:
    noise, trajectory, *_ = inverted
    result = other_sampler(name)(pin(model, trajectory), noise["samples"])
    assert psnr(result, IMAGE["samples"]) > 100


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m", "heun", "lms", "lcm", "ddpm"])
def test_other_samplers_are_refused_by_what_they_do(model: Any, inverted: Any, name: str) -> None:
    noise, trajectory, *_ = inverted
    with pytest.raises(InvalidInput, match="Direct Inversion: .*(ddim or euler|scheduler, steps and start_at_step)"):
        other_sampler(name)(pin(model, trajectory), noise["samples"])


@pytest.mark.parametrize("changes", [{"steps": 8}, {"scheduler": "karras"}])
def test_another_schedule_is_refused(model: Any, inverted: Any, changes: dict[str, Any]) -> None:
    noise, trajectory, *_ = inverted
    with pytest.raises(InvalidInput, match="Direct Inversion: the trajectory has no step at sigma"):
        other_sampler("ddim")(pin(model, trajectory), noise["samples"], **changes)


def test_what_does_not_fit_is_refused(model: Any, inverted: Any) -> None:
    noise, trajectory, *_ = inverted
    for value, complaint in ((noise, "must come from DDIM Invert, got dict"), (None, "must come from DDIM Invert")):
        with pytest.raises(InvalidInput, match=f"Direct Inversion: trajectory {complaint}"):
            pin(model, value)
    for node, rest in (("DirectInversion", {"row": 0}), ("NullTextInversion", {"negative": NEGATIVE, **NULL_TEXT})):
        with pytest.raises(InvalidInput, match="trajectory was inverted with another model; connect"):
            run(node, model=models.sd1(), trajectory=trajectory, **rest)
    with pytest.raises(InvalidInput, match="row is 3 but the sampled latent is a batch of 2"):
        sample(pin(model, trajectory, 3), POSITIVE, noise["samples"].repeat(2, 1, 1, 1), STEPS)
    with pytest.raises(InvalidInput, match="a latent of 12x8 with 4 channels, the sampled latent is 8x8 with 4"):
        sample(pin(model, trajectory), POSITIVE, 14 * latent(size=(8, 8))["samples"], STEPS)
    with pytest.raises(InvalidInput, match=r"mask must be one mask \(H, W\), got shape \(2, 32, 48\)"):
        pin(model, trajectory, mask=torch.ones(2, 32, 48))
    with pytest.raises(InvalidInput, match="mask has values that are not finite"):
        pin(model, trajectory, mask=torch.full((1, 32, 48), float("nan")))
    with pytest.raises(InvalidInput, match="negative is 10 wide"):
        run("NullTextInversion", model=model, trajectory=trajectory, negative=[[normal(1, 8, 10), {}]], **NULL_TEXT)
