"""What a morph costs the network, and that frames sampled in passes and in parts are those sampled at once."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import morph_pack.morph_core.recipes.morph_frames as morph_frames
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.models.flux import FluxBackbone
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.morphing.alphas import alpha_schedule, reschedule_alphas
from morph_pack.morph_core.recipes.image import PreparedImage, inverted, inverted_pair, with_trajectory
from morph_pack.morph_core.recipes.keyframe import keyframes_of
from morph_pack.morph_core.recipes.morph import morph_prepared
from morph_pack.morph_core.recipes.morph_frames import MorphFrames, parted
from morph_pack.morph_core.recipes.morph_settings import quick_morph
from morph_pack.morph_core.sampling.schedule import FlowMatching, flow_train_sigmas
from morph_tests.core.morphs import FULL, small_model, two_ends
from morph_tests.core.test_flux import new_transformer

STEPS = 5
SIX = replace(FULL, frames=6, steps=STEPS)
EVERYWHERE = replace(SIX, attention=1.0, attention_blocks="all blocks")
EVEN = alpha_schedule(6)
UNEVEN = (0.0, 0.15, 0.3, 0.55, 0.9, 1.0)


@pytest.fixture
def model(make_unet):
    return small_model(make_unet)


@pytest.fixture
def ends(model, random_lora):
    return two_ends(model, random_lora)


@pytest.fixture
def flow(random_lora):
    """A transformer whose pictures are its latents, and two ends with LoRAs."""
    pytest.importorskip("diffusers")
    backbone = FluxBackbone(new_transformer(), FlowMatching(flow_train_sigmas()))
    ends = []
    for seed in (1, 2):
        text = Text(normal(1, 5, 16, seed=10 + seed), normal(1, 12, seed=20 + seed))
        lora = random_lora(backbone.network, seed, rank=1 + seed)
        ends.append(PreparedImage(normal(1, 4, 8, 8, seed=seed), text, lora))
    return SimpleNamespace(backbone=backbone, decode_latents=lambda latents: latents), ends


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def watched(model):
    """The list that every call of the network from now on adds to: its rows and its timestep."""
    calls = []

    def watch(module, args, kwargs):
        x = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        calls.append((len(x), float(torch.as_tensor(timestep).flatten()[0])))

    model.backbone.network.register_forward_pre_hook(watch, with_kwargs=True)
    return calls


def rows_of(calls):
    return [rows for rows, _ in calls]


def latents(frames):
    return torch.cat([frame.latent for frame in frames])


def assert_close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def frames_of(model, ends, config):
    return MorphFrames(model, *keyframes_of(model, ends, config), config)


def kept(frames):
    """By sigma and end, what was kept of the ends' attention."""
    return {(sigma, which): made for which, end in enumerate(frames.ends) for sigma, made in end.contexts.items()}


def sigmas_of(model, steps=STEPS):
    return model.backbone.schedule.spaced(steps, True)


def test_two_passes_sample_the_ends_once(model, ends):
    calls = watched(model)
    result = morph_prepared(model, *ends, SIX)
    assert rows_of(calls) == [2] * STEPS + [6] * STEPS + [4] * STEPS
    assert set(result.alphas[1:-1]).isdisjoint(EVEN)  # else there were fewer
    assert torch.equal(result.latents[[0, -1]], result.first_pass.latents[[0, -1]])


def test_without_room_for_the_ends_they_are_sampled_again_and_the_result_is_the_same(model, ends, monkeypatch):
    before = morph_prepared(model, *ends, SIX)
    monkeypatch.setattr(morph_frames, "KEPT_BYTES", 0)
    calls = watched(model)
    result = morph_prepared(model, *ends, SIX)
    assert rows_of(calls) == [2] * STEPS + [6] * STEPS + [6] * STEPS
    assert result.alphas == before.alphas
    assert_close(result.latents, before.latents)
    assert_close(result.frames, before.frames)


@pytest.mark.parametrize("spare", [-1, 0])
def test_the_room_that_the_ends_take_is_that_of_all_steps_with_attention(model, ends, monkeypatch, spare):
    config = replace(SIX, attention_blocks="all blocks")
    frames = frames_of(model, ends, config)
    frames.at(EVEN)
    sizes = [part.numel() * part.element_size() for of_step in kept(frames).values() for part in of_step.values()]
    assert len(kept(frames)) == 2 * 3  # 0.6 of 5 steps
    monkeypatch.setattr(morph_frames, "KEPT_BYTES", sum(sizes) + spare)
    calls = watched(model)
    morph_prepared(model, *ends, config)
    assert rows_of(calls)[-STEPS:] == [4 if spare == 0 else 6] * STEPS


def test_without_attention_nothing_is_kept_and_the_ends_are_sampled_once(model, ends):
    calls, frames = watched(model), frames_of(model, ends, replace(SIX, attention=0.0))
    frames.at(EVEN)
    frames.at(UNEVEN)
    assert kept(frames) == {}
    assert rows_of(calls) == [2] * STEPS + [6] * STEPS + [4] * STEPS


