"""Sequences in ComfyUI: the two-picture graph to the bit, and any number of pictures as the library makes them."""

from typing import Any

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.morphing.timeline import Timeline, timeline
from morph_pack.morph_core.recipes.image import PreparedImage
from morph_pack.morph_core.recipes.morph import Morph
from morph_pack.morph_core.recipes.sequence import sequence_prepared
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_pack.nodes.host.frame_batches import PART, InSegments
from morph_tests.nodes.flow_models import flux, prompt_for
from morph_tests.nodes.flow_truths import SETTINGS, noise_for
from morph_tests.nodes.graph import conditioning, latent, normal, random_lora, run, sample, with_lora

STEPS = 4
BLEND = {"adain": 1.0, "attention": 1.0, "end_percent": 0.6, "blocks": "up blocks"}
SCHEDULE = {"frames": "4", "easings": "linear", "holds": "0", "closed": False}


def noise(seed: int) -> Any:
    return {"samples": 10 * normal(1, 4, 8, 12, seed=seed)}


def keyframes(count: int, **changes: Any) -> Any:
    """Of a batch of lists, as they come from nodes behind Add Picture."""
    seeds = range(count)
    parts = {
        "noise": [noise(seed) for seed in seeds],
        "positive": [conditioning(seed) for seed in seeds],
        "lora": [random_lora(seed, rank=4 + seed) for seed in seeds],
    }
    return run("AddKeyframe", **{**parts, **changes})[0]


def blended(model: Any, pictures: Any, alphas: Any, **changes: Any) -> Any:
    return run("BlendKeyframes", model=model, keyframes=pictures, alphas=alphas, **{**BLEND, **changes})


def sampled(model: Any, pictures: Any, alphas: Any, cfg: float = 1.0, **changes: Any) -> Tensor:
    patched, positive, rows, _ = blended(model, pictures, alphas, **changes)
    return sample(patched, positive, rows["samples"], STEPS, conditioning(9), cfg)


def by_the_morphs_graph(model: Any, count: int, cfg: float = 1.0, frames_per_batch: int = 0) -> Tensor:
    (alphas,) = run("AlphaSchedule", frames=count, easing="linear")
    loras = [random_lora(seed, rank=4 + seed) for seed in range(2)]
    frames, _ = run("SlerpLatents", start=noise(0), end=noise(1), alphas=alphas)
    frames, _ = run("AdaIN", frames=frames, start=noise(0), end=noise(1), alphas=alphas, strength=1.0)
    (prompt,) = run("BlendConditioning", start=conditioning(0), end=conditioning(1), alphas=alphas)
    (blend,) = run("LoraBlend", model=model, start=loras[0], end=loras[1], alphas=alphas)
    settings = {"strength": 1.0, "end_percent": 0.6, "blocks": "up blocks", "frames_per_batch": frames_per_batch}
    (patched,) = run("AttentionKVInject", model=blend, alphas=alphas, **settings)
    return sample(patched, prompt, frames["samples"], STEPS, conditioning(9), cfg)


@pytest.mark.parametrize(("cfg", "size"), [(1.0, 0), (1.0, 2), (2.5, 0)])
def test_two_pictures_are_the_morphs_graph_to_the_bit(model: Any, cfg: float, size: int) -> None:
    pictures = keyframes(2)
    (alphas,) = run("SequenceSchedule", keyframes=pictures, **{**SCHEDULE, "frames": "5"})
    result = sampled(model, pictures, alphas, cfg, frames_per_batch=size)
    assert torch.equal(result, by_the_morphs_graph(model, 5, cfg, size))


@pytest.mark.parametrize("closed", [False, True])
def test_a_sequence_is_the_librarys(model: Any, core: ToyModel, closed: bool) -> None:
    images = [latent(seed) for seed in range(3)]
    prompts, loras = [conditioning(seed) for seed in range(3)], [random_lora(seed) for seed in range(3)]
    spacing = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": 0}
    noises = [
        run("DdimInvert", model=with_lora(model, lora), positive=prompt, latent_image=image, **spacing)[0]
        for image, prompt, lora in zip(images, prompts, loras, strict=True)
    ]
    (pictures,) = run("AddKeyframe", noise=noises, positive=prompts, lora=loras)
    (alphas,) = run("SequenceSchedule", keyframes=pictures, **{**SCHEDULE, "closed": closed})
    expected = sequence_prepared(
        core,
        [
            PreparedImage(image["samples"] * SCALE_FACTOR, Text(prompt[0][0]), lora)
            for image, prompt, lora in zip(images, prompts, loras, strict=True)
        ],
        timeline(3, [4], closed=closed),
        Morph(frames=4, steps=STEPS, lora=None, reschedule=False),
    )
    result = sampled(model, pictures, alphas)
    torch.testing.assert_close(result * SCALE_FACTOR, expected.latents, rtol=0, atol=1e-3)


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_frames_in_parts_are_whole_segments(model: Any, cfg: float) -> None:
    pictures = keyframes(3)
    (alphas,) = run("SequenceSchedule", keyframes=pictures, **{**SCHEDULE, "closed": True})
    whole, parts = (sampled(model, pictures, alphas, cfg, frames_per_batch=size) for size in (0, 1))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)
    assert (whole - sampled(model, pictures, alphas, cfg, attention=0.0)).abs().max() > 0.01
    assert (whole - sampled(model, keyframes(3, lora=None), alphas, cfg)).abs().max() > 0.01


