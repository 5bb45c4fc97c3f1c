"""Prompt-to-Prompt in a UNet's attention layers, and in sampling."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.attention.prompt_to_prompt import (
    Edit,
    PromptToPrompt,
    from_source,
    prompt_to_prompt,
)
from morph_pack.morph_core.attention.token_alignment import (
    word_control,
)
from morph_pack.morph_core.errors import InvalidInput, UnsupportedModel
from morph_pack.morph_core.models.unet import attention_layers
from morph_pack.morph_core.sampling.ddim import sample
from morph_pack.morph_core.sampling.schedule import alphas_cumprod, ddim_sigmas, sigmas_of
from morph_tests.core.word_maps import SIGMAS, SIZE, TOKENS, identity, keep_own, randoms
from morph_tests.networks import denoiser_of

# On a UNet


def latents(count, seed=1):
    return randoms(count, 4, *SIZE, seed=seed).double()


def text(count):
    return 3 * randoms(count, TOKENS, 16, seed=2).double()  # far enough from 0 for maps that are not flat


@pytest.fixture
def unet(make_unet):
    """As the shared one, with maps that are far from flat, and in double precision for what they amplify."""
    unet = make_unet().double()
    for name, weight in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            weight.mul_(4)
    return unet


def called(unet, run, x, context, sigma=SIGMAS[0], **kwargs):
    with prompt_to_prompt(attention_layers(unet), run, sigma):
        return unet(x, 500, context, **kwargs).sample


def controls(**settings):
    return PromptToPrompt(Edit(**{"control": identity(), **settings}), SIGMAS, SIZE)


def recorded(unet, layer):
    """Every layer of a name with what its projections and itself last returned, and the handles that record it."""
    seen, stack = {}, ExitStack()
    for path, module in unet.named_modules():
        if path.endswith(layer):
            seen[path] = {"heads": module.heads}
            parts = {"q": module.to_q, "k": module.to_k, "v": module.to_v, "out": module.to_out[0], "all": module}
            for name, part in parts.items():

                def keep(_, args, output, path=path, name=name):
                    seen[path][name] = output

                stack.callback(part.register_forward_hook(keep).remove)
    return seen, stack


def attention_maps(queries, keys, heads):
    """(F, heads, N, T) by the formula, from projections (F, N, D) and (F, T, D)."""
    queries, keys = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys))
    return (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1)


def attended(attention, values, projection):
    """What a layer returns for maps (F, heads, N, T) and values (F, T, D)."""
    values = values.unflatten(-1, (attention.shape[1], -1)).transpose(1, 2)
    return projection((attention @ values).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("masked", [False, True])
def test_maps_that_are_only_looked_at_change_nothing(unet, masked):
    """The maps spelled out are those of diffusers' own attention, with a mask of the text's tokens and without."""
    x, context = latents(3), text(3)
    kwargs = {"encoder_attention_mask": torch.tensor([[1.0, 1, 1, 0, 0]] * 3)} if masked else {}
    run = controls(control=keep_own(), cross_steps=1.0, self_steps=0.0)
    plain = unet(x, 500, context, **kwargs).sample
    torch.testing.assert_close(called(unet, run, x, context, **kwargs), plain, rtol=0, atol=1e-6)
    if masked:
        assert (unet(x, 500, context).sample - plain).abs().max() > 1e-3


def test_after_the_shares_of_the_steps_nothing_changes(unet):
    x, context = latents(2), text(2)
    run = controls(cross_steps=0.5, self_steps=0.5)
    plain = unet(x, 500, context).sample
    assert torch.equal(called(unet, run, x, context, SIGMAS[5]), plain)
    assert (called(unet, run, x, context, SIGMAS[4]) - plain)[1].abs().max() > 1e-2


def test_the_source_does_not_notice(unet):
    x, context = latents(3), text(3)
    control = word_control([1, 2, 3, 4, 5], [1, 6, 7, 4, 5], "replace", torch.tensor([1.0, 2, 1, 1, 0]))
    run = controls(control=control, cross_steps=1.0, self_steps=1.0)
    plain = unet(x, 500, context).sample
    edited = called(unet, run, x, context)
    torch.testing.assert_close(edited[0], plain[0], rtol=0, atol=1e-6)
    assert (edited - plain).abs().amax((1, 2, 3))[1:].min() > 1e-2


def test_cross_attention_is_that_of_the_maps_computed_by_hand(unet):
    control = word_control([1, 2, 3, 4, 5], [1, 6, 3, 7, 4], "refine", torch.tensor([1.0, 2, 1, -1, 0.5]))
    run = controls(control=control, self_steps=0.0)
    seen, recording = recorded(unet, "attn2")
    with recording:
        called(unet, run, latents(3), text(3))
    assert len(seen) == 10
    for path, layer in seen.items():
        source, *edited = attention_maps(layer["q"], layer["k"], layer["heads"])
        expected = [source]
        for row in edited:  # token by token: 1 and 3 are the source's, 6 and 7 new, 4 moves from place 3 to place 4
            moved = [source[..., 0], 2 * row[..., 1], source[..., 2], -row[..., 3], 0.5 * source[..., 3]]
            expected.append(torch.stack(moved, -1))
        by_hand = attended(torch.stack(expected), layer["v"], unet.get_submodule(path).to_out[0])
        torch.testing.assert_close(layer["all"], by_hand, rtol=0, atol=1e-5)


def test_cross_attention_to_the_same_prompt_tells_all_rows_what_it_tells_the_source(unet):
    x, context = latents(2), text(1).expand(2, -1, -1)
    run = controls(cross_steps=1.0, self_steps=0.0)
    seen, recording = recorded(unet, "attn2")
    with recording:
        called(unet, run, x, context)
        controlled = {path: layer["all"] for path, layer in seen.items()}
        unet(x, 500, context)
    for path, layer in seen.items():
        torch.testing.assert_close(controlled[path][1], controlled[path][0], rtol=0, atol=1e-6)
        assert (layer["all"][1] - layer["all"][0]).abs().max() > 1e-2


def test_self_attention_has_the_source_s_maps_and_its_own_values_but_in_the_finest_layers(unet):
    run = controls(cross_steps=0.0, self_steps=1.0)
    seen, recording = recorded(unet, "attn1")
    inputs = {}
    handles = [
        unet.get_submodule(path).to_v.register_forward_hook(
            lambda _, args, output, path=path: inputs.update({path: args[0]})
        )
        for path in seen
    ]
    with recording:
        called(unet, run, latents(3), text(3))
    for handle in handles:
        handle.remove()
    counts = {True: 0, False: 0}
    for path, layer in seen.items():
        module = unet.get_submodule(path)
        attention = attention_maps(module.to_q(inputs[path]), module.to_k(inputs[path]), layer["heads"])
        coarse = attention.shape[-1] <= 16
        counts[coarse] += 1
        own, shared = (
            attended(attention[rows], module.to_v(inputs[path]), module.to_out[0]) for rows in ([0, 1, 2], [0, 0, 0])
        )
        torch.testing.assert_close(layer["all"], shared if coarse else own, rtol=0, atol=1e-5)
        assert (own - shared)[1:].abs().max() > 1e-2
    assert counts == {True: 7, False: 3}


def test_a_row_asks_as_the_source_does():
    rows = randoms(3, 6, 8)
    assert torch.equal(from_source(rows), torch.stack([rows[0]] * 3))


@pytest.mark.parametrize(("factor", "matters"), [(0.0, False), (1.0, True)])
def test_a_factor_of_0_silences_a_token(unet, factor, matters):
    """What the token's values are no longer matters to the edited row."""
    x, context, token = latents(2), text(2), 3
    scale = torch.ones(TOKENS)
    scale[token] = factor
    run = controls(control=word_control(range(TOKENS), range(TOKENS), "replace", scale), cross_steps=1.0)
    before = called(unet, run, x, context)

    def disturb(module, args, output):
        output = output.clone()
        output[1, token] += 5
        return output

    with ExitStack() as stack:
        for path, module in unet.named_modules():
            if path.endswith("attn2.to_v"):
                stack.callback(module.register_forward_hook(disturb).remove)
        after = called(unet, run, x, context)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-6)
    assert ((after - before)[1].abs().max() > 1e-3) == matters