def test_a_strided_first_pass_takes_every_other_step(model, ends):
    calls = watched(model)
    result = morph_prepared(model, *ends, replace(SIX, first_pass_stride=2))
    assert rows_of(calls) == [2] * STEPS + [6] * 3 + [6] * STEPS
    timesteps = [timestep for _, timestep in calls]
    first, second = timesteps[STEPS : STEPS + 3], timesteps[STEPS + 3 :]
    assert second == sorted(second, reverse=True) and len(set(second)) == STEPS
    assert first == second[::2]
    expected = reschedule_alphas(result.first_pass.alphas, result.first_pass.distances.tolist(), 6)
    assert result.alphas == expected and result.alphas != EVEN


def test_a_strided_first_pass_changes_nothing_but_the_alphas(model, ends):
    result = morph_prepared(model, *ends, replace(SIX, first_pass_stride=2))
    assert_close(result.latents, latents(frames_of(model, ends, SIX).at(result.alphas)))


@pytest.mark.parametrize("exact_ends", [False, True])
def test_a_stride_longer_than_the_run_takes_one_step(model, ends, exact_ends):
    calls = watched(model)
    result = morph_prepared(model, *ends, replace(SIX, first_pass_stride=99, exact_ends=exact_ends))
    assert rows_of(calls) == [2] * STEPS + [6] + [6] * STEPS
    if exact_ends:
        images = torch.cat([end.latent for end in ends])
        for one in (result, result.first_pass):
            assert_close(one.latents[[0, -1]], images)


@pytest.mark.parametrize("exact_ends", [False, True])
@pytest.mark.parametrize("config", [SIX, EVERYWHERE], ids=["0.6, up blocks", "1.0, all blocks"])
def test_the_second_pass_is_the_pass_with_the_ends_in_its_batch(model, ends, config, exact_ends):
    config = replace(config, exact_ends=exact_ends)
    calls, frames = watched(model), frames_of(model, ends, config)
    first, second = frames.at(EVEN), frames.at(UNEVEN)
    assert rows_of(calls)[-STEPS:] == [4] * STEPS
    anew = frames_of(model, ends, config).at(UNEVEN)
    assert rows_of(calls)[-STEPS:] == [6] * STEPS
    assert_close(latents(second), latents(anew))
    assert_close(torch.cat([frame.picture for frame in second]), torch.cat([frame.picture for frame in anew]))
    without = frames_of(model, ends, replace(config, attention=0.0)).at(UNEVEN)
    assert (latents(second) - latents(without))[1:-1].abs().amax((1, 2, 3)).min() > 1e-3
    assert (latents(first) - latents(second))[1:-1].abs().amax((1, 2, 3)).min() > 1e-3


def test_a_transformers_second_pass_is_the_pass_with_the_ends_in_its_batch(flow):
    model, ends = flow
    calls, frames = watched(model), frames_of(model, ends, EVERYWHERE)
    frames.at(EVEN)
    assert {name.rpartition(".")[2] for name in next(iter(kept(frames).values()))} == {"keys", "values"}
    second = latents(frames.at(UNEVEN))
    assert rows_of(calls) == [2] * STEPS + [6] * STEPS + [4] * STEPS
    assert_close(second, latents(frames_of(model, ends, EVERYWHERE).at(UNEVEN)))
    without = latents(frames_of(model, ends, replace(EVERYWHERE, attention=0.0)).at(UNEVEN))
    assert (second - without)[1:-1].abs().amax((1, 2, 3)).min() > 1e-3
    parted_frames = frames_of(model, ends, replace(EVERYWHERE, frames_per_batch=1))
    parted_frames.at(EVEN)
    assert_close(latents(parted_frames.at(UNEVEN)), second)


def test_no_frame_is_sampled_twice(model, ends):
    calls, frames = watched(model), frames_of(model, ends, SIX)
    first = frames.at(EVEN)
    del calls[:]
    second = frames.at((0.0, EVEN[1], 0.5, EVEN[3], 1.0))
    assert rows_of(calls) == [1] * STEPS
    for now, before in ((0, 0), (1, 1), (3, 3), (4, 5)):
        assert torch.equal(second[now].latent, first[before].latent)
        assert torch.equal(second[now].picture, first[before].picture)
    again = frames.at((0.0, 0.5, 0.5, 1.0))
    assert len(calls) == STEPS and torch.equal(latents(again), latents([second[i] for i in (0, 2, 2, 4)]))


def test_frames_of_longer_steps_are_never_taken_for_those_of_single_ones(model, ends):
    calls, frames = watched(model), frames_of(model, ends, SIX)
    single, double = latents(frames.at(EVEN)), latents(frames.at(EVEN, stride=2))
    assert rows_of(calls) == [2] * STEPS + [6] * STEPS + [6] * 3
    assert (single - double).abs().amax((1, 2, 3)).min() > 1e-3
    assert torch.equal(latents(frames.at(EVEN)), single)


