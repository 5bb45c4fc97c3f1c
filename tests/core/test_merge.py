"""One LoRA in the weights for the length of a run: what it computes, and that nothing is left of it."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.blend import blended_loras
from morph_pack.morph_core.lora.low_rank import LowRank, low_rank, read_lora
from morph_pack.morph_core.lora.merge import whole_lora

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv_in", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "proj_in", "conv_out")
LAYERS = pytest.mark.parametrize("endings", [ATTENTION, CONVOLUTIONS], ids=["attention", "convolutions"])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(rows=3):
    """Of the UNet: latents, a timestep and a context."""
    return normal(rows, 4, 8, 8, seed=1), 500, normal(rows, 5, 16, seed=2)


def hooks(network):
    return [hook for module in network.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def weights(network):
    """Every parameter itself and its values."""
    return {name: (parameter, parameter.detach().clone()) for name, parameter in network.named_parameters()}


def assert_untouched(network, before):
    now = dict(network.named_parameters())
    assert now.keys() == before.keys()
    for name, (parameter, values) in before.items():
        assert now[name] is parameter and torch.equal(parameter, values), name
    assert hooks(network) == []


@LAYERS
@pytest.mark.parametrize("alpha", [None, 2.5])
def test_it_is_the_network_with_the_lora_merged(unet, merged, random_lora, endings, alpha):
    lora = random_lora(unet, 1, endings=endings, alpha=alpha)
    plain = unet(*inputs()).sample
    with whole_lora(read_lora(lora, unet)):
        assert hooks(unet) == []
        rows = unet(*inputs()).sample
    torch.testing.assert_close(rows, merged(unet, (lora, 1))(*inputs()).sample, rtol=0, atol=1e-6)
    assert (rows - plain).abs().amax((1, 2, 3)).min() > 0.01


@LAYERS
def test_it_is_the_start_of_a_blend(unet, random_lora, endings):
    layers = read_lora(random_lora(unet, 1, endings=endings), unet)
    with whole_lora(layers):
        rows = unet(*inputs()).sample
    with blended_loras(layers, {}, (0.0,)):
        expected = unet(*inputs()).sample
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)


@LAYERS
def test_gradients_of_the_input_are_those_of_the_network_beside_which_it_is_computed(unet, random_lora, endings):
    layers, gradients = read_lora(random_lora(unet, 1, endings=endings), unet), []
    x, timestep, context = inputs()
    for applied in (whole_lora(layers), blended_loras(layers, {}, (0.0,))):
        wanted = x.clone().requires_grad_()
        with applied:
            unet(wanted, timestep, context).sample.square().mean().backward()
        gradients.append(wanted.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5 * float(gradients[1].abs().max()))
    assert gradients[1].abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_very_same_weights_are_there_afterwards(unet, random_lora, trained, error):
    unet.requires_grad_(trained)
    layers, before = read_lora(random_lora(unet, 1), unet), weights(unet)
    try:
        with whole_lora(layers):
            for layer in layers:
                assert not any(layer.weight is parameter for parameter, _ in before.values())
            unet(*inputs())
            if error:
                raise error
    except KeyboardInterrupt:
        assert error
    assert_untouched(unet, before)
    assert all(parameter.requires_grad == trained for parameter in unet.parameters())


def test_the_very_same_weights_are_there_when_the_last_layer_does_not_fit(unet, random_lora):
    layers, before = read_lora(random_lora(unet, 1), unet), weights(unet)
    layers[unet.conv_out] = LowRank(torch.ones(2, 5, 3, 3), torch.ones(4, 2, 1, 1), 1.0)
    with pytest.raises(InvalidInput, match="does not fit"), whole_lora(layers):
        pass
    assert_untouched(unet, before)


@torch.no_grad()
def test_half_precision_weights_are_left_alone_and_the_update_is_computed_beside_them(unet, merged, random_lora):
    lora = random_lora(unet, 1)
    expected = merged(unet, (lora, 1))(*inputs()).sample
    half = unet.to(torch.bfloat16)
    layers, before = read_lora(lora, half), weights(half)
    x, timestep, context = inputs()
    arguments = x.bfloat16(), timestep, context.bfloat16()
    plain = half(*arguments).sample
    with whole_lora(layers):
        assert all(dict(half.named_parameters())[name] is parameter for name, (parameter, _) in before.items())
        assert len(hooks(half)) == len(layers)
        rows = half(*arguments).sample
    with blended_loras(layers, {}, (0.0,)):
        assert torch.equal(rows, half(*arguments).sample)
    assert_untouched(half, before)
    torch.testing.assert_close(rows.float(), expected, rtol=0, atol=0.05)
    assert (rows - plain).abs().max() > 0.1


@torch.no_grad()
def test_an_update_below_half_precisions_last_digit_is_not_lost():
    layer = nn.Linear(1, 1, bias=False).bfloat16()
    layer.weight.fill_(1.0)
    small = LowRank(torch.ones(1, 1), torch.full((1, 1), 2.0**-10), 1.0)  # 1 + 2⁻¹⁰ is 1 in bfloat16
    x = torch.tensor([[1.0]]).bfloat16()
    handle = layer.register_forward_hook(lambda module, args, output: output - args[0])
    try:
        with whole_lora({layer: small}):
            assert float(layer(x)) == 2.0**-10
    finally:
        handle.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_and_double_precision_are_merged_in_their_own(dtype):
    layer, update = nn.Linear(6, 5).to(dtype), low_rank(normal(2, 6), normal(5, 2, seed=1), 3.0)
    expected = layer.weight + update.scale * update.up.to(dtype) @ update.down.to(dtype)
    with whole_lora({layer: update}):
        assert layer.weight.dtype == dtype and not layer.weight.requires_grad
        torch.testing.assert_close(layer.weight.data, expected, rtol=0, atol=1e-14 if dtype == torch.float64 else 1e-6)


def test_a_weight_that_is_elsewhere_is_not_merged():
    layer, update = nn.Linear(6, 5, device="meta"), low_rank(normal(2, 6), normal(5, 2), None)
    own = layer.weight
    with whole_lora({layer: update}):
        assert layer.weight is own
        assert layer(torch.empty(3, 6, device="meta")).shape == (3, 5)
        assert len(hooks(layer)) == 1
    assert layer.weight is own and hooks(layer) == []


@torch.no_grad()
def test_a_parametrised_weight_is_not_merged():
    layer, x = weight_norm(nn.Linear(6, 5)), normal(3, 6)
    update, before = low_rank(normal(2, 6, seed=1), normal(5, 2, seed=2), 1.0), weights(layer)
    expected = layer(x) + update.scale * x @ (update.up @ update.down).t()
    plain = layer.weight.clone()
    with whole_lora({layer: update}):
        torch.testing.assert_close(layer(x), expected)
        assert torch.equal(layer.weight, plain)
    assert_untouched(layer, before)


@torch.no_grad()
def test_merged_layers_and_others_go_together(merged, make_unet, random_lora):
    """Of a network of both kinds, each as it is alone."""
    unet = make_unet()
    lora = random_lora(unet, 1)
    expected = merged(unet, (lora, 1))(*inputs()).sample
    layers = read_lora(lora, unet)
    other = next(iter(layers))
    weight_norm(other)
    with whole_lora(layers):
        assert len(hooks(unet)) == 1
        rows = unet(*inputs()).sample
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-5)


def test_no_layers_change_nothing(unet):
    before = weights(unet)
    with whole_lora({}):
        assert_untouched(unet, before)
