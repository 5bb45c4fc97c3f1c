"""A morph of a part of the picture, and a text in the middle, under stock KSampler."""

from typing import Any

import comfy.patcher_extension
import comfy.supported_models
import nodes
import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.crop import soft_cells
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.morphing.adain import adain
from morph_pack.morph_core.morphing.alphas import alpha_schedule
from morph_pack.morph_core.morphing.blend_text import blend_text
from morph_pack.morph_core.morphing.slerp import slerp
from morph_pack.morph_core.recipes.image import PreparedImage
from morph_pack.morph_core.recipes.morph import Morph, morph_prepared
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_tests.nodes import models
from morph_tests.nodes.flow_models import flux, image_for, prompt_for, qwen, size_for, z_image
from morph_tests.nodes.flow_truths import distance, frames_of, injected
from morph_tests.nodes.graph import conditioning, latent, normal, random_lora, run, sample
from morph_tests.nodes.refusals import assert_says, execute, refusal

STEPS, FRAMES = 5, 4
ALPHAS = alpha_schedule(FRAMES)
KV = {"strength": 1.0, "end_percent": 0.6, "blocks": "up blocks"}
IMAGES = [{"samples": normal(1, 4, 8, 12, seed=i) / SCALE_FACTOR} for i in range(2)]
PROMPTS = [conditioning(i) for i in range(2)]
PICTURE = (32, 48)  # height and width of the pictures of those latents
WHITE, BLACK = torch.ones(1, *PICTURE), torch.zeros(1, *PICTURE)


def soft() -> Tensor:
    """A MASK that rises from left to right; its first three columns of cells and its last three are 0 and 1."""
    return torch.linspace(-1, 2, 48).clamp(0, 1).round(decimals=6).expand(1, 32, 48).contiguous()


def cells(mask: Tensor) -> Tensor:
    return soft_cells(mask[None], (8, 12))


def local_morph(model: Any, mask: Tensor | None, held: bool = False, **settings: Any) -> Tensor:
    """The frames' latents, with every ingredient. held: by Direct Inversion of all rows outside of the mask."""
    spacing = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": 0}
    found = [
        run("DdimInvert", model=model, positive=prompt, latent_image=image, **spacing)
        for prompt, image in zip(PROMPTS, IMAGES, strict=True)
    ]
    ends = {"start": found[0][0], "end": found[1][0], "alphas": ALPHAS, "mask": mask}
    frames, _ = run("SlerpLatents", **ends)
    frames, _ = run("AdaIN", frames=frames, strength=1.0, **ends)
    (prompt,) = run("BlendConditioning", start=PROMPTS[0], end=PROMPTS[1], alphas=ALPHAS)
    (patched,) = run("AttentionKVInject", model=model, alphas=ALPHAS, mask=mask, **{**KV, **settings})
    if held:
        (patched,) = run("DirectInversion", model=patched, trajectory=found[0][1], row=0, mask=mask, all_rows=True)
    return sample(patched, prompt, frames["samples"], STEPS)


def decoded(vae: Any, samples: Tensor) -> Tensor:
    with torch.inference_mode():
        return nodes.VAEDecode().decode(vae, {"samples": samples})[0]


def test_a_white_mask_is_none_to_the_bit(model: Any) -> None:
    assert torch.equal(local_morph(model, WHITE), local_morph(model, None))


def test_a_black_mask_keeps_the_first_picture_in_every_frame(model: Any, toy: tuple[Any, Any, Any]) -> None:
    frames = decoded(toy[2], local_morph(model, BLACK, held=True))
    picture = decoded(toy[2], IMAGES[0]["samples"])
    torch.testing.assert_close(frames, picture.expand_as(frames), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["soft", "hard"])
def test_outside_of_a_mask_is_the_first_picture_and_inside_moves(model: Any, name: str) -> None:
    mask = soft() if name == "soft" else (soft() > 0.5).float()
    frames = local_morph(model, mask, held=True)
    away = (frames - IMAGES[0]["samples"]).abs().amax(1)
    outside = cells(mask)[0, 0] == 0
    assert away[:, outside].max() < 1e-4
    inside = away[1:, cells(mask)[0, 0] == 1].mean(1)
    assert (inside > 0.05).all() and inside[-1] > inside[0]


