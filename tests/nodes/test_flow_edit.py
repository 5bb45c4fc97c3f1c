"""Edits by the difference of two predictions, through the stock sampler: the core's, on models of every kind."""

import copy
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy.utils
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicGuider, Noise_EmptyNoise, Noise_RandomNoise, SamplerCustomAdvanced
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.sampling.flow_edit import FlowEdit, flow_edit
from morph_pack.morph_core.sampling.guidance import guided_denoiser
from morph_pack.morph_core.sampling.uni_edit import UniEdit, uni_edit
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_tests.networks import denoiser_of
from morph_tests.nodes import models
from morph_tests.nodes.flow_models import FAMILIES, image_for, prompt_for
from morph_tests.nodes.graph import conditioning, diffusion_model, hooks_on, latent, normal, run, stock

STEPS, SEED = 5, 7
FLOW, UNI = {"strength": 0.8}, {"strength": 0.8, "omega": 2.0}
SAMPLERS = {"FlowEditSampler": FLOW, "UniEditSampler": UNI}
KINDS = ["the toy", "SD 2", "SD 3.5", "Qwen-Image"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, model: Any) -> tuple[Any, list[Any], dict[str, Any]]:
    """A MODEL, four prompts of it, and an image."""
    if request.param == "the toy":
        return model, [conditioning(seed) for seed in range(4)], latent(5)
    if request.param == "SD 2":
        return models.sd2(), [conditioning(seed) for seed in range(4)], latent(5)
    network = FAMILIES[request.param]()
    return network, [prompt_for(network, seed) for seed in range(1, 5)], image_for(network)


def sigmas_of(model: Any, steps: int = STEPS) -> Tensor:
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)


def guider_of(model: Any, prompts: list[Any], source_cfg: float = 1.0, target_cfg: float = 1.0) -> Any:
    names = ("source_positive", "target_positive", "source_negative", "target_negative")
    given = dict(zip(names, prompts, strict=False))
    return run("EditGuider", model=model, source_cfg=source_cfg, target_cfg=target_cfg, **given)[0]


def edited(
    guider: Any, image: dict[str, Any], sampler: str, sigmas: Tensor | None = None, noise: Any = None, **settings: Any
) -> Tensor:
    """What SamplerCustomAdvanced makes of an image."""
    (how,) = run(sampler, **{**SAMPLERS[sampler], **settings})
    sigmas = sigmas_of(guider.model_patcher) if sigmas is None else sigmas
    given = {"noise": noise or Noise_RandomNoise(SEED), "guider": guider, "sampler": how, "sigmas": sigmas}
    return stock(SamplerCustomAdvanced, **given, latent_image=image)[0]["samples"]


def away(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).abs().max() / expected.abs().max())


def test_one_prompt_twice_is_the_image(kind: Any) -> None:
    model, prompts, image = kind
    for prompt, cfg in ((prompts[0], 1.0), (prompts[1], 2.5)):
        guider = guider_of(model, [prompt, prompt, prompts[2], prompts[2]], cfg, cfg)
        for settings in ({}, {"strength": 1.0, "noises": 2}):
            assert away(edited(guider, image, "FlowEditSampler", **settings), image["samples"]) < 1e-6
    assert away(edited(guider_of(model, prompts), image, "FlowEditSampler"), image["samples"]) > 1e-3


@pytest.mark.parametrize("make", [models.sdxl, models.cosxl, models.playground])
def test_of_other_schedules_and_predictions_too(make: Any) -> None:
    model, image = make(), latent(5)
    prompts = [conditioning(seed, pooled_output=normal(1, models.POOLED_WIDTH, seed=seed)) for seed in range(2)]
    assert away(edited(guider_of(model, prompts[:1] * 2), image, "FlowEditSampler"), image["samples"]) < 1e-6
    for sampler in SAMPLERS:
        changed = edited(guider_of(model, prompts), image, sampler)
        assert torch.isfinite(changed).all() and away(changed, image["samples"]) > 1e-3


