import pytest
import torch
from torch import nn

from morph_pack.morph_core.attention.end_frames import (
    BLOCKS,
    block_is_chosen,
    layer_is_chosen,
    mix_end_contexts,
    mixed_self_attention,
)
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.models.unet import attention_layers
from morph_pack.morph_core.sampling.schedule import sigma_after

ALPHAS = (0.0, 0.3, 0.6, 1.0)
CHOSEN = {  # blocks of a UNet with three up blocks, all with attention
    "up blocks": ("up_blocks.0", "up_blocks.1", "up_blocks.2"),
    "last two up blocks": ("up_blocks.1", "up_blocks.2"),
    "all blocks": ("down_blocks", "mid_block", "up_blocks"),
}


def rows(count, *shape, seed=1):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def latents(count, seed=1):
    return rows(count, 4, 8, 8, seed=seed)


def text(count):
    return rows(count, 5, 16, seed=2)


def test_mixing_the_context_mixes_keys_and_values():
    context = rows(4, 6, 8)
    for projection in (nn.Linear(8, 8, bias=False), nn.Linear(8, 5)):
        projected = projection(context)
        mixed = projection(mix_end_contexts(context, ALPHAS))
        for i, alpha in enumerate(ALPHAS):
            expected = (1 - alpha) * projected[0] + alpha * projected[-1]
            torch.testing.assert_close(mixed[i], expected, rtol=0, atol=1e-5)


def test_the_ends_keep_their_own_context_exactly():
    context = rows(4, 6, 8)
    mixed = mix_end_contexts(context, ALPHAS)
    assert torch.equal(mixed[0], context[0]) and torch.equal(mixed[-1], context[-1])


def test_what_the_frames_between_look_like_does_not_matter():
    context = rows(4, 6, 8)
    other = context.clone()
    other[1:3] = 7
    assert torch.equal(mix_end_contexts(context, ALPHAS), mix_end_contexts(other, ALPHAS))


def test_strength_leaves_replaces_or_goes_half_way():
    context = rows(4, 6, 8)
    whole = mix_end_contexts(context, ALPHAS)
    assert torch.equal(mix_end_contexts(context, ALPHAS, 0.0), context)
    torch.testing.assert_close(mix_end_contexts(context, ALPHAS, 0.5), (context + whole) / 2)
    assert (context - whole).abs().max() > 0.1


