"""A morph of a part of the picture: a soft mask on latents, tokens, statistics; what is outside stays, to the bit."""

import pytest
import torch

from morph_pack.morph_core.attention.end_frames import Ends, mix_end_contexts, mix_end_tokens, mixed_self_attention
from morph_pack.morph_core.attention.token_grid import TokenMask
from morph_pack.morph_core.crop import mask_seen_by_vae, soft_cells
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.models.unet import attention_layers
from morph_pack.morph_core.morphing.adain import adain
from morph_pack.morph_core.morphing.slerp import slerp

ALPHAS = (0.0, 0.3, 0.6, 1.0)
DTYPES = [torch.float16, torch.float32, torch.float64]


def normal(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def ramp(height=8, width=8):
    """0 on the left, 1 on the right, soft between."""
    return torch.linspace(-0.5, 1.5, width).clamp(0, 1).expand(1, 1, height, width).contiguous()


class TestCells:
    def test_a_cell_is_the_mean_of_its_pixels(self):
        mask = torch.rand(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))
        cells = soft_cells(mask, (4, 6))
        assert cells.shape == (1, 1, 4, 6)
        for row in range(4):
            for column in range(6):
                pixels = mask[0, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                assert cells[0, 0, row, column].item() == pytest.approx(pixels.mean().item(), abs=1e-6)

    def test_white_is_1_and_black_0_exactly(self):
        for value in (0.0, 1.0):
            assert torch.equal(soft_cells(torch.full((1, 1, 24, 40), value), (3, 5)), torch.full((1, 1, 3, 5), value))

    @pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
    def test_values_outside_0_to_1_are_refused(self, value):
        with pytest.raises(InvalidInput, match=r"mask must have values from 0 to 1, got .*; clamp it first"):
            soft_cells(torch.full((1, 1, 8, 8), value), (2, 2))

    def test_it_is_the_middle_of_the_picture_that_the_vae_has_seen(self):
        mask = torch.arange(50.0).expand(1, 32, 50)
        assert torch.equal(mask_seen_by_vae(mask, (12, 8), "latent")[0, 0, 0], torch.arange(1.0, 49))
        assert torch.equal(mask_seen_by_vae(torch.zeros(32, 50), (12, 8), "latent"), torch.zeros(1, 1, 32, 48))

    @pytest.mark.parametrize(
        ("shape", "complaint"),
        [
            ((64, 64), "mask is 64x64, which is no size of an image that start of 12x8 cells is of; connect"),
            ((2, 32, 48), r"mask must be one mask \(H, W\), got shape \(2, 32, 48\)"),
            ((1, 1, 32, 48), r"mask must be one mask \(H, W\), got shape \(1, 1, 32, 48\)"),
        ],
    )
    def test_other_masks_are_refused(self, shape, complaint):
        with pytest.raises(InvalidInput, match=complaint):
            mask_seen_by_vae(torch.ones(shape), (12, 8), "start")


class TestSlerp:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 7, 5), (1, 4, 3, 8, 8)])
    def test_of_ones_it_is_the_global_one_and_of_zeros_the_start(self, dtype, shape):
        start, end = normal(*shape, dtype=dtype), normal(*shape, seed=2, dtype=dtype)
        ones, zeros = torch.ones(1, 1, *shape[-2:]), torch.zeros(1, 1, *shape[-2:])
        assert torch.equal(slerp(start, end, ALPHAS, ones), slerp(start, end, ALPHAS))
        assert torch.equal(slerp(start, end, ALPHAS, zeros), start.expand(4, *shape[1:]))

    def test_a_cell_is_where_the_global_morph_is_at_its_share_of_alpha(self):
        start, end, mask = normal(1, 4, 8, 8).double(), normal(1, 4, 8, 8, seed=2).double(), ramp()
        frames = slerp(start, end, ALPHAS, mask)
        for column in range(8):
            share = mask[0, 0, 0, column].item()
            expected = slerp(start, end, tuple(alpha * share for alpha in ALPHAS))
            torch.testing.assert_close(frames[..., column], expected[..., column], rtol=0, atol=1e-7)

    def test_every_frame_of_a_video_has_the_mask(self):
        start, end = normal(1, 4, 3, 8, 8), normal(1, 4, 3, 8, 8, seed=2)
        frames, plain = slerp(start, end, ALPHAS, (ramp() > 0.5).float()), slerp(start, end, ALPHAS)
        assert torch.equal(frames[..., :4], start.expand_as(frames)[..., :4])
        assert torch.equal(frames[..., 4:], plain[..., 4:])

    def test_nearly_parallel_latents_too(self):
        start = normal(1, 4, 8, 8)
        end = start + 1e-3 * normal(1, 4, 8, 8, seed=2)
        assert torch.equal(slerp(start, end, ALPHAS, torch.ones(1, 1, 8, 8)), slerp(start, end, ALPHAS))
        assert torch.equal(slerp(start, end, ALPHAS, torch.zeros(1, 1, 8, 8)), start.expand(4, -1, -1, -1))

    @pytest.mark.parametrize("shape", [(1, 1, 4, 8), (8, 8), (2, 1, 8, 8), (1, 4, 8, 8)])
    def test_other_shapes_are_refused_and_shown(self, shape):
        with pytest.raises(InvalidInput, match=r"mask must be of shape \(1, 1, 8, 8\), one number a latent cell, got"):
            slerp(normal(1, 4, 8, 8), normal(1, 4, 8, 8, seed=2), ALPHAS, torch.ones(shape))