def test_each_frame_goes_through_the_network_once_segment_by_segment(model: Any) -> None:
    rows: list[int] = []

    def watch(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rows.append(len(x))
        return executor(x, *args, **kwargs)

    pictures = keyframes(3)
    (alphas,) = run("SequenceSchedule", keyframes=pictures, **{**SCHEDULE, "frames": "4, 6, 3", "closed": True})
    patched, positive, noises, _ = blended(model, pictures, alphas)
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
    sample(patched, positive, noises["samples"], 1)
    assert rows == [4, 5, 1]


def test_no_more_is_kept_of_pictures_than_three_of_them_need() -> None:
    """The first, to which a closed sequence returns, and both of the segment that is under way."""
    kept: list[set[int]] = []

    def execute(x: Tensor, *inputs: Any, **others: Any) -> Tensor:
        ends = inputs[4][PART].ends
        for number in ends.rows:
            ends.made["layer", number] = x
        assert {ends.start, ends.end} <= {number for _, number in ends.made}
        kept.append({number for _, number in ends.made})
        return x

    looped = timeline(6, [4], closed=True)
    x = torch.arange(float(len(looped.sampled)))[:, None]
    options = {"cond_or_uncond": [0]}
    assert torch.equal(InSegments(looped, 1)(execute, x, x, transformer_options=options), x)
    assert max(map(len, kept)) == 4 and kept[-1] == {0, 5}  # a fourth one until its segment has begun


def test_two_pictures_of_a_transformer_are_its_morphs_graph() -> None:
    model = flux()
    noises, prompts = [{"samples": row} for row in noise_for(model, 2).split(1)], [prompt_for(model, n) for n in (1, 2)]
    (pictures,) = run("AddKeyframe", noise=noises, positive=prompts)
    patched, positive, rows, _ = blended(model, pictures, timeline(2, [4]))
    (alphas,) = run("AlphaSchedule", frames=4, easing="linear")
    ends = {"start": noises[0], "end": noises[1], "alphas": alphas}
    frames, _ = run("AdaIN", frames=run("SlerpLatents", **ends)[0], **ends, strength=1.0)
    (prompt,) = run("BlendConditioning", start=prompts[0], end=prompts[1], alphas=alphas)
    settings = {"strength": 1.0, "end_percent": 0.6, "blocks": "up blocks"}
    (injected,) = run("AttentionKVInject", model=model, alphas=alphas, **settings)
    result = sample(patched, positive, rows["samples"], **SETTINGS)
    assert torch.equal(result, sample(injected, prompt, frames["samples"], **SETTINGS))


def test_pictures_may_be_added_one_by_one_or_as_lists() -> None:
    whole, chain = keyframes(3), None
    for picture in whole:
        before = {} if chain is None else {"keyframes": [chain]}
        (chain,) = run("AddKeyframe", noise=[picture.noise], positive=[picture.positive], lora=[picture.lora], **before)
    assert [vars(a) for a in chain] == [vars(b) for b in whole]


def test_pictures_become_lists_with_their_prompts() -> None:
    pictures = torch.rand(3, 1, 8, 8, 3)
    images, prompts = run("AddPicture", image=[pictures[0]], prompt=["one"])
    images, prompts = run("AddPicture", image=[pictures[1]], prompt=["two"], images=images, prompts=prompts)
    assert torch.equal(torch.cat(images), pictures[:2].flatten(0, 1)) and prompts == ["one", "two"]
    with pytest.raises(InvalidInput, match="Add Picture: images has 2 pictures but prompts has 1"):
        run("AddPicture", image=[pictures[2]], prompt=["three"], images=images, prompts=prompts[:1])
    with pytest.raises(InvalidInput, match="Add Picture: image must hold one picture, got a batch of 3"):
        run("AddPicture", image=[pictures[:, 0]], prompt=["three"])


def test_held_frames_are_shown_again() -> None:
    pictures = keyframes(2)
    (alphas,) = run("SequenceSchedule", keyframes=pictures, **{**SCHEDULE, "frames": "3", "holds": "2, 1"})
    frames = torch.rand(3, 8, 8, 3)
    (shown,) = run("ArrangeFrames", images=frames, alphas=alphas)
    assert torch.equal(shown, frames[[0, 0, 0, 1, 2, 2]])
    with pytest.raises(InvalidInput, match="Arrange Frames: images has 6 frames but .* has 3 to sample"):
        run("ArrangeFrames", images=shown, alphas=alphas)


def test_a_sequence_is_rescheduled_segment_by_segment() -> None:
    """Black to white in uneven greys, then back; a picture is held, and stays where it is."""
    pictures = keyframes(2)
    settings = {**SCHEDULE, "frames": "3", "holds": "1, 0", "closed": True}
    (alphas,) = run("SequenceSchedule", keyframes=pictures, **settings)
    greys = torch.tensor([0.0, 0.25, 1.0, 0.5])  # at 0, 0.5, 1, 1.5
    frames = greys[:, None, None, None].expand(-1, 16, 16, 3)
    (even, _) = run("RescheduleAlphas", images=frames, alphas=alphas, frames=0, metric="laplacian pyramid")
    assert even.positions == pytest.approx((0.0, 0.0, 0.5 + 0.25 / 0.75 / 2, 1.0, 1.5)) and even.pictures == 2
    with pytest.raises(InvalidInput, match="^Reschedule Alphas: frames must be 0 for a sequence"):
        run("RescheduleAlphas", images=frames, alphas=alphas, frames=5, metric="laplacian pyramid")


def test_values_come_as_a_list_or_as_a_list_in_a_list() -> None:
    pictures, values = keyframes(3), [0.0, 1.0, 0.25]
    for given in (values, [values]):
        (alphas,) = run("SequenceFromValues", keyframes=[pictures], values=given, closed=[False])
        assert alphas == Timeline((0.0, 2.0, 0.5), 3)
    with pytest.raises(InvalidInput, match="Sequence From Values: values must be between 0 and 1, got 1.5"):
        run("SequenceFromValues", keyframes=[pictures], values=[0.5, 1.5], closed=[False])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": "4, x"}, "frames must be whole numbers, parted by commas; got '4, x'"),
        ({"frames": ""}, "frames must be entries parted by commas"),
        ({"frames": "1"}, "at least 2 frames"),
        ({"frames": "4, 4, 4"}, "one for each of the 2 segments, got 3"),
        ({"holds": "-1"}, "holds must not be negative"),
        ({"easings": "bounce"}, "easing must be one of linear"),
    ],
)
def test_impossible_schedules_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=f"^Sequence Schedule: .*{words}"):
        run("SequenceSchedule", keyframes=keyframes(3), **{**SCHEDULE, **changes})


