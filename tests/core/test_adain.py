import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.morphing.adain import adain, channel_stats
from morph_pack.morph_core.morphing.slerp import slerp

ALPHAS = (0.0, 0.25, 1.0)


def latents(rows, seed, scale=1.0, shift=0.0):
    """Every channel with a scale and a mean of its own."""
    x = torch.randn(rows, 4, 16, 16, generator=torch.Generator().manual_seed(seed))
    channels = torch.arange(1.0, 5.0)[:, None, None]
    return x * scale * channels + shift * channels


START, END = latents(1, 1, scale=0.5, shift=1.0), latents(1, 2, scale=2.0, shift=-0.5)


def moments(x):
    return x.mean((2, 3)), x.std((2, 3), correction=0)


def test_published_outputs(published):
    alphas = tuple(published["slerp.alphas"].tolist())
    a, b = published["slerp.a"], published["slerp.b"]
    result = adain(slerp(a, b, alphas), a, b, alphas)
    torch.testing.assert_close(result, published["slerp.with_adain"], rtol=0, atol=1e-5)


def test_channel_statistics_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 5.0], [5.0, 5.0]]]])
    mean, deviation = channel_stats(x)
    assert mean.shape == deviation.shape == (1, 2, 1, 1)
    torch.testing.assert_close(mean.flatten(), torch.tensor([2.5, 5.0]))
    torch.testing.assert_close(deviation.flatten(), torch.tensor([(5 / 3 + 1e-5) ** 0.5, 1e-5**0.5]))


def test_frames_get_the_statistics_their_alpha_asks_for():
    result = adain(latents(3, 3, scale=3.0, shift=7.0), START, END, ALPHAS)
    (mean_0, std_0), (mean_1, std_1) = moments(START), moments(END)
    for i, alpha in enumerate(ALPHAS):
        mean, deviation = moments(result[i : i + 1])
        torch.testing.assert_close(mean, (1 - alpha) * mean_0 + alpha * mean_1, rtol=0, atol=1e-4)
        # the wanted deviation divides by n − 1, the one given by n: 1/512 apart for 256 cells
        torch.testing.assert_close(deviation, (1 - alpha) * std_0 + alpha * std_1, rtol=3e-3, atol=0)


def test_only_statistics_change_the_pattern_stays():
    frames = latents(3, 3)
    result = adain(frames, START, END, ALPHAS)

    def pattern(x):
        return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)

    torch.testing.assert_close(pattern(result), pattern(frames), rtol=0, atol=1e-4)


def test_the_frames_own_statistics_do_not_matter():
    frames = latents(3, 3)
    torch.testing.assert_close(
        adain(3 * frames + 5, START, END, ALPHAS), adain(frames, START, END, ALPHAS), rtol=0, atol=1e-3
    )


def test_a_frame_is_linear_in_its_alpha():
    frame = latents(1, 3)
    first, middle, last = (adain(frame, START, END, (alpha,)) for alpha in (0.0, 0.3, 1.0))
    torch.testing.assert_close(middle, 0.7 * first + 0.3 * last, rtol=0, atol=1e-5)


def test_frames_and_channels_do_not_mix():
    frames = latents(3, 3)
    changed = frames.clone()
    changed[1, 2] = latents(1, 9)[0, 0]
    same = adain(frames, START, END, ALPHAS) == adain(changed, START, END, ALPHAS)
    untouched = torch.ones(3, 4, dtype=torch.bool)
    untouched[1, 2] = False
    assert torch.equal(same.all(3).all(2), untouched)


def test_strength_0_leaves_the_frames_and_a_half_goes_half_way():
    frames = latents(3, 3)
    whole = adain(frames, START, END, ALPHAS)
    assert torch.equal(adain(frames, START, END, ALPHAS, strength=0.0), frames)
    half = adain(frames, START, END, ALPHAS, strength=0.5)
    torch.testing.assert_close(half, (frames + whole) / 2, rtol=0, atol=1e-5)


def test_a_channel_without_contrast_becomes_the_wanted_mean():
    result = adain(torch.full((1, 4, 16, 16), 3.0), START, END, (0.0,))
    torch.testing.assert_close(result, START.mean((2, 3), keepdim=True).expand_as(result), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_frames_dtype_is_kept_and_the_arithmetic_is_in_single_precision(dtype):
    frames, start, end = latents(3, 3).to(dtype), START.to(dtype), END.to(dtype)
    result = adain(frames, start, end, ALPHAS)
    assert result.dtype == dtype
    assert torch.equal(result, adain(frames.float(), start.float(), end.float(), ALPHAS).to(dtype))


def test_a_wrong_number_of_frames_is_refused():
    with pytest.raises(InvalidInput, match="3 alphas need as many frames, got 2"):
        adain(latents(2, 3), START, END, ALPHAS)


def test_latents_of_a_single_cell_are_refused():
    cell = torch.ones(1, 4, 1, 1)
    with pytest.raises(InvalidInput, match="one cell"):
        adain(cell, cell, cell, (0.5,))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (torch.ones(1, 4, 16, 8), torch.ones(1, 4, 16, 8)),
        (torch.ones(1, 3, 16, 16), torch.ones(1, 3, 16, 16)),
        (torch.ones(1, 4, 16, 16), torch.ones(1, 4, 8, 16)),
        (torch.ones(3, 4, 16, 16), torch.ones(3, 4, 16, 16)),
    ],
)
def test_other_shapes_are_refused_and_shown(start, end):
    with pytest.raises(InvalidInput, match=r"\(3, 4, 16, 16\)"):
        adain(latents(3, 3), start, end, ALPHAS)
