"""Two LoRAs stacked once, for any number of calls."""

import pytest
import torch
from torch import nn

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.blend import BLENDS, StackedLoras, blended_loras
from morph_pack.morph_core.lora.low_rank import low_rank, read_lora

ALPHAS = (0.0, 0.2, 0.7, 1.0)
OTHERS = (0.1, 0.5, 0.6, 0.9)
CONVOLUTIONS = ("conv_in", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "proj_in", "conv_out")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(rows):
    """Of the UNet: latents, a timestep and a context."""
    return normal(rows, 4, 8, 8, seed=1), 500, normal(rows, 5, 16, seed=2)


def hooks(network):
    return [hook for module in network.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def matrices(stacked):
    return [(update.down, update.up) for update in stacked._updates.values()]


def are_the_same_objects(one, other):
    return all(a is b for pair, others in zip(one, other, strict=True) for a, b in zip(pair, others, strict=True))


@pytest.fixture
def layer():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(6, 6).requires_grad_(False)


@pytest.fixture
def update():
    return low_rank(normal(2, 6, seed=3), normal(6, 2, seed=4), None)


def updated(layer, update, x, share=1.0):
    """What the layer makes of x with its share of the update in its weight."""
    return x @ (layer.weight + share * update.scale * update.up @ update.down).t() + layer.bias


@torch.no_grad()
@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("endings", [("to_q", "to_k", "to_out.0"), CONVOLUTIONS])
def test_calls_with_other_alphas_and_rows_are_those_of_loras_stacked_anew(unet, random_lora, blend, endings):
    loras = [read_lora(random_lora(unet, seed, endings=endings), unet) for seed in (1, 2)]
    stacked, results = StackedLoras(*loras, blend), []
    for alphas, rows in ((ALPHAS, None), (OTHERS, None), ((0.3,), 4), (ALPHAS, 4), (OTHERS, 8), (ALPHAS, None)):
        arguments = inputs(rows or len(alphas))
        with stacked.applied(alphas, rows):
            results.append(unet(*arguments).sample)
        with blended_loras(*loras, alphas, blend, rows):
            assert torch.equal(results[-1], unet(*arguments).sample)
    assert torch.equal(results[0], results[-1])
    assert (results[0] - results[1]).abs().amax((1, 2, 3)).min() > 1e-3


@torch.no_grad()
def test_the_matrices_are_made_once(unet, random_lora):
    stacked = StackedLoras(*(read_lora(random_lora(unet, seed), unet) for seed in (1, 2)))
    made = []
    for alphas in (ALPHAS, ALPHAS, OTHERS, (0.5,)):
        with stacked.applied(alphas):
            unet(*inputs(len(alphas)))
        made.append(matrices(stacked))
    assert all(isinstance(matrix, torch.Tensor) for pair in made[0] for matrix in pair)
    assert all(are_the_same_objects(made[0], later) for later in made[1:])


@torch.no_grad()
def test_the_matrices_are_made_anew_for_another_dtype(layer, update):
    stacked, x = StackedLoras({layer: update}, {}), normal(2, 3, 6)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.1), (torch.float64, 1e-6)):
        own = layer.to(dtype)
        with stacked.applied((0.0, 0.5)):
            rows = own(x.to(dtype))
        assert rows.dtype == dtype
        assert {matrix.dtype for pair in matrices(stacked) for matrix in pair} == {dtype}
        exact = layer.double()
        for row, share in enumerate((1.0, 0.5)):
            expected = updated(exact, update, x.double(), share)[row]
            torch.testing.assert_close(rows[row].double(), expected, rtol=0, atol=tolerance)


def test_no_hooks_are_left_also_after_an_exception(unet, random_lora):
    start, end = (read_lora(random_lora(unet, seed), unet) for seed in (1, 2))
    stacked = StackedLoras(start, end)
    assert hooks(unet) == []
    for error in (None, KeyboardInterrupt, RuntimeError):
        try:
            with stacked.applied(ALPHAS):
                assert len(hooks(unet)) == len(start)
                if error:
                    raise error
        except (KeyboardInterrupt, RuntimeError) as raised:
            assert type(raised) is error
        assert hooks(unet) == []
    with pytest.raises(InvalidInput), stacked.applied(ALPHAS):
        unet(*inputs(3))
    assert hooks(unet) == []


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6), (4, 2, 5, 6)])
def test_an_update_added_in_place_is_the_one_beside_gradients(layer, update, shape):
    x, stacked = normal(*shape), StackedLoras({layer: update}, {})
    with stacked.applied(ALPHAS):
        beside = layer(x)
        with torch.no_grad():
            in_place = layer(x)
    torch.testing.assert_close(in_place, beside, rtol=0, atol=1e-6)
    for row, alpha in enumerate(ALPHAS):
        torch.testing.assert_close(in_place[row], updated(layer, update, x[row], 1 - alpha), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("strides", ["contiguous", "transposed", "expanded"])
def test_the_update_is_added_to_what_an_earlier_hook_made_of_the_output(layer, update, grad, strides):
    x, other = normal(4, 5, 6), normal(4, 5, 6, seed=8)
    replaced = {
        "contiguous": lambda: other.clone(),
        "transposed": lambda: other.transpose(0, 1).contiguous().transpose(0, 1),
        "expanded": lambda: other[:, :1].clone().expand(4, 5, 6),
    }[strides]()
    expected = replaced + updated(layer, update, x) - layer(x)
    handle = layer.register_forward_hook(lambda *_: replaced)
    try:
        with torch.set_grad_enabled(grad), StackedLoras({layer: update}, {}).applied((0.0,)):
            result = layer(x)
    finally:
        handle.remove()
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("slices", [slice(None), slice(0, 3)], ids=["whole", "a part"])
def test_the_input_is_never_changed(layer, update, slices):
    """Also where it is a view of something larger."""
    whole = normal(4, 5, 6)
    before = whole.clone()
    with StackedLoras({layer: update}, {}).applied((0.0,)):
        layer(whole[:, slices])
    assert torch.equal(whole, before)


@torch.no_grad()
def test_an_input_that_an_earlier_hook_hands_on_as_the_output_is_not_changed(layer, update):
    x = normal(4, 5, 6)
    before = x.clone()
    handle = layer.register_forward_hook(lambda module, args, output: args[0])
    try:
        with StackedLoras({layer: update}, {}).applied((0.0,)):
            result = layer(x)
    finally:
        handle.remove()
    assert torch.equal(x, before)
    torch.testing.assert_close(result, before + updated(layer, update, before) - layer(before), rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_output_that_an_earlier_hook_has_kept_is_not_changed(layer, update):
    x, kept = normal(4, 5, 6), []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        with StackedLoras({layer: update}, {}).applied((0.0,)):
            layer(x)
    finally:
        handle.remove()
    assert torch.equal(kept[0], layer(x))


def test_gradients_pass_after_a_call_in_inference_mode(layer, update):
    stacked, x = StackedLoras({layer: update}, {}), normal(4, 5, 6)
    with torch.inference_mode(), stacked.applied(ALPHAS):
        layer(x)
    wanted = x.clone().requires_grad_()
    with stacked.applied(ALPHAS):
        layer(wanted).sum().backward()
    for row, alpha in enumerate(ALPHAS):
        weight = layer.weight + (1 - alpha) * update.scale * update.up @ update.down
        torch.testing.assert_close(wanted.grad[row], weight.sum(0).expand(5, 6), rtol=0, atol=1e-5)
