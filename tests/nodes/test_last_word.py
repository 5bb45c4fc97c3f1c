"""Direct Inversion has the last word on its row, whatever guides, caches or masks the prediction, or says what does."""

from typing import Any

import comfy.samplers
import nodes
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import (
    nodes_cfg,
    nodes_custom_sampler,
    nodes_easycache,
    nodes_eps,
    nodes_mahiro,
    nodes_pag,
    nodes_perpneg,
    nodes_sag,
)
from torch import Tensor

from morph_pack.morph_core.errors import InvalidInput
from morph_tests.nodes.graph import conditioning, normal, run

STEPS, CFG = 20, 4.0
IMAGE = {"samples": normal(1, 4, 8, 12)}
POSITIVE, NEGATIVE = conditioning(0), conditioning(5)
OTHERS = {
    "Self-Attention Guidance": (nodes_sag.SelfAttentionGuidance, (0.5, 2.0)),
    "Perturbed-Attention Guidance": (nodes_pag.PerturbedAttentionGuidance, (3.0,)),
    "Mahiro": (nodes_mahiro.Mahiro, ()),
    "CFGNorm": (nodes_cfg.CFGNorm, (0.8,)),
    "CFGZeroStar": (nodes_cfg.CFGZeroStar, ()),
    "Epsilon Scaling": (nodes_eps.EpsilonScaling, (1.02,)),
    "LazyCache": (nodes_easycache.LazyCacheNode, (3.0, 0.1, 0.9, False)),
}


@pytest.fixture(scope="module")
def inverted(model: Any) -> Any:
    """LATENT and INVERSION_TRAJECTORY."""
    spacing = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": 0}
    return run("DdimInvert", model=model, positive=POSITIVE, latent_image=IMAGE, **spacing)


def pin(model: Any, inverted: Any) -> Any:
    return run("DirectInversion", model=model, trajectory=inverted[1], row=0)[0]


def add(model: Any, name: str) -> Any:
    node, arguments = OTHERS[name]
    with torch.inference_mode():
        return node.execute(model, *arguments).result[0]


def noise_of(inverted: Any) -> Tensor:
    """The image's noise and another row."""
    return torch.cat([inverted[0]["samples"], 14 * normal(1, 4, 8, 12, seed=3)])


def ksampler(
    model: Any, noise: Tensor, steps: int = STEPS, end: int = 10000, sampler: str = "ddim", **latent: Any
) -> Tensor:
    """KSampler (Advanced), leaving noise where it ends early."""
    with torch.inference_mode():
        (result,) = nodes.KSamplerAdvanced().sample(
            *(model, "disable", 0, steps, CFG, sampler, "ddim_uniform", POSITIVE, NEGATIVE),
            *({"samples": noise, **latent}, 0, end, "enable"),
        )
    return result["samples"]


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False], ids=["before it", "after it"])
@pytest.mark.parametrize("name", OTHERS)
def test_the_row_is_the_image_whatever_other_patch_there_is(model: Any, inverted: Any, name: str, first: bool) -> None:
    patched = pin(add(model, name), inverted) if first else add(pin(model, inverted), name)
    result = ksampler(patched, noise_of(inverted))
    assert (result[0] - IMAGE["samples"][0]).abs().max() < 1e-4
    without = ksampler(pin(model, inverted), noise_of(inverted))
    assert (result[1] - without[1]).abs().max() > 1e-3, "the other patch acts on the other row"


def guiders(model: Any) -> list[Any]:
    dual, nested = (nodes_custom_sampler.Guider_DualCFG(model) for _ in range(2))
    perp_neg = nodes_perpneg.Guider_PerpNeg(model)
    for guider in (dual, nested, perp_neg):
        guider.set_conds(POSITIVE, conditioning(3), NEGATIVE)
    dual.set_cfg(CFG, 2.0)
    nested.set_cfg(CFG, 2.0, nested=True)
    perp_neg.set_cfg(CFG, 1.0)
    return [dual, nested, perp_neg]


