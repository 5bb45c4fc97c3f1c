import pytest
import torch
from torch import nn

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.blend import BLENDS, blended_loras
from morph_pack.morph_core.lora.low_rank import LowRank, check_shapes, low_rank, read_lora

ALPHAS = (0.0, 0.2, 0.7, 1.0)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv_in", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "proj_in", "conv_out")


def latents(rows, seed=1):
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def context(rows, seed=2):
    return torch.randn(rows, 5, 16, generator=torch.Generator().manual_seed(seed))


def hooks(unet):
    return [hook for module in unet.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def assert_rows_are_merged_unets(unet, merged, start, end, alphas=ALPHAS, rtol=0.0):
    """Row i with both LoRAs blended is what a UNet with (1 − αᵢ)·ΔW₀ + αᵢ·ΔW₁ in its weights makes of it."""
    x, text = latents(len(alphas)), context(len(alphas))
    with blended_loras(read_lora(start, unet), read_lora(end, unet), alphas):
        rows = unet(x, 500, text).sample
    for i, alpha in enumerate(alphas):
        alone = merged(unet, (start, 1 - alpha), (end, alpha))(x[i : i + 1], 500, text[i : i + 1]).sample
        torch.testing.assert_close(rows[i : i + 1], alone, rtol=rtol, atol=1e-5)
    assert (rows - unet(x, 500, text).sample).abs().amax((1, 2, 3)).min() > 0.02  # the LoRAs do something


def test_every_row_is_the_unet_with_its_share_of_both_merged(unet, merged, random_lora):
    assert_rows_are_merged_unets(unet, merged, random_lora(unet, 1), random_lora(unet, 2))


def test_ranks_may_differ(unet, merged, random_lora):
    assert_rows_are_merged_unets(unet, merged, random_lora(unet, 1, rank=2), random_lora(unet, 2, rank=7))


def test_alpha_over_rank_scales_the_update(unet, merged, random_lora):
    start, end = random_lora(unet, 1, alpha=2.0), random_lora(unet, 2, rank=3, alpha=4.5)
    assert_rows_are_merged_unets(unet, merged, start, end)


def test_convolutions_too(unet, merged, random_lora):
    start, end = (random_lora(unet, seed, endings=CONVOLUTIONS) for seed in (1, 2))
    assert_rows_are_merged_unets(unet, merged, start, end, rtol=1e-4)


def test_feed_forward_layers_too(unet, merged, random_lora):
    start, end = (random_lora(unet, seed, endings=("ff.net.0.proj", "ff.net.2")) for seed in (1, 2))
    assert_rows_are_merged_unets(unet, merged, start, end)


@pytest.mark.parametrize("rows", [1, 4])
def test_time_embedding_layers_too(unet, merged, random_lora, rows):
    start, end = (random_lora(unet, seed, endings=("time_emb_proj", "linear_1")) for seed in (1, 2))
    assert_rows_are_merged_unets(unet, merged, start, end, alphas=ALPHAS[-rows:])


def test_layers_may_be_in_one_lora_only(unet, merged, random_lora):
    start, end = random_lora(unet, 1, endings=("to_q", "to_k")), random_lora(unet, 2, endings=("to_k", "to_v"))
    assert_rows_are_merged_unets(unet, merged, start, end)


def test_one_lora_alone_fades(unet, merged, random_lora):
    lora, x, text = random_lora(unet, 1), latents(3), context(3)
    plain = unet(x, 500, text).sample
    with blended_loras(read_lora(lora, unet), {}, (0.0, 0.5, 1.0)):
        fading = unet(x, 500, text).sample
    with blended_loras({}, read_lora(lora, unet), (0.0, 0.5, 1.0)):
        growing = unet(x, 500, text).sample
    whole, half = merged(unet, (lora, 1))(x, 500, text).sample, merged(unet, (lora, 0.5))(x, 500, text).sample
    for row, expected in ((0, whole), (1, half), (2, plain)):
        torch.testing.assert_close(fading[row], expected[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(growing[2 - row], expected[2 - row], rtol=0, atol=1e-5)


def test_one_lora_with_itself_is_that_lora_at_every_alpha(unet, merged, random_lora):
    lora, x, text = random_lora(unet, 1), latents(4), context(4)
    with blended_loras(read_lora(lora, unet), read_lora(lora, unet), ALPHAS):
        rows = unet(x, 500, text).sample
    torch.testing.assert_close(rows, merged(unet, (lora, 1))(x, 500, text).sample, rtol=0, atol=1e-5)


def test_the_product_is_blended_not_its_factors():
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.zero_()
    start, end = (LowRank(torch.tensor([[value]]), torch.tensor([[value]]), 1.0) for value in (1.0, 3.0))
    with blended_loras({layer: start}, {layer: end}, (0.5,)):
        assert layer(torch.ones(1, 1, 1)).item() == 5  # (1·1 + 3·3)/2; blended factors would give 2·2


@pytest.mark.parametrize("endings", [ATTENTION, CONVOLUTIONS])
def test_every_row_of_blended_factors_is_the_unet_with_their_product_merged(unet, merged, random_lora, endings):
    start, end = (random_lora(unet, seed, endings=endings) for seed in (1, 2))
    x, text = latents(len(ALPHAS)), context(len(ALPHAS))
    with blended_loras(read_lora(start, unet), read_lora(end, unet), ALPHAS, "factors"):
        rows = unet(x, 500, text).sample
    for i, alpha in enumerate(ALPHAS):
        factors = {key: torch.lerp(start[key], end[key], alpha) for key in start}
        alone = merged(unet, (factors, 1))(x[i : i + 1], 500, text[i : i + 1]).sample
        torch.testing.assert_close(rows[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_the_blends_agree_at_the_ends_and_nowhere_between(unet, random_lora):
    loras = [read_lora(random_lora(unet, seed), unet) for seed in (1, 2)]
    x, text = latents(len(ALPHAS)), context(len(ALPHAS))
    rows = []
    for blend in BLENDS:
        with blended_loras(*loras, ALPHAS, blend):
            rows.append(unet(x, 500, text).sample)
    difference = (rows[0] - rows[1]).abs().amax((1, 2, 3))
    assert difference[[0, -1]].max() < 1e-5 and difference[1:-1].min() > 1e-2


def test_blended_factors_of_one_number_by_hand():
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.zero_()
    start, end = (LowRank(torch.tensor([[down]]), torch.tensor([[up]]), 2.0) for down, up in ((1.0, 5.0), (3.0, 7.0)))
    with blended_loras({layer: start}, {layer: end}, (0.0, 0.25, 1.0), "factors"):
        rows = layer(torch.ones(3, 1, 1)).flatten().tolist()
    assert rows == pytest.approx([2 * 5, 2 * 5.5 * 1.5, 2 * 21])  # B·A, with B and A a quarter of the way, and B·A


def test_factors_of_different_ranks_are_refused(unet, random_lora):
    start, end = (read_lora(random_lora(unet, rank, rank=rank), unet) for rank in (2, 7))
    with pytest.raises(InvalidInput, match="ranks 2 and 7"), blended_loras(start, end, ALPHAS, "factors"):
        pass
    assert hooks(unet) == []


def test_an_unknown_blend_is_refused(unet):
    with pytest.raises(InvalidInput, match="one of delta, factors; got 'sum'"), blended_loras({}, {}, ALPHAS, "sum"):
        pass


@pytest.mark.parametrize("runs", [2, 3])
def test_several_runs_of_the_frames_in_one_batch(unet, random_lora, runs):
    start, end = (read_lora(random_lora(unet, seed), unet) for seed in (1, 2))
    x, text = latents(runs * 4), context(runs * 4)
    with blended_loras(start, end, ALPHAS):
        together = unet(x, 500, text).sample
        for run in range(runs):
            rows = slice(4 * run, 4 * run + 4)
            torch.testing.assert_close(together[rows], unet(x[rows], 500, text[rows]).sample, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 6])
def test_a_batch_of_another_size_is_refused(unet, random_lora, rows):
    start = read_lora(random_lora(unet, 1), unet)
    with blended_loras(start, {}, ALPHAS), pytest.raises(InvalidInput, match=f"4 frames.* batch of {rows} rows"):
        unet(latents(rows), 500, context(rows))


@pytest.mark.parametrize("tiles", [1, 2, 6])
@pytest.mark.parametrize("runs", [1, 2])
def test_a_layer_may_see_its_rows_in_tiles(tiles, runs):
    """As HyperTile cuts them: all tiles of a row, then those of the next."""
    layer, x = nn.Linear(6, 5), torch.randn(runs * 4, 12, 6, generator=torch.Generator().manual_seed(0))
    start, end = (low_rank(torch.randn(2, 6), torch.randn(5, 2), None) for _ in range(2))
    with blended_loras({layer: start}, {layer: end}, ALPHAS, rows=len(x)):
        whole, tiled = layer(x), layer(x.reshape(len(x) * tiles, -1, 6))
    torch.testing.assert_close(tiled.reshape(whole.shape), whole, rtol=0, atol=1e-6)
    assert (whole[0] - layer(x)[0]).abs().max() > 0.1


def test_rows_whose_frames_are_not_known_are_refused():
    layer = nn.Linear(6, 5)
    update = low_rank(torch.ones(2, 6), torch.ones(5, 2), None)
    with blended_loras({layer: update}, {}, ALPHAS, rows=8):
        for seen in (4, 12):
            with pytest.raises(InvalidInput, match=f"a layer sees {seen} rows of a batch of 8.*leave out the patch"):
                layer(torch.ones(seen, 6))
    with (
        blended_loras({layer: update}, {}, ALPHAS, rows=6),
        pytest.raises(InvalidInput, match="4 frames, .* a batch of 6"),
    ):
        layer(torch.ones(12, 6))


def test_nothing_is_left_behind(unet, random_lora):
    start, end = (read_lora(random_lora(unet, seed), unet) for seed in (1, 2))
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    x, text = latents(4), context(4)
    plain = unet(x, 500, text).sample
    with blended_loras(start, end, ALPHAS):
        assert len(hooks(unet)) == len(start)
        unet(x, 500, text)
    assert hooks(unet) == []
    assert torch.equal(unet(x, 500, text).sample, plain)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_nothing_is_left_behind_after_an_exception(unet, random_lora):
    start = read_lora(random_lora(unet, 1), unet)
    with pytest.raises(KeyboardInterrupt), blended_loras(start, {}, ALPHAS):
        raise KeyboardInterrupt
    assert hooks(unet) == []


def test_nothing_is_left_behind_when_the_last_layer_does_not_fit(unet, random_lora):
    layers = read_lora(random_lora(unet, 1), unet)
    layers[unet.conv_out] = LowRank(torch.ones(2, 5, 3, 3), torch.ones(4, 2, 1, 1), 1.0)
    with pytest.raises(InvalidInput, match="does not fit"), blended_loras(layers, {}, ALPHAS):
        pass
    assert hooks(unet) == []


def test_a_half_precision_unet_takes_single_precision_loras(unet, merged, random_lora):
    start, end = random_lora(unet, 1), random_lora(unet, 2)
    expected = merged(unet, (start, 0.5), (end, 0.5))(latents(1), 500, context(1)).sample
    half = unet.to(torch.bfloat16)
    with blended_loras(read_lora(start, half), read_lora(end, half), (0.5,)):
        result = half(latents(1).bfloat16(), 500, context(1).bfloat16()).sample
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_lora_of_8_bits_next_to_any_other(unet, merged, random_lora, dtype):
    start, end = random_lora(unet, 1), random_lora(unet, 2)
    small = {key: value.to(dtype) for key, value in start.items()}
    rounded = {key: value.float() for key, value in small.items()}
    for first, second in ((small, end), (end, small), (small, small)):
        read = (read_lora(first, unet), read_lora(second, unet))
        with blended_loras(*read, (0.3,)):
            result = unet(latents(1), 500, context(1)).sample
        shares = [(rounded if lora is small else lora, share) for lora, share in ((first, 0.7), (second, 0.3))]
        expected = merged(unet, *shares)(latents(1), 500, context(1)).sample
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_gradients_pass_through_to_the_input(unet, random_lora):
    start, end = (read_lora(random_lora(unet, seed), unet) for seed in (1, 2))
    x = latents(4).requires_grad_()
    with blended_loras(start, end, ALPHAS):
        unet(x, 500, context(4)).sample.sum().backward()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0


def test_reading_finds_the_layers_by_kohyas_names(unet):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    weights = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(2.0)}
    layer = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_out[0]
    read = read_lora(weights, unet)
    assert list(read) == [layer]
    assert read[layer].down is down and read[layer].up is up
    assert (read[layer].scale, read[layer].rank) == (0.5, 4)
    del weights[f"{name}.alpha"]
    assert read_lora(weights, unet)[layer].scale == 1  # without an alpha it is the rank


def test_a_linears_factors_may_be_stored_as_1x1_convolutions(unet, merged, random_lora):
    flat = random_lora(unet, 1)
    stored = {key: value[..., None, None] if value.ndim == 2 else value for key, value in flat.items()}
    x, text = latents(1), context(1)
    with blended_loras(read_lora(stored, unet), {}, (0.0,)):
        result = unet(x, 500, text).sample
    torch.testing.assert_close(result, merged(unet, (flat, 1))(x, 500, text).sample, rtol=0, atol=1e-5)


def test_an_empty_lora_is_refused(unet):
    with pytest.raises(InvalidInput, match="empty"):
        read_lora({}, unet)


def test_layers_of_another_model_are_refused_and_counted(unet, random_lora):
    weights = random_lora(unet, 1, endings=("mid_block.attentions.0.transformer_blocks.0.attn1.to_q",))
    weights["lora_unet_down_blocks_9_to_q.lora_down.weight"] = torch.ones(4, 32)
    weights["lora_unet_down_blocks_9_to_q.lora_up.weight"] = torch.ones(32, 4)
    with pytest.raises(InvalidInput, match=r"1 of 2 layers .*'lora_unet_down_blocks_9_to_q'"):
        read_lora(weights, unet)


@pytest.mark.parametrize("missing", ["lora_down", "lora_up"])
def test_half_a_layer_is_refused(unet, random_lora, missing):
    weights = random_lora(unet, 1)
    del weights[next(key for key in weights if missing in key)]
    with pytest.raises(InvalidInput, match="lora_unet_"):
        read_lora(weights, unet)


def test_a_layer_of_rank_0_is_refused():
    with pytest.raises(InvalidInput, match="rank 0"):
        low_rank(torch.ones(0, 6), torch.ones(5, 0), torch.tensor(1.0))


def test_an_alpha_of_several_values_is_refused():
    with pytest.raises(InvalidInput, match="alpha has 3 values"):
        low_rank(torch.ones(2, 6), torch.ones(5, 2), torch.ones(3))


@pytest.mark.parametrize("extra", ["lora_mid.weight", "dora_scale"])
def test_what_is_more_than_a_plain_lora_is_refused(unet, random_lora, extra):
    weights = random_lora(unet, 1)
    weights[next(iter(weights)).split(".")[0] + "." + extra] = torch.ones(4)
    with pytest.raises(InvalidInput):
        read_lora(weights, unet)


@pytest.mark.parametrize(
    ("layer", "down", "up"),
    [
        (nn.Linear(6, 5), (2, 6), (5, 2)),
        (nn.Linear(6, 5), (2, 6, 1, 1), (5, 2, 1, 1)),
        (nn.Conv2d(6, 5, 3), (2, 6, 3, 3), (5, 2, 1, 1)),
        (nn.Conv2d(6, 5, 1), (2, 6, 1, 1), (5, 2, 1, 1)),
    ],
)
def test_fitting_shapes_are_let_through(layer, down, up):
    check_shapes(layer, LowRank(torch.ones(down), torch.ones(up), 1.0))
    x = torch.ones(1, 4, 6) if isinstance(layer, nn.Linear) else torch.ones(1, 6, 4, 4)
    plain = layer(x)
    with blended_loras({layer: LowRank(torch.ones(down), torch.ones(up), 0.5)}, {}, (0.0,)):
        changed = layer(x)
    fan_in = layer.weight[0].numel()
    torch.testing.assert_close(changed, plain + 0.5 * 2 * fan_in)  # r times the sum of the inputs


@pytest.mark.parametrize(
    ("layer", "down", "up"),
    [
        (nn.Linear(6, 5), (2, 7), (5, 2)),
        (nn.Linear(6, 5), (2, 6), (4, 2)),
        (nn.Linear(6, 5), (2, 6), (5, 3)),
        (nn.Conv2d(6, 5, 3), (2, 6, 1, 1), (5, 2, 1, 1)),
        (nn.Conv2d(6, 5, 3), (2, 7, 3, 3), (5, 2, 1, 1)),
        (nn.Conv2d(6, 5, 3), (2, 6, 3, 3), (5, 1, 1, 1)),
        (nn.Conv2d(6, 5, 3), (2, 6, 3, 3), (5, 2)),
        (nn.Linear(6, 5), (2, 6), (5, 2, 3, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused_and_shown(layer, down, up):
    with pytest.raises(InvalidInput) as refusal:
        check_shapes(layer, LowRank(torch.ones(down), torch.ones(up), 1.0))
    for shape in (down, up, tuple(layer.weight.shape)):
        assert str(shape) in str(refusal.value)