@pytest.mark.parametrize("frames_per_batch", [1, 2])
def test_in_parts_it_is_the_same(model: Any, frames_per_batch: int) -> None:
    whole = local_morph(model, soft(), held=True)
    parts = local_morph(model, soft(), held=True, frames_per_batch=frames_per_batch)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)


def test_it_is_the_cores(model: Any, core: ToyModel) -> None:
    ends = [
        PreparedImage(image["samples"] * SCALE_FACTOR, Text(prompt[0][0]), {})
        for image, prompt in zip(IMAGES, PROMPTS, strict=True)
    ]
    config = Morph(frames=FRAMES, steps=STEPS, lora=None, reschedule=False)
    expected = morph_prepared(core, ends[0], ends[1], config, mask=soft()[None]).latents
    actual = local_morph(model, soft(), held=True) * SCALE_FACTOR
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


def test_slerp_latents_and_adain_are_the_cores() -> None:
    start, end = latent(0), latent(1)
    ends = {"start": start, "end": end, "alphas": ALPHAS, "mask": soft()}
    frames, _ = run("SlerpLatents", **ends)
    assert torch.equal(frames["samples"], slerp(start["samples"], end["samples"], ALPHAS, cells(soft())))
    styled, _ = run("AdaIN", frames=frames, strength=0.7, **ends)
    given = (frames["samples"], start["samples"], end["samples"], ALPHAS, 0.7, cells(soft()))
    assert torch.equal(styled["samples"], adain(*given))


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_conditions_and_their_absence_are_two_runs_of_the_frames(model: Any, cfg: float) -> None:
    """With a black mask every row's keys and values are its own run's first row's."""
    noise, settings = 10 * normal(FRAMES, 4, 8, 12), {"negative": conditioning(5), "cfg": cfg}
    inject = {**KV, "end_percent": 1.0, "blocks": "all blocks"}
    (black,) = run("AttentionKVInject", model=model, alphas=ALPHAS, mask=BLACK, **inject)
    (first,) = run("AttentionKVInject", model=model, alphas=(0.0,) * FRAMES, **inject)
    frames = sample(black, conditioning(), noise, 3, **settings)
    torch.testing.assert_close(frames, sample(first, conditioning(), noise, 3, **settings), rtol=0, atol=1e-5)
    (half,) = run("AttentionKVInject", model=model, alphas=ALPHAS, mask=soft(), **inject)
    assert (sample(half, conditioning(), noise, 3, **settings) - frames).abs().amax((1, 2, 3))[1:].min() > 1e-3


def padded() -> Any:
    return z_image(pad=32)


@pytest.mark.parametrize("make", [flux, qwen, padded], ids=["Flux", "Qwen-Image", "Z-Image"])
def test_of_a_transformers_tokens(make: Any) -> None:
    if make is padded and not hasattr(comfy.supported_models, "ZImage"):
        pytest.skip("this ComfyUI has no Z-Image")
    model = make()
    height, width = (8 * side for side in size_for(model))
    mask = torch.linspace(-1, 2, width).clamp(0, 1).expand(1, height, width).contiguous()
    plain = frames_of(model, injected(model))
    assert torch.equal(frames_of(model, injected(model, mask=torch.ones_like(mask))), plain)
    black = frames_of(model, injected(model, mask=torch.zeros_like(mask)))
    assert distance(black, frames_of(model, injected(model, alphas=(0.0,) * 4))) < 1e-5
    local = frames_of(model, injected(model, mask=mask))
    assert distance(frames_of(model, injected(model, mask=mask, frames_per_batch=1)), local) < 2e-5
    for other in (plain, black):
        assert distance(local[1:], other[1:]) > 1e-4