class TestTokens:
    def test_a_token_is_the_mean_of_its_cells(self):
        cells = torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))
        mask = TokenMask(cells)
        assert torch.equal(mask.of(96)[:, 0], cells.flatten())
        quarters = cells[0, 0].unflatten(0, (4, 2)).unflatten(2, (6, 2)).mean((1, 3))
        torch.testing.assert_close(mask.of(24)[:, 0], quarters.flatten())
        torch.testing.assert_close(mask.of(6).mean(), cells.mean())

    def test_an_odd_sides_last_token_is_the_mean_of_what_is_there(self):
        cells = torch.zeros(1, 1, 5, 5)
        cells[..., 4, 4] = 1
        assert TokenMask(cells).of(9)[:, 0].tolist() == [0] * 8 + [1]

    def test_nothing_stays_it_with_frames_and_padding_and_all_is_no_mask(self):
        assert torch.equal(TokenMask(torch.zeros(1, 1, 7, 5)).of(12, frames=3, padding=4), torch.zeros(40, 1))
        assert TokenMask(torch.ones(1, 1, 7, 5)).of(12, frames=3, padding=4) is None

    def test_a_size_is_made_once(self):
        mask = TokenMask(ramp())
        assert mask.of(16) is mask.of(16) and mask.of(16) is not mask.of(64)

    def test_tokens_that_are_no_halving_are_refused(self):
        with pytest.raises(InvalidInput, match="a layer has 30 tokens"):
            TokenMask(ramp()).of(30)


class TestAttention:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(8, 64, 32), (4, 15, 5), (8, 2, 64, 16)])
    @pytest.mark.parametrize("strength", [0.4, 1.0])
    def test_of_ones_it_is_the_global_one(self, dtype, shape, strength):
        context, ones = normal(*shape, dtype=dtype), torch.ones(shape[-2], 1)
        plain = mix_end_contexts(context, ALPHAS, strength)
        assert torch.equal(mix_end_contexts(context, ALPHAS, strength, mask=ones), plain)

    def test_of_zeros_every_frame_looks_at_the_first(self):
        context = normal(8, 64, 32)
        mixed = mix_end_contexts(context, ALPHAS, mask=torch.zeros(64, 1)).unflatten(0, (2, 4))
        assert torch.equal(mixed, context.unflatten(0, (2, 4))[:, :1].expand_as(mixed))

    def test_a_token_is_mixed_by_its_share_of_alpha(self):
        context, mask = normal(4, 64, 32).double(), TokenMask(ramp()).of(64).double()
        mixed = mix_end_contexts(context, ALPHAS, mask=mask)
        for row, alpha in enumerate(ALPHAS):
            expected = (1 - alpha * mask) * context[0] + alpha * mask * context[-1]
            torch.testing.assert_close(mixed[row], expected)

    def test_in_parts_it_is_the_same(self):
        context, mask = normal(8, 64, 32), TokenMask(ramp()).of(64)
        whole = mix_end_contexts(context, ALPHAS, 0.7, mask=mask).unflatten(0, (2, 4))
        runs = context.unflatten(0, (2, 4))
        ends = runs[:, [0, -1]].flatten(0, 1)
        for frames in ([0, 3], [1], [1, 2]):
            part = mix_end_contexts(runs[:, frames].flatten(0, 1), [ALPHAS[i] for i in frames], 0.7, ends, mask)
            assert torch.equal(part, whole[:, frames].flatten(0, 1))

    def test_of_a_transformer_only_the_image_has_it(self):
        tokens, mask = normal(4, 2, 70, 16), TokenMask(ramp()).of(64)
        mixed = mix_end_tokens(tokens, 64, ALPHAS, mask=mask)
        assert torch.equal(mixed[..., :6, :], tokens[..., :6, :])
        assert torch.equal(mixed[..., 6:, :], mix_end_contexts(tokens[..., 6:, :], ALPHAS, mask=mask))

    def test_in_a_unet_of_several_sizes(self, unet):
        x, text = normal(4, 4, 8, 8), normal(4, 5, 16, seed=2)

        def made(**settings):
            with torch.no_grad(), mixed_self_attention(attention_layers(unet), ALPHAS, blocks="all blocks", **settings):
                return unet(x, 500, text).sample

        plain, soft = made(), made(mask=TokenMask(ramp()))
        assert torch.equal(made(mask=TokenMask(torch.ones(1, 1, 8, 8))), plain)
        assert torch.equal(made(mask=TokenMask(ramp()), ends=Ends(0, 1, {0: 0, 1: 3}, {})), soft)
        assert (soft - plain).abs().amax((1, 2, 3))[1:].min() > 1e-3

    @pytest.mark.parametrize("heads_last", [True, False])
    def test_of_a_transformers_layers_whatever_the_order_of_heads_and_tokens(self, heads_last, monkeypatch):
        """diffusers' Flux has (B, T, heads, D) where its SD 3 has (B, heads, T, D); both must know the tokens."""
        from types import SimpleNamespace

        from morph_pack.morph_core.attention import end_frames
        from morph_pack.morph_core.models.layers import AttentionLayer

        edits = []

        class Nothing:
            def __enter__(self):
                pass

            def __exit__(self, *_):
                pass

        def keep(layers, edit_of):
            edits.extend(map(edit_of, layers))
            return Nothing()

        monkeypatch.setattr(end_frames, "edited_attention", keep)
        layer = AttentionLayer("a", SimpleNamespace(heads=2), "joint", "all", 0, 1)
        keys = normal(4, 2, 64, 16)  # (B, heads, T, D)
        expected = mix_end_contexts(keys, ALPHAS, mask=TokenMask(ramp()).of(64))
        with mixed_self_attention([layer], ALPHAS, blocks="all blocks", mask=TokenMask(ramp())):
            given = keys.transpose(1, 2) if heads_last else keys
            mixed = edits[0].image(given, "keys")
        assert torch.equal(mixed.transpose(1, 2) if heads_last else mixed, expected)


