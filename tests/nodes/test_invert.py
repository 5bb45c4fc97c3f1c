"""DDIM Invert is the core's inversion, in the convention of KSampler."""

from typing import Any

import comfy.samplers
import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.blend import blended_loras
from morph_pack.morph_core.lora.low_rank import read_lora
from morph_pack.morph_core.sampling import ddim
from morph_pack.morph_core.sampling.schedule import ddim_sigmas
from morph_pack.morph_core.toy.model import SCALE_FACTOR, ToyModel
from morph_tests.networks import denoiser_of
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, latent, random_lora, run, sample, with_lora


def invert(model: Any, steps: int, start: int = 0, scheduler: str = "ddim_uniform", **image: Any) -> dict[str, Any]:
    return run(
        "DdimInvert",
        model=model,
        positive=conditioning(),
        latent_image=image or latent(),
        steps=steps,
        scheduler=scheduler,
        start_at_step=start,
    )[0]


@pytest.mark.parametrize("start", [0, 4])
def test_it_is_the_cores_inversion(model: Any, core: ToyModel, start: int) -> None:
    lora, train_sigmas = random_lora(0), core.backbone.schedule.sigmas
    denoise = denoiser_of(core.backbone.network, conditioning()[0][0], train_sigmas)
    with torch.no_grad(), blended_loras(read_lora(lora, core.backbone.network), {}, (0.0,)):
        sigmas = ddim_sigmas(train_sigmas, 10)[start:]
        expected = ddim.invert(denoise, latent()["samples"] * SCALE_FACTOR, sigmas, core.backbone.schedule)
    actual = invert(with_lora(model, lora), 10, start)["samples"]
    torch.testing.assert_close(actual, expected / SCALE_FACTOR, rtol=0, atol=1e-3)
    assert (actual - invert(model, 10, start)["samples"]).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("iterations", [0, 1])
def test_a_warm_start_is_the_cores(model: Any, core: ToyModel, iterations: int) -> None:
    train_sigmas, schedule = core.backbone.schedule.sigmas, core.backbone.schedule
    denoise = denoiser_of(core.backbone.network, conditioning()[0][0], train_sigmas)
    scaled = latent()["samples"] * SCALE_FACTOR
    settings = {"steps": 10, "scheduler": "ddim_uniform", "start_at_step": 0, "fixed_point_iterations": iterations}
    given = {"model": model, "positive": conditioning(), "latent_image": latent(), **settings}
    warm, _, report, _ = run("DdimInvert", **given, warm_start=True)
    expected = ddim.invert(denoise, scaled, ddim_sigmas(train_sigmas, 10), schedule, None, iterations, warm_start=True)
    torch.testing.assert_close(warm["samples"], expected / SCALE_FACTOR, rtol=0, atol=1e-3)
    assert report.startswith("the last fixed-point" if iterations else "DDIM inversion with a warm start: no fixed")
    cold = run("DdimInvert", **given)[0]["samples"]
    assert torch.equal(run("DdimInvert", **given, warm_start=False)[0]["samples"], cold)
    assert (warm["samples"] - cold).abs().max() > 0.01


class SeenSigmas(list[float]):
    """Sigmas a MODEL is called with, largest first."""

    def watch(self, model: Any) -> Any:
        watched = model.clone()
        watched.set_model_unet_function_wrapper(self._call)
        return watched

    def _call(self, apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        self.append(float(arguments["timestep"].max()))
        self.sort(reverse=True)
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])


@pytest.mark.parametrize(("steps", "start"), [(10, 0), (10, 3), (10, 9), (1, 0), (7, 2)])
def test_it_visits_the_sigmas_that_ksampler_visits(model: Any, steps: int, start: int) -> None:
    """Also where the steps do not divide the 1000 of the training, of which ComfyUI makes one step more."""
    down, up = SeenSigmas(), SeenSigmas()
    noise = invert(up.watch(model), steps, start)["samples"]
    sample(down.watch(model), conditioning(), noise, steps, start=start)
    assert up == down and len(up) > 0


@pytest.mark.parametrize("scheduler", [name for name in comfy.samplers.SCHEDULER_NAMES])
def test_every_scheduler_leads_up_to_its_first_sigma(model: Any, scheduler: str) -> None:
    seen = SeenSigmas()
    noise = invert(seen.watch(model), 5, scheduler=scheduler)["samples"]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, 5)
    torch.testing.assert_close(torch.tensor(seen), sigmas[sigmas > 0].sort(descending=True).values)
    assert torch.isfinite(noise).all()


def test_a_schedule_that_is_not_finite_is_refused(model: Any) -> None:
    """ComfyUI's kl_optimal divides by the steps less one."""
    with pytest.raises(
        InvalidInput, match="DDIM Invert: scheduler kl_optimal has .* not finite with steps 1; take more"
    ):
        invert(model, 1, scheduler="kl_optimal")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "start"),
    [(None, 0.0), (None, 0.25), (models.sd1, 0.0), (models.sd2, 0.0)],
    ids=["toy", "toy from a later step", "SD 1", "SD 2"],
)
def test_the_way_there_and_back_ends_closer_with_more_steps(model: Any, make: Any, start: float) -> None:
    """For noise and v prediction, and for a latent format that scales."""
    network = make() if make else model

    def error(steps: int) -> float:
        first = round(start * steps)
        image = latent(size=(8, 8))
        noise = invert(network, steps, first, **image)["samples"]
        back = sample(network, conditioning(), noise, steps, start=first)
        return float((back - image["samples"]).abs().mean())

    assert error(80) < 0.75 * error(8)


def test_what_else_the_latent_carries_is_kept(model: Any) -> None:
    image = {**latent(), "noise_mask": torch.zeros(1, 1, 8, 12), "batch_index": [3]}
    inverted = invert(model, 2, **image)
    assert inverted["noise_mask"] is image["noise_mask"] and inverted["batch_index"] == [3]
    without = invert(model, 2)["samples"]
    assert torch.equal(inverted["samples"], without), "a mask is KSampler's business, not the inversion's"