def test_runs_of_the_frames_are_mixed_each_for_itself():
    first, second = rows(4, 6, 8), rows(4, 6, 8, seed=5)
    together = mix_end_contexts(torch.cat([first, second]), ALPHAS)
    assert torch.equal(together, torch.cat([mix_end_contexts(x, ALPHAS) for x in (first, second)]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtype_and_shape_stay(dtype):
    context = rows(8, 6, 8).to(dtype)
    mixed = mix_end_contexts(context, ALPHAS)
    assert (mixed.dtype, mixed.shape) == (dtype, context.shape)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_batch_of_another_size_is_refused(count):
    with pytest.raises(InvalidInput, match=f"4 frames.* batch of {count} rows"):
        mix_end_contexts(rows(count, 6, 8), ALPHAS)


@pytest.mark.parametrize("steps", [1, 4, 10, 50])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
def test_the_threshold_parts_the_first_share_of_the_steps_from_the_rest(steps, share):
    sigmas = torch.linspace(10, 0, steps + 1)
    mixed = [bool(sigma > sigma_after(sigmas, share)) for sigma in sigmas[:-1]]
    count = round(share * steps)
    assert mixed == [True] * count + [False] * (steps - count)


def test_shares_that_differ_from_the_published_codes_on_a_grid_of_twentieths():
    sigmas, steps = torch.arange(50.0, -1, -1), range(50)
    differing = []
    for i in range(21):
        share = i / 20
        published = sum(step < 50 * share for step in steps)
        ours = int((sigmas[:-1] > sigma_after(sigmas, share)).sum())
        assert published - ours in (0, 1)
        if published != ours:
            differing.append(share)
    assert differing == [0.05, 0.25, 0.45, 0.65, 0.85]


def test_the_published_share_is_30_of_50_steps():
    assert sigma_after(torch.arange(50.0, -1, -1), 0.6) == 20  # sigmas 50 .. 21 are above


@pytest.mark.parametrize(
    ("blocks", "chosen"),
    [
        ("up blocks", {"up 0", "up 1", "up 2", "up 3"}),
        ("last two up blocks", {"up 2", "up 3"}),
        ("all blocks", {"down 0", "mid 0", "up 0", "up 1", "up 2", "up 3"}),
    ],
)
def test_blocks_of_stable_diffusion(blocks, chosen):
    places = [("down", 0), ("mid", 0), ("up", 0), ("up", 1), ("up", 2), ("up", 3)]
    assert {f"{stage} {i}" for stage, i in places if block_is_chosen(blocks, stage, i, 4)} == chosen


@pytest.mark.parametrize(
    ("blocks", "count", "chosen"),
    [
        ("up blocks", 8, [4, 5, 6, 7]),
        ("last two up blocks", 8, [6, 7]),
        ("all blocks", 3, [0, 1, 2]),
        ("up blocks", 57, [0, 7, 8, 9, 10, 18, 25, 28, 37, 42, 45, 50, 56]),  # FreeFlux's list for Flux.1
        ("last two up blocks", 57, [*range(43, 57)]),
    ],
)
def test_layers_of_transformers(blocks, count, chosen):
    assert [layer for layer in range(count) if layer_is_chosen(blocks, layer, count)] == chosen


def watched(unet):
    """Every attention layer's path with what its queries and its keys were last made from."""
    seen = {}

    def watch(path, projection):
        def look(module, args):
            seen.setdefault(path, {})[projection] = args[0]

        return look

    for path, module in unet.named_modules():
        if path.endswith((".attn1", ".attn2")):
            for projection in ("to_q", "to_k", "to_v"):
                getattr(module, projection).register_forward_pre_hook(watch(path, projection))
    return seen


@pytest.mark.parametrize("blocks", BLOCKS)
def test_only_self_attention_of_the_chosen_blocks_is_mixed(unet, blocks):
    seen = watched(unet)
    context = text(4)
    with mixed_self_attention(attention_layers(unet), ALPHAS, blocks=blocks):
        unet(latents(4), 500, context)
    alpha = torch.tensor(ALPHAS)[:, None, None]
    mixed = set()
    for path, inputs in seen.items():
        queries = inputs["to_q"]
        assert torch.equal(inputs["to_k"], inputs["to_v"])
        if path.endswith("attn2"):
            assert torch.equal(inputs["to_k"], context)
        elif not torch.equal(inputs["to_k"], queries):
            mixed.add(path)
            expected = (1 - alpha) * queries[:1] + alpha * queries[-1:]
            torch.testing.assert_close(inputs["to_k"], expected, rtol=0, atol=1e-5)
    assert mixed == {path for path in seen if path.endswith("attn1") and path.startswith(CHOSEN[blocks])}
    assert len(seen) == 2 * (3 + 1 + 6)


def test_up_blocks_and_full_strength_are_the_defaults(unet):
    x, context = latents(4), text(4)
    with mixed_self_attention(attention_layers(unet), ALPHAS):
        default = unet(x, 500, context).sample
    with mixed_self_attention(attention_layers(unet), ALPHAS, 1.0, "up blocks"):
        assert torch.equal(unet(x, 500, context).sample, default)


def test_it_is_what_an_attention_processor_that_mixes_keys_and_values_gives(unet):
    from diffusers.models.attention_processor import AttnProcessor

    class MixKeysAndValues(AttnProcessor):
        """Equation 7 of DiffMorpher, on keys and values themselves."""

        def __call__(self, attn, hidden_states, *args, **kwargs):
            queries, keys, values = (
                attn.head_to_batch_dim(layer(hidden_states), out_dim=4)  # (B, heads, T, D)
                for layer in (attn.to_q, attn.to_k, attn.to_v)
            )
            alpha = torch.tensor(ALPHAS)[:, None, None, None]
            keys, values = ((1 - alpha) * x[:1] + alpha * x[-1:] for x in (keys, values))
            scores = (queries @ keys.transpose(-1, -2) * attn.scale).softmax(-1)
            return attn.to_out[0]((scores @ values).transpose(1, 2).flatten(2))

    x, context = latents(4), text(4)
    plain = unet(x, 500, context).sample
    with mixed_self_attention(attention_layers(unet), ALPHAS):
        mixed = unet(x, 500, context).sample
    unet.set_attn_processor(
        {
            name: MixKeysAndValues() if name.startswith("up") and ".attn1." in name else processor
            for name, processor in unet.attn_processors.items()
        }
    )
    torch.testing.assert_close(unet(x, 500, context).sample, mixed, rtol=0, atol=1e-5)
    assert (mixed - plain).abs().amax((1, 2, 3))[1:3].min() > 1e-2


def test_the_end_frames_do_not_notice(unet):
    x, context = latents(4), text(4)
    with mixed_self_attention(attention_layers(unet), ALPHAS, blocks="all blocks"):
        mixed = unet(x, 500, context).sample
    for row in (0, -1):
        torch.testing.assert_close(mixed[row], unet(x, 500, context).sample[row], rtol=0, atol=1e-5)


def test_strength_0_changes_nothing(unet):
    x, context = latents(4), text(4)
    with mixed_self_attention(attention_layers(unet), ALPHAS, strength=0.0):
        mixed = unet(x, 500, context).sample
    torch.testing.assert_close(mixed, unet(x, 500, context).sample, rtol=0, atol=1e-6)


def test_nothing_is_left_behind(unet):
    x, context = latents(4), text(4)
    plain = unet(x, 500, context).sample
    processors = unet.attn_processors
    with mixed_self_attention(attention_layers(unet), ALPHAS):
        unet(x, 500, context)
    with pytest.raises(KeyboardInterrupt), mixed_self_attention(attention_layers(unet), ALPHAS):
        raise KeyboardInterrupt
    with pytest.raises(InvalidInput, match="batch of 3"), mixed_self_attention(attention_layers(unet), ALPHAS):
        unet(x[:3], 500, context[:3])
    assert not any(module._forward_pre_hooks for module in unet.modules())
    assert unet.attn_processors == processors
    assert torch.equal(unet(x, 500, context).sample, plain)


def test_unknown_blocks_are_refused_and_the_known_ones_are_named(unet):
    refusal = "up blocks, last two up blocks, all blocks; got 'sideways'"
    with (
        pytest.raises(InvalidInput, match=refusal),
        mixed_self_attention(attention_layers(unet), ALPHAS, blocks="sideways"),
    ):
        pass


def test_ends_that_are_not_among_the_rows():
    """What a batch of frames gets in parts is what it gets whole."""
    context = rows(8, 6, 8)  # two runs of four frames
    whole = mix_end_contexts(context, ALPHAS, 0.7).unflatten(0, (2, 4))
    runs = context.unflatten(0, (2, 4))
    ends = runs[:, [0, -1]].flatten(0, 1)
    for frames in ([0, 3], [1], [2], [1, 2]):
        part = mix_end_contexts(runs[:, frames].flatten(0, 1), [ALPHAS[i] for i in frames], 0.7, ends)
        assert torch.equal(part, whole[:, frames].flatten(0, 1))