def test_of_latents_with_a_time_axis_all_rows_are_held() -> None:
    model = qwen()
    image, prompt = image_for(model), prompt_for(model)
    spacing = {"steps": 3, "scheduler": "simple", "start_at_step": 1}
    noise, trajectory, *_ = run("DdimInvert", model=model, positive=prompt, latent_image=image, **spacing)
    height, width = (8 * side for side in size_for(model))
    mask = torch.zeros(1, height, width)
    mask[..., : width // 2] = 1
    (held,) = run("DirectInversion", model=model, trajectory=trajectory, row=0, mask=mask, all_rows=True)
    x = noise["samples"] + normal(3, *noise["samples"].shape[1:], seed=4)
    frames = sample(held, prompt, x, 3, start=1, scheduler="simple")
    away = (frames - image["samples"]).abs().flatten(0, 2).amax(0)
    half = away.shape[-1] // 2
    assert away[:, half:].max() < 1e-4 * image["samples"].abs().max() < away[:, :half].min()


def test_a_mask_of_another_size_is_refused_by_name(model: Any) -> None:
    """The usual one: Load Image's mask of a picture without transparency is black, of 64 pixels a side."""
    other = torch.zeros(1, 64, 64)
    for node in ("SlerpLatents", "AdaIN"):
        says = ("^mask is 64x64", "no size of an image that start of 12x8 cells is of", "connect a mask of that")
        assert_says(refusal(model, node, mask=other), *says)
    (patched,) = execute(model, "AttentionKVInject", mask=other)
    with pytest.raises(InvalidInput, match="^Attention KV Inject: mask is 64x64, .* the sampled latent of 12x8 cells"):
        sample(patched, conditioning(), normal(3, 4, 8, 12), 2)


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        (torch.ones(2, *PICTURE), r"^mask must be one mask \(H, W\), got shape \(2, 32, 48\)"),
        (torch.ones(48), r"^mask must be one mask \(H, W\), got shape \(48,\)"),
        (torch.full((1, *PICTURE), 1.5), "^mask must have values from 0 to 1, got 1.5 to 1.5"),
        (torch.full((1, *PICTURE), float("nan")), "^mask has values that are not finite"),
    ],
    ids=["two", "row", "above 1", "NaN"],
)
def test_other_masks_are_refused(model: Any, mask: Tensor, complaint: str) -> None:
    for node in ("SlerpLatents", "AdaIN"):
        assert_says(refusal(model, node, mask=mask), complaint)


def test_a_mask_without_alphas_is_refused(model: Any) -> None:
    assert_says(refusal(model, "AttentionKVInject", alphas=None, mask=WHITE), "^mask .* alphas is empty; connect both")


def invert(model: Any) -> Any:
    spacing = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": 0}
    return run("DdimInvert", model=model, positive=PROMPTS[0], latent_image=IMAGES[0], **spacing)


def hold(model: Any, trajectory: Any, **changes: Any) -> Any:
    given = {"model": model, "trajectory": trajectory, "row": 7, "mask": None, "all_rows": True}
    return run("DirectInversion", **{**given, **changes})[0]


def test_all_rows_are_held_whatever_row_says(model: Any) -> None:
    trajectory = invert(model)[1]
    frames = sample(hold(model, trajectory), PROMPTS[1], 14 * normal(3, 4, 8, 12, seed=3), STEPS)
    torch.testing.assert_close(frames, IMAGES[0]["samples"].expand_as(frames), rtol=0, atol=1e-4)


def test_a_row_that_is_led_astray_is_found_whichever_it_is(model: Any) -> None:
    trajectory = invert(model)[1]
    for row in range(3):

        def nudged(executor: Any, x: Tensor, *args: Any, row: int = row, **kwargs: Any) -> Tensor:
            denoised = executor(x, *args, **kwargs).clone()
            denoised[row] += 1
            return denoised

        outside = hold(model, trajectory)
        wrappers = outside.wrappers.setdefault(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, {})
        outside.wrappers[comfy.patcher_extension.WrappersMP.PREDICT_NOISE] = {"nudge": [nudged], **wrappers}
        with pytest.raises(InvalidInput, match=f"Direct Inversion: row {row} is not where it was put.*nudge"):
            sample(outside, PROMPTS[0], 14 * normal(3, 4, 8, 12, seed=3), STEPS)


def test_a_noise_mask_of_any_row_is_refused(model: Any) -> None:
    trajectory = invert(model)[1]
    for row in range(3):
        noise_mask = torch.ones(3, 1, *PICTURE)
        noise_mask[row, ..., :24] = 0
        given = {"samples": 14 * normal(3, 4, 8, 12, seed=3), "noise_mask": noise_mask}
        with torch.inference_mode(), pytest.raises(InvalidInput, match=f"which keeps row {row} from its trajectory"):
            nodes.KSamplerAdvanced().sample(
                *(hold(model, trajectory), "disable", 0, STEPS, 1.0, "ddim", "ddim_uniform", PROMPTS[0], PROMPTS[0]),
                *(given, 0, 10000, "disable"),
            )