def test_one_picture_is_no_sequence() -> None:
    with pytest.raises(InvalidInput, match="^Sequence Schedule: a sequence has 2 to 1000 pictures, got 1"):
        run("SequenceSchedule", keyframes=keyframes(1), **SCHEDULE)


def test_keyframes_of_different_sizes_are_refused(model: Any) -> None:
    other = keyframes(3, noise=[noise(0), noise(1), latent(2, size=(8, 8))])
    with pytest.raises(InvalidInput, match="^Blend Keyframes: keyframe 1 and keyframe 3 must have the same size"):
        blended(model, other, timeline(3, [4]))


def test_alphas_of_another_number_of_pictures_are_refused(model: Any) -> None:
    with pytest.raises(InvalidInput, match="^Blend Keyframes: alphas are of 4 pictures but keyframes has 3"):
        blended(model, keyframes(3), timeline(4, [4]))
    with pytest.raises(InvalidInput, match="^Blend Keyframes: alphas must be of a sequence, from Sequence Schedule"):
        blended(model, keyframes(3), (0.0, 1.0))
    with pytest.raises(InvalidInput, match="^Slerp Latents: alphas are of a sequence"):
        run("SlerpLatents", start=noise(0), end=noise(1), alphas=timeline(3, [4]))


def test_prompts_and_noises_of_different_numbers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="^Add Keyframe: noise is of 3 pictures, positive of 2 and lora of 3"):
        keyframes(3, positive=[conditioning(0), conditioning(1)])


def test_a_batch_of_another_sequence_is_refused(model: Any) -> None:
    patched, positive, rows, _ = blended(model, keyframes(2), timeline(2, [4]))
    with pytest.raises(InvalidInput, match="^Blend Keyframes: the sequence has 4 frames to sample .* batch of 3"):
        sample(patched, [[positive[0][0][:3], {}]], rows["samples"][:3], 1)


def test_a_hundred_pictures_are_one_batch(model: Any) -> None:
    seeds = range(100)
    (many,) = run("AddKeyframe", noise=[noise(seed) for seed in seeds], positive=[conditioning(seed) for seed in seeds])
    patched, positive, rows, _ = blended(model, many, timeline(100, [2], closed=True))
    assert len(rows["samples"]) == len(positive[0][0]) == 100
    torch.testing.assert_close(
        rows["samples"], torch.cat([noise(seed)["samples"] for seed in seeds]), rtol=0, atol=1e-3
    )