@pytest.mark.slow
def test_the_row_is_the_image_under_every_guider(model: Any, inverted: Any) -> None:
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", STEPS)
    noise = noise_of(inverted)
    for guider in guiders(pin(model, inverted)):
        with torch.inference_mode():
            result = guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas)
        assert (result[0].cpu() - IMAGE["samples"][0]).abs().max() < 1e-4


def test_many_steps_are_exact_enough_not_to_be_taken_for_lost(model: Any) -> None:
    """The smaller a step, the larger what single precision makes of the prediction that leads along it."""
    spacing = {"steps": 500, "scheduler": "ddim_uniform", "start_at_step": 480}
    latent, trajectory, *_ = run("DdimInvert", model=model, positive=POSITIVE, latent_image=IMAGE, **spacing)
    with torch.inference_mode():
        (result,) = nodes.KSamplerAdvanced().sample(
            *(pin(model, (latent, trajectory)), "disable", 0, 500, CFG, "ddim", "ddim_uniform", POSITIVE, NEGATIVE),
            *(latent, 480, 10000, "disable"),
        )
    assert (result["samples"] - IMAGE["samples"]).abs().max() < 1e-4


@pytest.mark.parametrize("end", [1, 3, 10000])
@pytest.mark.parametrize("steps", [10, 5, 4])
def test_steps_that_skip_some_of_the_inversions_are_refused_as_such(
    model: Any, inverted: Any, steps: int, end: int
) -> None:
    """Every sigma of a divisor's is one of the inversion's too."""
    with pytest.raises(
        InvalidInput, match=r"^Direct Inversion: the trajectory's step from .* leads to .* the sampler's"
    ):
        ksampler(pin(model, inverted), inverted[0]["samples"], steps, end)


@pytest.mark.parametrize("end", [1, 7])
def test_a_run_that_ends_early_leaves_the_row_where_the_inversion_passed(model: Any, inverted: Any, end: int) -> None:
    result = ksampler(pin(model, inverted), inverted[0]["samples"], end=end)
    torch.testing.assert_close(result[0], inverted[1].trajectory.latents[end, 0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["dpmpp_2m", "heun", "euler_ancestral"])
def test_another_sampler_is_named(model: Any, inverted: Any, name: str) -> None:
    with pytest.raises(
        InvalidInput, match=f"Direct Inversion: row 0 is not where it was put: KSampler uses {name}; use"
    ):
        ksampler(pin(model, inverted), inverted[0]["samples"], sampler=name)


def test_even_one_step_of_another_sampler_is_refused(model: Any, inverted: Any) -> None:
    with pytest.raises(InvalidInput, match="not where it was put: KSampler uses euler_ancestral"):
        ksampler(pin(model, inverted), inverted[0]["samples"], end=1, sampler="euler_ancestral")


def test_a_noise_mask_is_named(model: Any, inverted: Any) -> None:
    mask = torch.ones(1, 1, 8, 12)
    result = ksampler(pin(model, inverted), inverted[0]["samples"], noise_mask=mask)
    assert (result - IMAGE["samples"]).abs().max() < 1e-4, "a mask of everything is none"
    mask[..., :4] = 0
    with pytest.raises(
        InvalidInput, match="^Direct Inversion: the sampled latent has a noise mask.* Set Latent Noise M"
    ):
        ksampler(pin(model, inverted), inverted[0]["samples"], noise_mask=mask)


class _Weakened:
    """A guider whose predictions are changed on their way to the sampler."""

    def __init__(self, guider: Any) -> None:
        self.guider = guider

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return 0.9 * self.guider(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guider, name)


@pytest.mark.parametrize("first", [True, False], ids=["before it", "after it"])
def test_a_patch_that_is_further_out_is_named(model: Any, inverted: Any, first: bool) -> None:
    def weaken(executor: Any, guider: Any, *rest: Any) -> Tensor:
        return executor(_Weakened(guider), *rest)

    other = (model if first else pin(model, inverted)).clone()
    other.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "weakener", weaken)
    complaint = "not where it was put: another patch changes .* Direct Inversion .the MODEL has weakener.; connect"
    with pytest.raises(InvalidInput, match=complaint):
        ksampler(pin(other, inverted) if first else other, inverted[0]["samples"])