@pytest.mark.slow
def test_the_seed_and_each_guidance_count(kind: Any) -> None:
    model, prompts, image = kind
    guider = guider_of(model, prompts)
    first = edited(guider, image, "FlowEditSampler")
    assert torch.equal(edited(guider, image, "FlowEditSampler"), first)
    assert away(edited(guider, image, "FlowEditSampler", noise=Noise_RandomNoise(8)), first) > 1e-4
    for cfgs in ((2.0, 1.0), (1.0, 2.0)):
        for sampler in SAMPLERS:
            changed = edited(guider_of(model, prompts, *cfgs), image, sampler)
            assert away(changed, edited(guider, image, sampler)) > 1e-4


def test_uni_edit_needs_no_noise_and_of_one_prompt_redraws_the_image(kind: Any) -> None:
    model, prompts, image = kind
    same = guider_of(model, [prompts[0], prompts[0]])
    redrawn = edited(same, image, "UniEditSampler", noise=Noise_EmptyNoise(), omega=50.0)
    assert torch.equal(redrawn, edited(same, image, "UniEditSampler", omega=0.0))
    changed = edited(guider_of(model, prompts), image, "UniEditSampler", omega=0.0)
    assert away(changed, redrawn) > 1e-4


def core_predictions(core: ToyModel, guidances: tuple[float, float]) -> list[Any]:
    parts = [
        denoiser_of(core.backbone.network, conditioning(seed)[0][0], core.backbone.schedule.sigmas) for seed in range(4)
    ]
    return [guided_denoiser(parts[side + 2], parts[side], guidances[side]) for side in range(2)]


