"""Every family that is sampled by flow matching, through stock samplers: inversion and back, LoRAs, exact rows."""

from typing import Any

import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput, UnsupportedModel
from morph_tests.nodes.flow_models import FAMILIES, image_for, normal, prompt_for
from morph_tests.nodes.flow_truths import SPACING, STEPS, assert_the_image_comes_back, away, invert, sampled
from morph_tests.nodes.graph import run, sample, with_lora

QUICK = "SD 3.5"
EVERY = [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


@pytest.fixture(scope="module", params=EVERY)
def model(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param]()


@pytest.fixture(scope="module")
def prompt(model: Any) -> Any:
    return prompt_for(model)


@pytest.fixture(scope="module")
def image(model: Any) -> dict[str, Tensor]:
    return image_for(model)


@pytest.fixture(scope="module")
def inverted(model: Any, prompt: Any, image: Any) -> Any:
    return invert(model, prompt, image)


@pytest.fixture(scope="module")
def lora(model: Any, prompt: Any, image: Any) -> Any:
    settings = {"rank": 2, "steps": 20, "learning_rate": 0.01, "seed": 0}
    return run("FitImageLora", model=model, latent=image, positive=prompt, **settings)


@pytest.mark.parametrize(
    ("told", "said"), [({}, "guidance of 3.5"), ({"guidance": 1.0}, ""), ({"guidance": 5.0}, "of 5")]
)
def test_a_guidance_other_than_1_is_said_of_a_model_that_was_distilled_with_it(
    told: dict[str, float], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = FAMILIES["Flux"]()
    ((embedding, options),) = prompt_for(model)
    options = {name: value for name, value in options.items() if name != "guidance"} | told
    report = invert(model, [[embedding, options]], image_for(model), iterations=0)[2]
    assert said in report and said in caplog.text and bool(said) == ("FluxGuidance" in report)


def test_a_model_without_guidance_says_nothing_of_it() -> None:
    model = FAMILIES["SD 3.5"]()
    assert "FluxGuidance" not in invert(model, prompt_for(model), image_for(model), iterations=0)[2]


def test_gradient_checkpointing_changes_only_the_memory(model: Any, prompt: Any, image: Any) -> None:
    """Although some families' blocks add to what they are given, which is there once more the second time."""
    settings = {"rank": 2, "steps": 3, "learning_rate": 0.01, "seed": 0}
    plain, checkpointed = (
        run("FitImageLora", model=model, latent=image, positive=prompt, gradient_checkpointing=saving, **settings)[0]
        for saving in (False, True)
    )
    for key, value in plain.items():
        torch.testing.assert_close(checkpointed[key], value, rtol=0, atol=1e-4)


def test_where_pytorch_is_too_old_for_checkpointing_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morph_pack.nodes.host.checkpointing.HOOKS", "absent")
    flux = FAMILIES["Flux"]()
    settings = {"rank": 2, "steps": 1, "learning_rate": 0.01, "seed": 0, "gradient_checkpointing": True}
    with pytest.raises(UnsupportedModel, match="gradient_checkpointing needs PyTorch 2.8 or newer"):
        run("FitImageLora", model=flux, latent=image_for(flux), positive=prompt_for(flux), **settings)


def test_from_pure_noise_the_image_comes_back(model: Any, prompt: Any, image: Any, inverted: Any) -> None:
    assert_the_image_comes_back(model, prompt, image, inverted)


def test_plain_inversion_comes_back_less_exactly(model: Any, prompt: Any, image: Any) -> None:
    errors = [
        away(sampled(model, prompt, invert(model, prompt, image, iterations=n)[3]), image["samples"]) for n in (0, 3)
    ]
    assert errors[1] < errors[0] < 1


def test_from_a_later_step_ksampler_takes_the_latent(model: Any, prompt: Any, image: Any) -> None:
    latent, *_ = invert(model, prompt, image, start=2)
    back = sample(model, prompt, latent["samples"], STEPS, start=2, scheduler=SPACING["scheduler"])
    assert away(back, image["samples"]) < 1e-4


def test_at_sigma_1_the_latent_is_refused_where_it_would_be_lost(model: Any, inverted: Any) -> None:
    latent = inverted[0]
    assert isinstance(latent, ExecutionBlocker) and "connect NOISE to SamplerCustomAdvanced" in latent.message


def test_the_ends_of_a_slerp_are_the_inverted_noises(model: Any, prompt: Any, image: Any, inverted: Any) -> None:
    other = invert(model, prompt, image_for(model, seed=5), iterations=0)[3]
    blocked, frames = run("SlerpLatents", start=inverted[3], end=other, alphas=(0.0, 0.5, 1.0))
    assert "its inputs are NOISE" in blocked.message
    torch.testing.assert_close(frames.x[[0, 2]], torch.cat([inverted[3].x, other.x]))
    _, styled = run("AdaIN", frames=frames, start=inverted[3], end=other, alphas=(0.0, 0.5, 1.0), strength=1.0)
    axes = tuple(range(2, styled.x.ndim))
    expected = (inverted[3].x.mean(axes) + other.x.mean(axes)) / 2
    torch.testing.assert_close(styled.x.mean(axes)[1:2], expected, rtol=0, atol=1e-5)
    assert away(sampled(model, prompt, frames, rows=3)[:1], image["samples"]) < 1e-4


def test_noise_and_latents_do_not_mix(model: Any, image: Any, inverted: Any) -> None:
    with pytest.raises(InvalidInput, match="Slerp Latents: end is no NOISE but the others are; connect LATENT to all"):
        run("SlerpLatents", start=inverted[3], end=image, alphas=(0.0, 1.0))


def test_the_empty_latent_must_be_of_the_noises_size(model: Any, inverted: Any) -> None:
    with pytest.raises(InvalidInput, match="connect an empty latent of that size"):
        inverted[3].generate_noise({"samples": torch.zeros(1, 4, 5, 5)})


def test_on_a_latent_that_is_not_empty_the_run_starts_at_the_same_place(model: Any, inverted: Any, image: Any) -> None:
    sampling, noise = model.get_model_object("model_sampling"), inverted[3]
    added = noise.generate_noise(image)
    scaled = model.model.process_latent_in(image["samples"])
    torch.testing.assert_close(sampling.noise_scaling(noise.sigma, added, scaled, True), noise.x, rtol=0, atol=1e-4)


def test_direct_inversion_holds_a_row_whatever_the_guidance(model: Any, prompt: Any, image: Any) -> None:
    latent, trajectory, *_ = invert(model, prompt, image, start=1, iterations=0)
    (pinned,) = run("DirectInversion", model=model, trajectory=trajectory, row=0, mask=None)
    settings = {"start": 1, "scheduler": SPACING["scheduler"], "cfg": 3.0, "negative": prompt_for(model, seed=9)}
    held, free = (sample(one, prompt, latent["samples"], STEPS, **settings) for one in (pinned, model))
    assert away(held, image["samples"]) < 1e-4 < away(free, image["samples"])


def test_a_fitted_lora_lowers_the_loss_and_is_read_whole(model: Any, prompt: Any, image: Any, lora: Any) -> None:
    weights, learnt = lora
    settings = {"rank": 2, "steps": 20, "learning_rate": 1e-7, "seed": 0}
    _, unlearnt = run("FitImageLora", model=model, latent=image, positive=prompt, **settings)
    assert sum(learnt["loss"][12:]) < 0.999 * sum(unlearnt["loss"][12:])
    assert len(with_lora(model, weights).patches) == len(weights) // 3


def test_a_blended_lora_is_the_merged_one(model: Any, prompt: Any, lora: Any) -> None:
    weights, _ = lora
    other = {name: -weight if "lora_up" in name else weight for name, weight in weights.items()}
    (blend,) = run("LoraBlend", model=model, start=weights, end=other, alphas=(0.0, 1.0))
    shape = image_for(model)["samples"].shape[1:]
    noise = normal(2, *shape, seed=3)
    settings = {"start": 1, "scheduler": SPACING["scheduler"]}
    rows = sample(blend, prompt, noise, 3, **settings)
    for row, one in enumerate((weights, other)):
        merged = sample(with_lora(model, one), prompt, noise, 3, **settings)
        assert away(rows[row], merged[row]) < 1e-4
        assert away(rows[1 - row], merged[1 - row]) > 1e-3


def test_null_text_leads_guided_sampling_nearer_to_the_image(model: Any, prompt: Any, image: Any) -> None:
    latent, trajectory, *_ = invert(model, prompt, image, start=1)
    negative = prompt_for(model, seed=9)
    optimise = {"cfg": 2.0, "inner_steps": 20, "learning_rate": 0.2, "early_stop": 0.0, "budget": 0}
    (found,) = run("NullTextInversion", model=model, trajectory=trajectory, negative=negative, **optimise)
    assert len(found) == STEPS - 1
    settings = {"start": 1, "scheduler": SPACING["scheduler"], "cfg": 2.0}
    errors = [
        float((sample(model, prompt, latent["samples"], STEPS, negative=one, **settings) - image["samples"]).std())
        for one in (found, negative)
    ]
    assert errors[0] < 0.9 * errors[1]