class TestAdaIN:
    START, END = 0.5 * normal(1, 4, 8, 8) + 1, 2 * normal(1, 4, 8, 8, seed=2) - 0.5
    FRAMES = 3 * normal(4, 4, 8, 8, seed=3) + 7

    def test_of_ones_it_is_the_global_one_and_of_zeros_nothing(self):
        given = (self.FRAMES, self.START, self.END, ALPHAS, 0.7)
        assert torch.equal(adain(*given, torch.ones(1, 1, 8, 8)), adain(*given))
        assert torch.equal(adain(*given, torch.zeros(1, 1, 8, 8)), self.FRAMES)

    def test_inside_a_hard_mask_it_is_that_part_alone_and_outside_nothing_changes(self):
        mask = (ramp() > 0.5).float()
        result = adain(self.FRAMES, self.START, self.END, ALPHAS, mask=mask)
        assert torch.equal(result[..., :4], self.FRAMES[..., :4])
        inside, ends = result[..., 4:], [end[..., 4:] for end in (self.START, self.END)]
        for row, alpha in enumerate(ALPHAS):
            for moment in (lambda x: x.mean((-2, -1)), lambda x: x.std((-2, -1), correction=0)):
                wanted = torch.lerp(moment(ends[0]), moment(ends[1]), alpha)[0]
                torch.testing.assert_close(moment(inside)[row], wanted, rtol=1e-4, atol=1e-4)

    def test_what_is_outside_does_not_matter(self):
        mask, other = (ramp() > 0.5).float(), self.FRAMES.clone()
        other[..., :4] = 100
        results = [adain(x, self.START, self.END, ALPHAS, mask=mask) for x in (self.FRAMES, other)]
        assert torch.equal(results[0][..., 4:], results[1][..., 4:])

    def test_an_end_keeps_its_own(self):
        for frame, alpha in ((self.START, 0.0), (self.END, 1.0)):
            result = adain(frame, self.START, self.END, (alpha,), mask=ramp())
            torch.testing.assert_close(result, frame, rtol=0, atol=1e-4)

    def test_of_a_video(self):
        frames, start, end = normal(4, 4, 3, 8, 8), normal(1, 4, 3, 8, 8, seed=2), 2 * normal(1, 4, 3, 8, 8, seed=3)
        result = adain(frames, start, end, ALPHAS, mask=(ramp() > 0.5).float())
        assert torch.equal(result[..., :4], frames[..., :4])
        torch.testing.assert_close(result[3, ..., 4:].mean((1, 2, 3)), end[0, ..., 4:].mean((1, 2, 3)))