def test_an_end_may_be_held_inside_of_the_mask(model: Any) -> None:
    """The last frame is the second picture where the mask is white and the first where it is black."""
    mask, spacing = (soft() > 0.5).float(), {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": 0}
    ways = [
        run("DdimInvert", model=model, positive=prompt, latent_image=image, **spacing)[1]
        for prompt, image in zip(PROMPTS, IMAGES, strict=True)
    ]
    held = hold(hold(model, ways[0], mask=mask), ways[1], mask=1 - mask, row=-1, all_rows=False)
    frames = sample(held, PROMPTS[0], 14 * normal(3, 4, 8, 12, seed=3), STEPS)
    expected = torch.where(cells(mask) == 1, IMAGES[1]["samples"], IMAGES[0]["samples"])
    torch.testing.assert_close(frames[-1:], expected, rtol=0, atol=1e-4)


class TestMiddle:
    ENDS = {
        "start": conditioning(0, pooled_output=normal(1, 6)),
        "end": conditioning(1, pooled_output=normal(1, 6, seed=1)),
    }
    MIDDLE = conditioning(2, pooled_output=normal(1, 6, seed=2))

    def blend(self, **more: Any) -> Any:
        return run("BlendConditioning", alphas=(0.0, 0.5, 0.9, 1.0), **self.ENDS, **more)[0][0]

    def test_without_weight_it_is_as_without_it(self) -> None:
        plain, without = self.blend(), self.blend(middle=self.MIDDLE, middle_weight=0.0)
        assert torch.equal(plain[0], without[0])
        assert torch.equal(plain[1]["pooled_output"], without[1]["pooled_output"])

    def test_at_one_half_it_is_the_middle_and_the_ends_are_the_ends(self) -> None:
        text, options = self.blend(middle=self.MIDDLE)
        for row, prompt in ((0, self.ENDS["start"]), (1, self.MIDDLE), (3, self.ENDS["end"])):
            assert torch.equal(text[row : row + 1], prompt[0][0])
            assert torch.equal(options["pooled_output"][row : row + 1], prompt[0][1]["pooled_output"])

    def test_it_is_the_cores(self) -> None:
        text, _ = self.blend(middle=self.MIDDLE, middle_weight=0.4)
        parts = [prompt[0][0] for prompt in (*self.ENDS.values(), self.MIDDLE)]
        assert torch.equal(text, blend_text(*parts[:2], (0.0, 0.5, 0.9, 1.0), parts[2], 0.4))

    def test_what_does_not_go_with_the_others_is_refused(self, model: Any) -> None:
        for middle, says in (
            (conditioning(2), "start and middle has a pooled output"),
            (self.MIDDLE * 2, "^middle must be one prompt.*2 combined"),
            ([[self.MIDDLE[0][0], {**self.MIDDLE[0][1], "area": (4, 4, 0, 0)}]], "start and middle differ in 'area'"),
            ([[normal(1, 8, 10), self.MIDDLE[0][1]]], "same text encoder"),
        ):
            with pytest.raises(InvalidInput) as raised:
                self.blend(middle=middle)
            assert_says(str(raised.value).removeprefix("Blend Conditioning: "), says)

    def test_sdxl_samples_with_it(self) -> None:
        model = models.sdxl()
        prompts = [conditioning(i, pooled_output=normal(1, models.POOLED_WIDTH, seed=i)) for i in range(3)]
        names = dict(zip(("start", "end", "middle"), prompts, strict=True))
        (blend,) = run("BlendConditioning", alphas=(0.0, 0.5, 1.0), **names)
        noise = 10 * normal(3, 4, 8, 12)
        frames = sample(model, blend, noise, 2)
        for row, name in enumerate(("start", "middle", "end")):
            alone = sample(model, names[name], noise[row : row + 1], 2)
            torch.testing.assert_close(frames[row : row + 1], alone, rtol=0, atol=1e-4)


def test_the_whole_with_loras(model: Any) -> None:
    """LoRA Blend stays global: outside of the mask the frames are held all the same."""
    (blend,) = run("LoraBlend", model=model, start=random_lora(0), end=random_lora(1), alphas=ALPHAS)
    noise = 14 * normal(FRAMES, 4, 8, 12, seed=3)
    frames = sample(hold(blend, invert(model)[1], mask=soft()), PROMPTS[0], noise, STEPS)
    outside = cells(soft())[0, 0] == 0
    assert (frames - IMAGES[0]["samples"]).abs().amax(1)[:, outside].max() < 1e-4
