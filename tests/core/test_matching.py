"""Matches of layouts whose field is known, and what is done with noise and contexts by them."""

import math

import pytest
import torch
from torch import nn

from morph_pack.morph_core.attention.end_frames import mix_end_contexts
from morph_pack.morph_core.dragging.backward import pixel_middles
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.matching.aligned import AlignedEnds
from morph_pack.morph_core.matching.bilinear import Bilinear, read_between
from morph_pack.morph_core.matching.matches import Matches, match_layouts
from morph_pack.morph_core.matching.smooth_field import (
    LEAST_JACOBIAN,
    Anchors,
    least_jacobian,
    moved_by,
    robust_affine,
    unfolded_rest,
)
from morph_pack.morph_core.matching.transport_plan import feature_cost, sinkhorn

SIZE = (24, 24)
ALPHAS = (0.0, 0.25, 0.5, 1.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def features_at(places, seed=0, count=64):
    """A smooth random function of places (h, w, 2), as features (D, h, w)."""
    waves = torch.randn(count, 2, generator=seeded(seed), dtype=torch.float64) / 2
    phases = 2 * math.pi * torch.rand(count, generator=seeded(seed + 1), dtype=torch.float64)
    return (places @ waves.T + phases).cos().movedim(-1, 0)


def turned(angle, scale, shift, middle=(12.0, 12.0)):
    """The affine map (2, 3) that turns and scales about the middle, then shifts."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    linear = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    centre, way = torch.tensor(middle, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64)
    return torch.cat([linear, (centre + way - linear @ centre)[:, None]], dim=1)


def inverse_of(affine):
    linear = torch.linalg.inv(affine[:, :2])
    return torch.cat([linear, -(linear @ affine[:, 2])[:, None]], dim=1)


def exact(affine, size=SIZE, rest=None):
    ones = torch.ones(size, dtype=torch.float64)
    return Matches(affine, torch.zeros(*size, 2, dtype=torch.float64) if rest is None else rest, ones, ones)


IDENTITY = torch.eye(2, 3, dtype=torch.float64)
TURNED = turned(0.3, 1.15, (1.5, -1.0))


def swirl(strength, size=SIZE):
    """A rest that no affine map has: it turns about the middle, less and less with the distance."""
    away = pixel_middles(size) - torch.tensor([size[1] / 2, size[0] / 2])
    share = (-away.square().sum(-1) / 18).exp()[..., None]
    return strength * share * torch.stack([-away[..., 1], away[..., 0]], dim=-1)


def test_a_plan_has_uniform_marginals():
    cost = feature_cost(*(torch.randn(16, 5, 6, generator=seeded(seed)) for seed in (0, 1)))
    plan = sinkhorn(cost, epsilon=0.2, iterations=500)
    torch.testing.assert_close(plan.sum(1), torch.full((30,), 1 / 30, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(plan.sum(0), torch.full((30,), 1 / 30, dtype=torch.float64), rtol=0, atol=1e-9)


def test_a_plan_is_a_scaled_kernel():
    """What entropic transport is known by: log P + cost/epsilon is a sum of a row's and a column's number."""
    cost = feature_cost(*(torch.randn(16, 3, 4, generator=seeded(seed)) for seed in (0, 1)))
    potential = sinkhorn(cost, 0.1).log() + cost / 0.1
    crossed = potential - potential[:1] - potential[:, :1] + potential[:1, :1]
    torch.testing.assert_close(crossed, torch.zeros_like(crossed), rtol=0, atol=1e-9)


def test_the_cost_is_one_less_the_cosine_of_what_is_not_common():
    start, end = (torch.randn(8, 2, 3, generator=seeded(seed), dtype=torch.float64) for seed in (0, 1))
    flat = [x.flatten(1).T for x in (start, end)]
    mean = torch.cat(flat).mean(0)
    cosine = nn.functional.cosine_similarity((flat[0] - mean)[:, None], (flat[1] - mean)[None], dim=-1)
    torch.testing.assert_close(feature_cost(start, end), 1 - cosine)
    shifted, scaled = feature_cost(start + 5, end + 5), feature_cost(3 * start, 3 * end)
    torch.testing.assert_close(shifted, scaled, rtol=0, atol=1e-9)


def test_an_image_matches_itself_place_by_place():
    features = features_at(pixel_middles(SIZE))
    found = match_layouts(features, features)
    assert (found.start_to_end - pixel_middles(SIZE)).norm(dim=-1).max() < 0.02


@pytest.mark.parametrize("affine", [TURNED, turned(-0.35, 0.85, (0.0, 2.0)), turned(0.0, 1.0, (-2.5, 1.0))])
def test_an_affine_copy_is_matched_by_its_affine_map(affine):
    places = pixel_middles(SIZE)
    found = match_layouts(features_at(places), features_at(moved_by(inverse_of(affine), places)))
    truth = moved_by(affine, places)
    is_seen = ((truth > 0) & (truth < 24)).all(-1)
    off = (found.start_to_end - truth).norm(dim=-1)[is_seen]
    assert off.mean() < 0.3 and off.quantile(0.95) < 1


def test_exact_anchors_give_their_affine_map_exactly_whatever_a_third_of_them_says():
    places = 24 * torch.rand(200, 2, generator=seeded(), dtype=torch.float64)
    ends = moved_by(TURNED, places)
    fitted = robust_affine(Anchors(places, ends, torch.ones(200, dtype=torch.float64), 0.4))
    torch.testing.assert_close(fitted, TURNED, rtol=0, atol=1e-9)
    ends[:66] += 12 * torch.randn(66, 2, generator=seeded(1), dtype=torch.float64)
    robust = robust_affine(Anchors(places, ends, torch.ones(200, dtype=torch.float64), 0.4))
    assert (moved_by(robust, places) - moved_by(TURNED, places)).norm(dim=-1).max() < 0.1


def test_the_fields_are_each_other_s_inverse():
    matches = exact(TURNED, rest=swirl(0.25))
    back = moved_by_field(matches.start_to_end, matches.end_to_start)
    inside = slice(6, -6)
    torch.testing.assert_close(back[inside, inside], pixel_middles(SIZE)[inside, inside], rtol=0, atol=0.02)


def moved_by_field(field, places):
    return read_between(field.movedim(-1, 0), places).movedim(0, -1)


def test_the_way_of_an_affine_map_is_exact_at_every_alpha_and_on_every_grid():
    matches = exact(TURNED)
    for size in (SIZE, (12, 12), (48, 30)):
        scale = torch.tensor([size[1] / 24, size[0] / 24])
        places = pixel_middles(size) / scale
        for alpha, ways in zip(ALPHAS, matches.ways(ALPHAS, size), strict=True):
            start = places - alpha * ways / scale
            end = places + (1 - alpha) * ways / scale
            torch.testing.assert_close(moved_by(TURNED, start), end, rtol=0, atol=1e-7)


def test_exchanging_the_ends_inverts_the_field():
    places = pixel_middles(SIZE)
    start, end = features_at(places), features_at(moved_by(inverse_of(TURNED), places))
    there, back = match_layouts(start, end), match_layouts(end, start)
    composed = moved_by(back.affine, moved_by(there.affine, places))
    assert (composed - places).norm(dim=-1).mean() < 0.2


def test_the_least_jacobian_is_that_of_the_way_and_not_only_of_its_end():
    for angle in (0.5, 2.0, 3.0):
        found = least_jacobian(turned(angle, 1.0, (0.0, 0.0)), torch.zeros(*SIZE, 2, dtype=torch.float64))
        assert found == pytest.approx(((1 + math.cos(angle)) / 2), abs=1e-9)  # at half the way


@pytest.mark.parametrize("strength", [0.5, 3.0, 30.0])
def test_nothing_folds(strength):
    rest = unfolded_rest(TURNED, strength * torch.randn(*SIZE, 2, generator=seeded(), dtype=torch.float64))
    assert least_jacobian(TURNED, rest) >= LEAST_JACOBIAN
    for alpha in (0.25, 0.5, 1.0):
        moved = pixel_middles(SIZE) + alpha * (moved_by(TURNED, pixel_middles(SIZE)) + rest - pixel_middles(SIZE))
        across, down = moved[:-1, 1:] - moved[:-1, :-1], moved[1:, :-1] - moved[:-1, :-1]
        assert (across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]).min() > 0


@pytest.mark.parametrize(
    "affine",
    [
        torch.tensor([[-1, 0, 24], [0, 1, 0]], dtype=torch.float64),
        turned(math.pi, 1.0, (0.0, 0.0)),
    ],
)
def test_a_mirrored_or_upturned_layout_is_refused(affine):
    places = pixel_middles(SIZE)
    with pytest.raises(InvalidInput, match="mirror"):
        match_layouts(features_at(places), features_at(moved_by(inverse_of(affine), places)))


@pytest.mark.parametrize("dimensions", [4, 64, 512])
def test_images_that_have_nothing_in_common_are_refused(dimensions):
    for seed in range(3):
        start, end = (torch.randn(dimensions, *SIZE, generator=seeded(2 * seed + end)) for end in (0, 1))
        with pytest.raises(InvalidInput, match="too little in common.*without matched layouts"):
            match_layouts(start, end)


def test_images_without_any_structure_are_refused():
    with pytest.raises(InvalidInput, match="too little in common"):
        match_layouts(torch.ones(8, *SIZE), torch.ones(8, *SIZE))


def test_features_of_other_sizes_or_not_finite_are_refused():
    with pytest.raises(InvalidInput, match=r"\(8, 4, 4\) and \(8, 4, 5\)"):
        match_layouts(torch.ones(8, 4, 4), torch.ones(8, 4, 5))
    with pytest.raises(InvalidInput, match="finite"):
        match_layouts(torch.ones(8, 4, 4), torch.full((8, 4, 4), math.nan))


def noises(*shape, dtype=torch.float32):
    return tuple(torch.randn(1, *shape, generator=seeded(seed)).to(dtype) for seed in (1, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_field_of_nothing_leaves_every_bit(dtype):
    start, end = noises(4, 10, 15, dtype=dtype)
    for matches in (exact(IDENTITY), exact(TURNED, rest=swirl(0.2)).scaled(0)):
        first, second = AlignedEnds(matches).latents(start, end, ALPHAS)
        assert first.dtype == dtype
        assert torch.equal(first, start.expand_as(first)) and torch.equal(second, end.expand_as(second))


def test_the_ends_frames_have_their_own_noise_to_the_bit():
    start, end = noises(4, 24, 24)
    first, second = AlignedEnds(exact(TURNED, rest=swirl(0.2))).latents(start, end, ALPHAS)
    assert torch.equal(first[:1], start)
    torch.testing.assert_close(second[-1:], end, rtol=0, atol=1e-5)


def test_a_shift_by_whole_cells_moves_noise_as_it_is():
    start, end = noises(4, 24, 24)
    first, second = AlignedEnds(exact(turned(0, 1, (4.0, -2.0)))).latents(start, end, ALPHAS)
    half, whole = ALPHAS.index(0.5), ALPHAS.index(1.0)
    torch.testing.assert_close(first[half, :, :-1, 2:], start[0, :, 1:, :-2], rtol=0, atol=1e-5)
    torch.testing.assert_close(second[half, :, 1:, :-2], end[0, :, :-1, 2:], rtol=0, atol=1e-5)
    torch.testing.assert_close(first[whole, :, :-2, 4:], start[0, :, 2:, :-4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("affine", [TURNED, turned(0.0, 1.0, (0.5, 0.5)), turned(-0.25, 0.8, (3.3, 1.2))])
def test_white_noise_keeps_its_variance(affine):
    """To the per cent that the split into base and detail leaves, not to bilinear reading's half or quarter."""
    start, end = noises(256, 24, 24)
    for rows in AlignedEnds(exact(affine)).latents(start, end, (0.0, 0.3, 0.5, 0.8)):
        inner = rows[..., 4:-4, 4:-4]
        assert (inner.var((1, 2, 3)) - 1).abs().max() < 0.04


def test_the_variance_is_right_at_each_cell_and_not_on_average_only():
    start, end = noises(4096, 24, 24)
    rows, _ = AlignedEnds(exact(TURNED)).latents(start, end, (0.7,))
    assert (rows[0, :, 5:-5, 5:-5].var(0) - 1).abs().max() < 0.12


def test_latents_with_more_axes_move_as_their_pictures_do():
    start, end = noises(3, 2, 24, 24)
    flat = [x.flatten(1, 2) for x in (start, end)]
    ends = AlignedEnds(exact(TURNED))
    for moved, plain in zip(ends.latents(start, end, ALPHAS), ends.latents(*flat, ALPHAS), strict=True):
        assert torch.equal(moved.flatten(1, 2), plain)


def test_contexts_are_read_where_the_frame_sees_them():
    """Contexts that are their own places show where a frame reads, on a coarser grid than the matches'."""
    places = pixel_middles((12, 12)).reshape(1, 1, 144, 2)
    first, second = AlignedEnds(exact(TURNED)).tokens(places, places, ALPHAS, (24, 24))
    assert first.shape == (1, 4, 144, 2)
    ways = exact(TURNED).ways(ALPHAS, (12, 12)).flatten(1, 2)
    for frame, alpha in enumerate(ALPHAS):
        for read, shift in ((first, -alpha), (second, 1 - alpha)):
            wanted = places[0, 0] + shift * ways[frame]
            inside = ((wanted > 0.5) & (wanted < 11.5)).all(-1)
            torch.testing.assert_close(read[0, frame][inside], wanted[inside], rtol=0, atol=1e-6)


def test_heads_and_repeats_keep_apart():
    start, end = (torch.randn(2, 1, 3, 36, 5, generator=seeded(seed)) for seed in (1, 2))
    ends = AlignedEnds(exact(turned(0.2, 1.1, (0.4, 0.0), (3.0, 3.0)), size=(6, 6)))
    whole = ends.tokens(start, end, ALPHAS, (6, 6))
    for repeat in range(2):
        for head in range(3):
            own = ends.tokens(*(x[repeat : repeat + 1, :, head] for x in (start, end)), ALPHAS, (6, 6))
            for found, wanted in zip(whole, own, strict=True):
                torch.testing.assert_close(found[repeat, :, head], wanted[0], rtol=0, atol=0)


def test_frames_mix_what_was_led_to_their_layout():
    context = torch.randn(8, 144, 5, generator=seeded())  # two repeats of four frames
    ends = AlignedEnds(exact(TURNED))
    mixed = mix_end_contexts(context, ALPHAS, aligned=ends.contexts_of((24, 24)))
    repeats = context.unflatten(0, (2, 4))
    first, second = ends.tokens(repeats[:, :1], repeats[:, -1:], ALPHAS, (24, 24))
    for frame, alpha in enumerate(ALPHAS):
        wanted = torch.lerp(first[:, frame], second[:, frame], alpha)
        torch.testing.assert_close(mixed.unflatten(0, (2, 4))[:, frame], wanted)
    assert torch.equal(mixed[0], context[0]) and torch.equal(mixed[4], context[4])


def test_matches_of_nothing_mix_as_none_do():
    context = torch.randn(4, 144, 5, generator=seeded())
    nothing = AlignedEnds(exact(IDENTITY)).contexts_of((24, 24))
    assert torch.equal(mix_end_contexts(context, ALPHAS, aligned=nothing), mix_end_contexts(context, ALPHAS))


def test_half_the_strength_leads_half_the_way():
    matches = exact(TURNED, rest=swirl(0.2))
    whole, half = (one.start_to_end - pixel_middles(SIZE) for one in (matches, matches.scaled(0.5)))
    torch.testing.assert_close(half, whole / 2)
    assert torch.equal(matches.scaled(1).rest, matches.rest)
    with pytest.raises(InvalidInput, match="strength"):
        matches.scaled(1.5)


def test_reading_between_cells_is_linear_and_stays_in_the_picture():
    values = torch.arange(12.0).reshape(1, 3, 4)
    places = torch.tensor([[0.5, 0.5], [2.0, 1.0], [9.0, 9.0], [-3.0, 1.5]])
    torch.testing.assert_close(read_between(values, places)[0], torch.tensor([0.0, 3.5, 11.0, 4.0]))
    torch.testing.assert_close(Bilinear.at(places, (3, 4)).variance(), torch.tensor([1, 0.25, 1, 1.0]).double())
