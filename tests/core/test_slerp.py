import math

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.slerp import slerp

ALPHAS = (0.0, 0.1, 0.35, 0.5, 0.8, 1.0)


def latent(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype).reshape(1, 1, 1, -1)


def noise(seed, dtype=torch.float32):
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cosine(a, b):
    return ((a * b).sum() / (a.norm() * b.norm())).item()


def test_published_outputs(published):
    alphas = tuple(published["slerp.alphas"].tolist())
    result = slerp(published["slerp.a"], published["slerp.b"], alphas)
    torch.testing.assert_close(result, published["slerp.plain"], rtol=0, atol=1e-5)


def test_a_quarter_circle_by_hand():
    thirds = slerp(latent(1.0, 0.0), latent(0.0, 1.0), (0.0, 1 / 3, 0.5, 2 / 3, 1.0))
    expected = [(math.cos(math.radians(d)), math.sin(math.radians(d))) for d in (0, 30, 45, 60, 90)]
    torch.testing.assert_close(thirds.reshape(5, 2), torch.tensor(expected, dtype=torch.float64))


def test_different_lengths_by_hand():
    middle = slerp(latent(1.0, 0.0), latent(0.0, 3.0), (0.5,))
    torch.testing.assert_close(middle, latent(0.5**0.5, 3 * 0.5**0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_ends_are_exact(dtype):
    a, b = noise(1, dtype), noise(2, dtype)
    frames = slerp(a, b, (0.0, 1.0))
    assert frames.dtype == dtype
    assert torch.equal(frames[:1], a)
    assert torch.equal(frames[1:], b)


def test_ends_of_one_length_make_frames_of_that_length():
    a, b = noise(1).double(), noise(2).double()
    b *= a.norm() / b.norm()
    for frame in slerp(a, b, ALPHAS):
        assert frame.norm().item() == pytest.approx(a.norm().item(), rel=1e-12)


def test_the_angle_grows_evenly():
    a, b = noise(1).double(), noise(2).double()
    b *= a.norm() / b.norm()
    whole = math.acos(cosine(a, b))
    for alpha, frame in zip(ALPHAS[1:], slerp(a, b, ALPHAS[1:]), strict=True):
        assert math.acos(cosine(a, frame)) == pytest.approx(alpha * whole, abs=1e-9)


def test_exchanging_the_ends_reverses_the_path():
    a, b = noise(1), noise(2)
    there, back = slerp(a, b, ALPHAS), slerp(b, a, tuple(1 - alpha for alpha in ALPHAS))
    torch.testing.assert_close(there, back, rtol=0, atol=1e-6)


def test_scaling_both_ends_scales_the_path():
    a, b = noise(1).double(), noise(2).double()
    torch.testing.assert_close(slerp(5 * a, 5 * b, ALPHAS), 5 * slerp(a, b, ALPHAS))


def test_the_angle_is_that_of_the_whole_latent_not_of_rows_or_channels():
    a, b = noise(1).double(), noise(2).double()
    shuffle = torch.randperm(a.numel(), generator=torch.Generator().manual_seed(3))

    def shuffled(x):
        return x.flatten(1)[:, shuffle].reshape(x.shape)

    torch.testing.assert_close(slerp(shuffled(a), shuffled(b), (0.3,)), shuffled(slerp(a, b, (0.3,))))


def at_angle(angle):
    return latent(1.0, 0.0), latent(math.cos(angle), math.sin(angle))


def test_nearly_parallel_latents_are_interpolated_linearly():
    a, b = at_angle(math.acos(0.9997))
    line = torch.cat([(1 - alpha) * a + alpha * b for alpha in ALPHAS])
    torch.testing.assert_close(slerp(a, b, ALPHAS), line, rtol=0, atol=1e-15)


def test_latents_a_little_less_parallel_stay_on_the_arc():
    a, b = at_angle(math.acos(0.9993))
    assert slerp(a, b, (0.5,)).norm().item() == pytest.approx(1, abs=1e-12)
    assert ((a + b) / 2).norm() < 1 - 1e-4  # where a line would lead


def test_arc_and_line_meet_where_they_change_places():
    on_arc, on_line = (slerp(*at_angle(math.acos(c)), ALPHAS) for c in (0.99949999, 0.99950001))
    torch.testing.assert_close(on_arc, on_line, rtol=0, atol=2e-4)


def test_equal_latents_stay_that_latent():
    a = noise(1)
    torch.testing.assert_close(slerp(a, a.clone(), ALPHAS), a.expand(len(ALPHAS), -1, -1, -1), rtol=0, atol=1e-6)


def test_ends_that_differ_from_frame_to_frame_make_each_frame_of_its_own_two():
    starts, ends = (torch.cat([noise(first + frame) for frame in range(len(ALPHAS))]) for first in (1, 20))
    each = [slerp(starts[i : i + 1], ends[i : i + 1], (alpha,)) for i, alpha in enumerate(ALPHAS)]
    assert torch.equal(slerp(starts, ends, ALPHAS), torch.cat(each))
    same = starts[:1].expand(len(ALPHAS), -1, -1, -1)
    torch.testing.assert_close(slerp(same, ends, ALPHAS), slerp(starts[:1], ends, ALPHAS), rtol=0, atol=0)


def test_one_row_without_an_arc_is_refused_as_all_would_be():
    starts = torch.cat([noise(1), noise(2)])
    with pytest.raises(InvalidInput, match="opposite"):
        slerp(starts, torch.cat([noise(3), -noise(2)]), (0.2, 0.5))


def test_half_precision_is_computed_in_double():
    a, b = noise(1, torch.float16), noise(2, torch.float16)
    assert torch.equal(slerp(a, b, ALPHAS), slerp(a.double(), b.double(), ALPHAS).half())
    big = 200 * a  # the squared length does not fit half precision
    torch.testing.assert_close(slerp(big, 200 * b, (0.5,)), 200 * slerp(a, b, (0.5,)), rtol=2e-3, atol=0.5)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (latent(1.0, 2.0), latent(-1.0, -2.0), "opposite"),
        (latent(1.0, 0.0), latent(-3.0, 0.01), "opposite"),
        (latent(0.0, 0.0), latent(1.0, 2.0), "zero"),
        (latent(1.0, 2.0), latent(0.0, 0.0), "zero"),
        (latent(math.nan, 1.0), latent(1.0, 2.0), "finite"),
        (latent(1.0, 2.0), latent(math.inf, 1.0), "finite"),
    ],
)
def test_latents_without_a_shortest_arc_are_refused(a, b, reason):
    with pytest.raises(InvalidInput, match=reason):
        slerp(a, b, (0.5,))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.ones(1, 4, 8, 8), torch.ones(1, 4, 8, 4)),
        (torch.ones(2, 4, 8, 8), torch.ones(2, 4, 8, 8)),
        (torch.ones(1, 4, 8, 8), torch.ones(2, 4, 8, 8)),
    ],
)
def test_other_shapes_are_refused_and_shown(a, b):
    with pytest.raises(InvalidInput, match=rf"\({a.shape[0]}, 4, 8, 8\)"):
        slerp(a, b, (0.5,))


def test_latents_with_another_number_of_axes_are_refused_or_right():
    a, b = (torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    alphas = (0.0, 0.3, 0.6, 1.0)  # as many as there are channels
    try:
        frames = slerp(a, b, alphas)
    except InvalidInput:
        return
    flat = slerp(a.reshape(1, 4, 16, 8), b.reshape(1, 4, 16, 8), alphas)
    torch.testing.assert_close(frames, flat.reshape(4, 4, 2, 8, 8))