@pytest.mark.parametrize("exact_ends", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_frames_in_parts_are_those_at_once_in_both_passes(model, ends, size, exact_ends):
    config = replace(EVERYWHERE, exact_ends=exact_ends)
    whole, parts = (frames_of(model, ends, replace(config, frames_per_batch=n)) for n in (0, size))
    expected = [latents(whole.at(alphas)) for alphas in (EVEN, UNEVEN)]
    calls = watched(model)
    for alphas, frames in zip((EVEN, UNEVEN), expected, strict=True):
        assert_close(latents(parts.at(alphas)), frames)
    inner = {1: [1, 1, 1, 1], 2: [2, 2], 3: [3, 1]}[size]
    assert rows_of(calls) == [2, *inner] * STEPS + inner * STEPS


def test_no_call_of_a_whole_morph_sees_more_rows_than_a_part_has(model, ends, monkeypatch):
    for room in (2**30, 0):
        monkeypatch.setattr(morph_frames, "KEPT_BYTES", room)
        calls = watched(model)
        morph_prepared(model, *ends, replace(SIX, frames_per_batch=2))
        assert set(rows_of(calls)) == {2}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("ends", [(), (0,), (-1,), (0, -1)])
def test_parts_are_all_rows_once_and_none_is_too_large(size, ends):
    for frames in (2, 3, 6):
        first = [end % frames for end in ends]
        parts = parted(frames, size, first)
        assert sorted(row for part in parts for row in part) == list(range(frames))
        assert max(map(len, parts)) <= (max(len(first), size) if size else frames)
        assert set(first) <= set(parts[0])


@pytest.mark.parametrize("pass_alphas", [EVEN, UNEVEN])
def test_the_frames_do_not_depend_on_which_are_asked_for_together(model, ends, pass_alphas):
    whole = latents(frames_of(model, ends, EVERYWHERE).at(pass_alphas))
    frames = frames_of(model, ends, EVERYWHERE)
    for row, alpha in enumerate(pass_alphas):
        assert_close(frames.at((alpha,))[0].latent[0], whole[row])


def test_both_images_are_inverted_as_one_batch(model, ends):
    calls, sigmas = watched(model), sigmas_of(model)
    pair = inverted_pair(model, *ends, sigmas)
    assert rows_of(calls) == [2] * STEPS
    for own, end in zip(pair, ends, strict=True):
        alone = inverted(model, end, sigmas)
        assert torch.equal(own.latents[-1], end.latent) and torch.equal(own.sigmas, alone.sigmas)
        assert_close(own.latents, alone.latents, 1e-4)
    assert (pair[0].noise - pair[1].noise).abs().max() > 0.1


def test_prompts_of_other_lengths_are_inverted_one_by_one(model, ends):
    text = ends[1].text
    longer = replace(ends[1], text=replace(text, context=torch.cat([text.context, text.context.flip(1)], dim=1)))
    calls, sigmas = watched(model), sigmas_of(model)
    pair = inverted_pair(model, ends[0], longer, sigmas)
    assert rows_of(calls) == [1] * 2 * STEPS
    for own, end in zip(pair, (ends[0], longer), strict=True):
        assert_close(own.latents, inverted(model, end, sigmas).latents)


@pytest.mark.parametrize("known", [0, 1])
def test_an_image_with_a_trajectory_is_not_inverted_again(model, ends, known):
    sigmas = sigmas_of(model)
    pair = list(ends)
    pair[known] = with_trajectory(model, ends[known], sigmas)
    calls = watched(model)
    ways = inverted_pair(model, *pair, sigmas)
    assert rows_of(calls) == [1] * STEPS
    assert ways[known] is pair[known].trajectory
    assert_close(ways[1 - known].latents, inverted(model, ends[1 - known], sigmas).latents)


def test_a_trajectory_through_other_sigmas_is_not_used(model, ends):
    other = with_trajectory(model, ends[0], sigmas_of(model, 4))
    calls = watched(model)
    inverted_pair(model, other, ends[1], sigmas_of(model))
    assert rows_of(calls) == [2] * STEPS


@pytest.mark.parametrize("change", [{"first_pass_stride": 0}, {"first_pass_stride": -1}, {"frames_per_batch": -1}])
def test_impossible_settings_are_refused(change):
    ((_, value),) = change.items()
    with pytest.raises(InvalidInput, match=f"first_pass_stride must be 1 .* got .*{value}"):
        replace(SIX, **change)


def test_a_quick_morph_asks_for_20_rows_an_end_and_for_every_frame_between_as_many_in_each_pass(model, ends):
    calls = watched(model)
    morph_prepared(model, *(replace(end, lora={}) for end in ends), quick_morph(5))
    assert sum(rows_of(calls)) == 20 * (2 + 5 + 3)
