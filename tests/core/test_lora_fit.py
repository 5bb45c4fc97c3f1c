import copy
import random

import numpy as np
import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.fit import LayerUpdate, LoraFit
from morph_tests.core.lora_fits import ALPHAS, SHORT, context, fit, latent


@pytest.fixture
def unet(small_unet):
    return small_unet


def fixed_loss(unet, prediction="epsilon"):
    """The denoising loss on the latent, averaged over 16 fixed noises and timesteps."""
    noise = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    t = torch.arange(30, 1000, 60)[:16]
    alpha = ALPHAS[t][:, None, None, None]
    z = alpha.sqrt() * latent() + (1 - alpha).sqrt() * noise
    target = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latent()
    return (unet(z, t, context().expand(16, -1, -1)).sample - target).square().mean().item()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_fitted_lora_lowers_the_loss_on_its_latent(unet, merged, prediction):
    before = fixed_loss(unet, prediction)
    config = LoraFit(rank=8, steps=20, learning_rate=1e-2)
    fitted = fit(unet, latent(), context(), config, prediction)
    assert fixed_loss(merged(unet, (fitted.weights, 1)), prediction) < 0.95 * before
    assert fixed_loss(merged(unet, (fitted.weights, -1)), prediction) > before


def test_the_weights_are_those_that_were_trained(unet, merged):
    """What the UNet computes with its adapter in the last step is what it computes with the result merged."""
    seen = []
    probe = latent(5)

    def look(step, total):
        if step == total:
            with torch.no_grad():
                seen.append(unet(probe, 500, context()).sample)

    config = LoraFit(rank=3, steps=5, learning_rate=1e-2)
    fitted = fit(unet, latent(), context(), config, on_step=look)
    torch.testing.assert_close(
        merged(unet, (fitted.weights, 1))(probe, 500, context()).sample, seen[0], rtol=0, atol=1e-5
    )
    assert (seen[0] - unet(probe, 500, context()).sample).abs().max() > 1e-2


@pytest.fixture
def inputs(unet):
    """Every (z, t) the UNet is called with from now on."""
    seen = []
    unet.register_forward_pre_hook(lambda module, args: seen.append((args[0].detach().clone(), int(args[1]))))
    return seen


def noise_in(z, t):
    """The noise that was mixed with the latent to give z."""
    return (z - ALPHAS[t].sqrt() * latent()) / (1 - ALPHAS[t]).sqrt()