def test_prompts_of_another_length_than_the_control_s_are_refused(unet):
    with pytest.raises(InvalidInput, match="prompts of 4 and 4 tokens, the attention maps have 5 and 5"):
        called(unet, controls(control=identity(4)), latents(2), text(2))


def test_latents_of_another_size_are_refused(unet):
    run = PromptToPrompt(Edit(identity(), source_blend=[1]), SIGMAS, (10, 10))
    with pytest.raises(InvalidInput, match="16 positions, which latents of 10x10 have at no resolution"):
        called(unet, run, latents(2), text(2))


def test_fused_projections_are_refused(unet):
    unet.fuse_qkv_projections()
    with pytest.raises(UnsupportedModel, match="unfuse_qkv_projections"):
        called(unet, controls(), latents(2), text(2))


def test_nothing_is_left_behind(unet):
    from diffusers.models.attention_processor import AttnProcessor

    next(module for path, module in unet.named_modules() if path.endswith("attn2")).set_processor(AttnProcessor())
    before = unet.attn_processors
    x, context = latents(2), text(2)
    plain = unet(x, 500, context).sample
    called(unet, controls(), x, context)
    with pytest.raises(KeyboardInterrupt), prompt_to_prompt(attention_layers(unet), controls(), SIGMAS[0]):
        assert sum(unet.attn_processors[path] is not processor for path, processor in before.items()) == 10
        raise KeyboardInterrupt
    with pytest.raises(InvalidInput):
        called(unet, controls(control=identity(4)), x, context)
    assert all(unet.attn_processors[path] is processor for path, processor in before.items())
    assert not any(module._forward_pre_hooks for module in unet.modules())
    assert torch.equal(unet(x, 500, context).sample, plain)