@torch.no_grad()
def test_it_is_the_cores_edit(model: Any, core: ToyModel) -> None:
    prompts, image = [conditioning(seed) for seed in range(4)], latent(5, rows=2)
    guider, predictions = guider_of(model, prompts, 1.5, 3.0), core_predictions(core, (1.5, 3.0))
    schedule, scaled, sigmas = core.backbone.schedule, image["samples"] * SCALE_FACTOR, sigmas_of(model)
    flow = flow_edit(*predictions, scaled, sigmas, schedule, FlowEdit(0.8, 0.4, 2, SEED))
    uni = uni_edit(*predictions, scaled, sigmas, schedule, UniEdit(**UNI))
    settings = {"FlowEditSampler": {"free_end": 0.4, "noises": 2}, "UniEditSampler": {}}
    for sampler, expected in (("FlowEditSampler", flow), ("UniEditSampler", uni)):
        actual = edited(guider, image, sampler, **settings[sampler])
        torch.testing.assert_close(actual, expected / SCALE_FACTOR, rtol=0, atol=2e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_noise_mask_says_where(kind: Any, sampler: str) -> None:
    model, prompts, image = kind
    height, width = image["samples"].shape[-2:]
    mask = torch.zeros(1, 1, height, width)
    mask[..., : width // 2] = 1
    for noise in (Noise_EmptyNoise(), Noise_RandomNoise(3)):
        for changes in ({}, {"free_end": 0.4}) if sampler == "FlowEditSampler" else ({},):
            masked = edited(guider_of(model, prompts), {**image, "noise_mask": mask}, sampler, noise=noise, **changes)
            difference = (masked - image["samples"]).abs()
            assert float(difference[..., width // 2 :].max()) < 1e-5 * float(image["samples"].abs().max())
            assert float(difference[..., : width // 2].max()) > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_rows_of_a_batch_are_edited_each_for_itself(kind: Any, sampler: str) -> None:
    model, prompts, image = kind
    guider = guider_of(model, prompts, 1.0, 2.0)
    batch = {"samples": torch.cat([image["samples"], -image["samples"]])}
    both = edited(guider, batch, sampler)
    assert away(both[:1], edited(guider, image, sampler)) < 1e-3
    alone = edited(guider, {"samples": -image["samples"]}, sampler, noise=Noise_RandomNoise(SEED + 1))
    assert away(both[1:], alone) < 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_last_of_the_sigmas_edit_as_a_smaller_strength_does(kind: Any, sampler: str) -> None:
    model, prompts, image = kind
    guider, sigmas = guider_of(model, prompts), sigmas_of(model)
    settings = {"strength": 1.0}
    part = edited(guider, image, sampler, sigmas[2:], **settings)
    torch.testing.assert_close(part, edited(guider, image, sampler, strength=0.6), rtol=0, atol=1e-5)
    with pytest.raises(InvalidInput, match=r"Sampler: sigmas must fall to 0, where the image is, .* leave out"):
        edited(guider, image, sampler, sigmas[:-1])


def test_what_a_prompt_carries_is_in_force() -> None:
    """FluxGuidance says a distilled model's guidance in the CONDITIONING."""
    model = FAMILIES["Flux"]()
    image = image_for(model)
    low, high = (prompt_for(model, guidance=guidance) for guidance in (1.0, 60.0))
    assert away(edited(guider_of(model, [low, low]), image, "FlowEditSampler"), image["samples"]) < 1e-6
    assert away(edited(guider_of(model, [low, high]), image, "FlowEditSampler"), image["samples"]) > 1e-5


def test_another_sampler_with_the_guider_samples_the_target(model: Any) -> None:
    prompts = [conditioning(seed) for seed in range(4)]
    plain = comfy.samplers.CFGGuider(model)
    plain.set_conds(prompts[1], prompts[3])
    plain.set_cfg(2.0)
    results = []
    for guider in (plain, guider_of(model, prompts, 5.0, 2.0)):
        given = {"noise": Noise_RandomNoise(SEED), "sampler": comfy.samplers.sampler_object("euler")}
        results.append(
            stock(SamplerCustomAdvanced, guider=guider, sigmas=sigmas_of(model), latent_image=latent(5), **given)[0]
        )
    assert torch.equal(results[0]["samples"], results[1]["samples"])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_guider_is_refused_with_the_one_to_connect(model: Any, sampler: str) -> None:
    (guider,) = stock(BasicGuider, model=model, conditioning=conditioning())
    with pytest.raises(InvalidInput) as raised:
        edited(guider, latent(5), sampler)
    message = str(raised.value)
    assert message.startswith(("Flow Edit Sampler: ", "Uni-Edit Sampler: "))
    assert "guider Guider_Basic" in message and "connect Edit Guider to the guider of SamplerCustomAdv" in message


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_empty_latent_is_refused(model: Any, sampler: str) -> None:
    empty = {"samples": torch.zeros(1, 4, 8, 8)}
    with pytest.raises(InvalidInput, match="Sampler: the latent_image of .* is empty, .* connect VAE Encode's"):
        edited(guider_of(model, [conditioning(), conditioning(1)]), empty, sampler)


@pytest.mark.parametrize("side", ["source", "target"])
def test_guidance_without_a_negative_prompt_is_refused(model: Any, side: str) -> None:
    cfgs = {"source_cfg": 1.0, "target_cfg": 1.0, f"{side}_cfg": 3.5}
    message = rf"Edit Guider: {side}_cfg is 3.5 but {side}_negative is not connected; .* or set {side}_cfg to 1"
    with pytest.raises(InvalidInput, match=message):
        run("EditGuider", model=model, source_positive=conditioning(), target_positive=conditioning(1), **cfgs)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_progress_ends_where_it_should_and_the_second_output_is_the_edit(model: Any, sampler: str) -> None:
    counted: list[tuple[int, int]] = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **_: counted.append((value, total)))
    (how,) = run(sampler, **SAMPLERS[sampler])
    guider = guider_of(model, [conditioning(), conditioning(1)])
    given = {"noise": Noise_RandomNoise(SEED), "guider": guider, "sampler": how, "sigmas": sigmas_of(model)}
    output, denoised = stock(SamplerCustomAdvanced, **given, latent_image=latent(5))
    assert counted == sorted(counted) and counted[-1] == (STEPS, STEPS)
    torch.testing.assert_close(denoised["samples"], output["samples"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_cancelling_leaves_nothing_behind(model: Any, sampler: str) -> None:
    guider, image = guider_of(model, [conditioning(), conditioning(1)]), latent(5)
    before = copy.copy(model.model_options["transformer_options"]), edited(guider, image, sampler)

    def cancel(value: int, total: int, preview: Any, **_: Any) -> None:
        comfy.model_management.interrupt_current_processing(True)

    comfy.utils.set_progress_bar_global_hook(cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        edited(guider, image, sampler)
    comfy.model_management.interrupt_current_processing(False)
    comfy.utils.set_progress_bar_global_hook(None)
    assert model.model_options["transformer_options"] == before[0] and not hooks_on(model)
    assert torch.equal(edited(guider, image, sampler), before[1])
    assert diffusion_model(model) is not None