def test_the_unet_is_shown_the_latent_with_unit_noise_of_every_strength(unet, inputs):
    fit(unet, latent(), context(), LoraFit(rank=1, steps=20))
    noises = torch.cat([noise_in(z, t) for z, t in inputs])
    assert noises.mean().item() == pytest.approx(0, abs=0.06)  # 4 deviations of 20·256 draws
    assert noises.std().item() == pytest.approx(1, abs=0.04)
    timesteps = [t for _, t in inputs]
    assert len(set(timesteps)) > 15
    assert min(timesteps) < 250 and max(timesteps) > 750


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_it_is_plain_adamw_on_the_product_of_two_matrices(unet, inputs, prediction):
    """The same training written out: weights W + up·down given to the UNet, the noises those that were drawn."""
    config = LoraFit(rank=2, steps=4, learning_rate=1e-2, weight_decay=10.0)
    fitted = fit(unet, latent(), context(), config, prediction)
    drawn = list(inputs)
    untrained = fit(unet, latent(), context(), LoraFit(rank=2, steps=1, learning_rate=1e-20)).weights
    frozen = {"lora_unet_" + path.replace(".", "_"): path for path, _ in unet.named_modules()}
    names = sorted({key.split(".")[0] for key in untrained})
    downs = [untrained[f"{name}.lora_down.weight"].clone().requires_grad_() for name in names]
    ups = [torch.zeros_like(untrained[f"{name}.lora_up.weight"]).requires_grad_() for name in names]
    optimiser = torch.optim.AdamW([*downs, *ups], 1e-2, weight_decay=10.0)
    losses = []
    for z, t in drawn:
        noise, alpha = noise_in(z, t), ALPHAS[t]
        target = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latent()
        weights = {
            f"{frozen[name]}.weight": unet.get_submodule(frozen[name]).weight + up @ down
            for name, down, up in zip(names, downs, ups, strict=True)
        }
        output = torch.func.functional_call(unet, weights, (z, t, context())).sample
        loss = (output - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert fitted.losses == pytest.approx(losses, rel=1e-4)
    for name, down, up in zip(names, downs, ups, strict=True):
        product = fitted.weights[f"{name}.lora_up.weight"] @ fitted.weights[f"{name}.lora_down.weight"]
        torch.testing.assert_close(product, up @ down, rtol=0, atol=1e-2 * (up @ down).abs().max().item())


def test_one_kernel_for_all_matrices_changes_only_the_rounding(unet, monkeypatch):
    config = LoraFit(rank=2, steps=5, learning_rate=1e-2)
    fused = products_of(fit(unet, latent(), context(), config).weights)
    monkeypatch.setattr("morph_pack.morph_core.lora.fit.FUSED_ON_THE_CPU", [99])
    plain = products_of(fit(unet, latent(), context(), config).weights)
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-4 * plain.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_queries_keys_and_values_keep_the_input_that_they_share_once(dtype):
    x = torch.randn(1, 7, 8).to(dtype)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        outputs = [
            LayerUpdate(layer, rank=2)(layer, (x,), layer(x))
            for layer in (torch.nn.Linear(8, 6, dtype=dtype).requires_grad_(False) for _ in range(3))
        ]
    assert {output.dtype for output in outputs} == {dtype}
    assert {tensor.data_ptr() for tensor in kept if tensor.numel() == x.numel()} == {x.data_ptr()}


@pytest.fixture
def silent(unet):
    """A UNet whose output is 0 whatever a LoRA does, so that a loss is the mean square of its target."""
    unet.conv_out.weight.data.zero_()
    unet.conv_out.bias.data.zero_()
    return unet


def losses_of(unet, prediction, x0, config=SHORT):
    return fit(unet, torch.full((1, 4, 8, 8), x0), context(), config, prediction).losses


def test_epsilon_is_learnt_towards_unit_noise(silent):
    losses = losses_of(silent, "epsilon", 10.0, LoraFit(rank=1, steps=20))
    assert np.mean(losses) == pytest.approx(1, abs=0.1)  # 20·256 squares of unit normals
    assert len(set(losses)) == 20  # drawn anew each step


def test_velocity_is_learnt_as_noise_less_latent(silent):
    noise_power = losses_of(silent, "epsilon", 0.0)
    of_nothing = losses_of(silent, "v_prediction", 0.0)
    of_ten = losses_of(silent, "v_prediction", 10.0)
    for power, noise_part, whole in zip(noise_power, of_nothing, of_ten, strict=True):
        alpha = noise_part / power  # the target is sqrt(ᾱ)·noise for a latent of 0
        assert (ALPHAS - alpha).abs().min() < 1e-5
        # plus (1 − ᾱ)·10², and a mixed term of the noise's mean, which is below 0.25 (4 deviations of 256 draws)
        assert abs(whole - noise_part - 100 * (1 - alpha)) < 2 * 10 * 0.25 * 0.5 + 1e-3


def test_the_same_seed_gives_the_same_lora_whatever_the_global_generator_does(unet):
    torch.manual_seed(1)
    first = fit(unet, latent(), context(), SHORT)
    torch.manual_seed(2)
    torch.rand(7)
    second = fit(unet, latent(), context(), SHORT)
    assert first.losses == second.losses
    assert same(first.weights, second.weights)


def test_another_seed_gives_another_lora(unet):
    first = fit(unet, latent(), context(), SHORT)
    other = fit(unet, latent(), context(), LoraFit(rank=2, steps=2, learning_rate=1e-3, seed=1))
    assert first.losses != other.losses
    assert not any(torch.equal(first.weights[key], other.weights[key]) for key in first.weights if "lora_down" in key)


def test_another_image_or_caption_gives_another_lora(unet):
    first = fit(unet, latent(), context(), SHORT)
    assert fit(unet, latent(7), context(), SHORT).losses != first.losses
    assert fit(unet, latent(), context(7), SHORT).losses != first.losses


def cancel_at_one(step, total):
    if step == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize("on_step", [None, cancel_at_one])
def test_the_unet_is_left_as_it_was(unet, on_step):
    unet.conv_in.requires_grad_(True)  # some need gradients, some do not
    unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.requires_grad_(True)
    unet.up_blocks[0].train()
    modules = dict(unet.named_modules())
    tensors = dict(unet.named_parameters())
    values = {name: value.clone() for name, value in unet.state_dict().items()}
    needs_grad = [name for name, parameter in tensors.items() if parameter.requires_grad]
    training = {name: module.training for name, module in modules.items()}

    if on_step:
        with pytest.raises(KeyboardInterrupt):
            fit(unet, latent(), context(), SHORT, on_step=on_step)
    else:
        fit(unet, latent(), context(), SHORT)

    assert {name: id(module) for name, module in unet.named_modules()} == {k: id(m) for k, m in modules.items()}
    assert {name: id(value) for name, value in unet.named_parameters()} == {k: id(v) for k, v in tensors.items()}
    assert same(dict(unet.state_dict()), values)
    assert [name for name, parameter in unet.named_parameters() if parameter.requires_grad] == needs_grad
    assert {name: module.training for name, module in unet.named_modules()} == training
    assert all(parameter.grad is None for parameter in unet.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


@pytest.mark.parametrize("on_step", [None, cancel_at_one])
def test_the_global_generators_are_left_as_they_were(unet, on_step):
    torch.manual_seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    try:
        fit(unet, latent(), context(), SHORT, on_step=on_step)
    except KeyboardInterrupt:
        assert on_step
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_the_generators_of_accelerators_are_left_alone(unet, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    fit(unet, latent(), context(), SHORT)
    assert seeded == []


def test_a_unet_with_another_adapter_is_refused_and_keeps_it(unet):
    LoraConfig = pytest.importorskip("peft").LoraConfig
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "other")
    before = unet(latent(), 500, context()).sample.detach()
    with pytest.raises(InvalidInput, match="carries an adapter already"):
        fit(unet, latent(), context(), SHORT)
    torch.testing.assert_close(unet(latent(), 500, context()).sample, before)


def test_two_fits_in_a_row_do_not_know_of_each_other(unet):
    alone = fit(copy.deepcopy(unet), latent(), context(), SHORT)
    fit(unet, latent(7), context(), SHORT)
    second = fit(unet, latent(), context(), SHORT)
    assert second.losses == alone.losses
    assert same(second.weights, alone.weights)


def test_a_half_precision_unet_is_fitted_in_single_precision(unet):
    config = LoraFit(rank=2, steps=5, learning_rate=1e-3)
    exact = fit(unet, latent(), context(), config)
    half = unet.to(torch.bfloat16)
    fitted = fit(half, latent(), context(), config)
    assert all(value.dtype == torch.float32 for value in fitted.weights.values())
    assert fitted.losses == pytest.approx(exact.losses, rel=0.03)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    # single-precision weights have more digits than bfloat16 keeps
    up = next(value for key, value in fitted.weights.items() if "up" in key)
    assert not torch.equal(up, up.bfloat16().float())


def test_the_latents_dtype_does_not_matter(unet):
    half = latent().half()
    assert same(
        fit(unet, half, context(), SHORT).weights,
        fit(unet, half.float(), context(), SHORT).weights,
    )


def test_progress_counts_every_step(unet):
    calls = []
    fitted = fit(unet, latent(), context(), SHORT, on_step=lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]
    assert len(fitted.losses) == 2


def test_the_defaults_are_diffmorphers():
    fit = LoraFit()
    assert (fit.rank, fit.steps, fit.learning_rate, fit.weight_decay, fit.seed) == (16, 200, 2e-4, 1e-2, 0)


@pytest.mark.parametrize("name", ["rank", "steps", "learning_rate"])
@pytest.mark.parametrize("value", [0, -1])
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(InvalidInput, match=f"{name} must be above 0, got {value}"):
        LoraFit(**{name: value})


def test_a_batch_of_latents_is_refused(unet):
    with pytest.raises(InvalidInput, match="a batch of 2"):
        fit(unet, torch.zeros(2, 4, 8, 8), context(), SHORT)


def products_of(weights):
    names = sorted({key.split(".")[0] for key in weights})
    return torch.cat([(weights[f"{n}.lora_up.weight"] @ weights[f"{n}.lora_down.weight"]).flatten() for n in names])


def test_a_half_precision_unet_learns_what_a_single_precision_one_does(unet):
    """Without scaling the loss, gradients this small are 0 in half precision and only weight decay is left."""
    for parameter in unet.conv_out.parameters():
        parameter.data *= 1e-4
    config = LoraFit(rank=4, steps=6, learning_rate=1e-2)
    expected = products_of(fit(unet, latent(), context(), config).weights)
    found = products_of(fit(copy.deepcopy(unet).half(), latent(), context(), config).weights)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.8


def test_a_unet_that_overflows_is_refused(unet):
    unet.conv_out.weight.data[:] = float("inf")
    told = "not finite in {} before the first update: check the model, its prompt and the latent{}$"
    with pytest.raises(InvalidInput, match=told.format("torch.float32", "")):
        fit(unet, latent(), context(), SHORT)
    with pytest.raises(InvalidInput, match=told.format("torch.bfloat16", " or use float32")):
        fit(unet.bfloat16(), latent(), context(), SHORT)


def test_a_fit_that_diverges_is_refused_and_a_lower_learning_rate_is_advised(unet):
    with pytest.raises(InvalidInput, match=r"not finite after \d+ updates: lower learning_rate$"):
        fit(unet, latent(), context(), LoraFit(rank=2, steps=20, learning_rate=1e20))