# Sampling


def sampled(unet, run, x, context, sigmas):
    denoise = denoiser_of(unet, context, sigmas_of(alphas_cumprod()))

    def controlled(x, sigma):
        with prompt_to_prompt(attention_layers(unet), run, sigma):
            return denoise(x, sigma)

    return sample(controlled, x, sigmas, corrections=[run.blend])


def test_a_sampled_edit_leaves_the_source_and_what_is_outside_the_mask_alone(unet):
    sigmas = ddim_sigmas(sigmas_of(alphas_cumprod()), 5)
    x, context = latents(1).expand(2, -1, -1, -1) * sigmas[0], text(2)
    source = sample(denoiser_of(unet, context[:1], sigmas_of(alphas_cumprod())), x[:1], sigmas)
    edit = Edit(word_control([1, 2, 3, 4, 5], [1, 6, 3, 4, 5], "replace"))
    run = PromptToPrompt(replace(edit, source_blend=[1], edited_blend=[1], blend_threshold=0.9), sigmas, SIZE)
    result = sampled(unet, run, x, context, sigmas)
    torch.testing.assert_close(result[:1], source, rtol=0, atol=1e-5)
    same = (result[1] == result[0]).all(0)
    assert 0 < same.sum() < same.numel()
    unmarked = sampled(unet, PromptToPrompt(edit, sigmas, SIZE), x, context, sigmas)
    assert not (unmarked[1] == unmarked[0]).all(0).any()


def test_the_source_s_own_prompt_gives_the_source(unet):
    sigmas = ddim_sigmas(sigmas_of(alphas_cumprod()), 3)
    x, context = latents(1).expand(2, -1, -1, -1) * sigmas[0], text(1).expand(2, -1, -1)
    run = PromptToPrompt(Edit(identity(), 1.0, 1.0), sigmas, SIZE)
    result = sampled(unet, run, x, context, sigmas)
    torch.testing.assert_close(result[1], result[0], rtol=0, atol=1e-5)
