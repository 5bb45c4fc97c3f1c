"""Models that compute in half precision give what they give in single precision, coarser, and nothing overflows."""

from typing import Any

import pytest
import torch
from torch import Tensor

from morph_pack.nodes.host.backbone import shadowed
from morph_tests.nodes import models
from morph_tests.nodes.flow_models import FAMILIES, image_for, prompt_for
from morph_tests.nodes.graph import conditioning, drag_options, latent, normal, run, sample

STEPS, START = 10, 5
SPACING = {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": START}
COARSENESS = {torch.float16: 0.01, torch.bfloat16: 0.08}  # of a result's deviation


@pytest.fixture(scope="module")
def single() -> Any:
    return models.sd1()


@pytest.fixture(scope="module", params=list(COARSENESS), ids=str)
def half(request: pytest.FixtureRequest, single: Any) -> Any:
    """Stored and computed with in half precision, as ComfyUI has models on a GPU."""
    model = models.stored_as(single, request.param)
    model.set_model_compute_dtype(request.param)
    return model


def dtype_of(model: Any) -> torch.dtype:
    with torch.inference_mode(), shadowed(model) as backbone:
        return backbone.dtype


def assert_coarsely_equal(half: Any, actual: Tensor, expected: Tensor) -> None:
    assert actual.dtype == torch.float32 and actual.isfinite().all()
    assert (actual - expected).std() < COARSENESS[dtype_of(half)] * expected.std()


def inverted(model: Any) -> dict[str, Tensor]:
    image = {"samples": latent()["samples"] / 0.18215}
    return run("DdimInvert", model=model, positive=conditioning(), latent_image=image, **SPACING)[0]


def test_the_shadow_computes_in_it(single: Any, half: Any) -> None:
    assert dtype_of(single) == torch.float32
    assert dtype_of(half) in COARSENESS


@pytest.mark.slow
def test_a_lora_is_fitted_in_single_precision(single: Any, half: Any) -> None:
    settings = {"latent": latent(), "positive": conditioning(), "rank": 2, "steps": 6, "learning_rate": 1e-3, "seed": 0}
    (lora, loss), (_, expected) = (run("FitImageLora", model=model, **settings) for model in (half, single))
    assert {value.dtype for value in lora.values()} == {torch.float32}
    assert all(value.isfinite().all() for value in lora.values())
    assert loss["loss"] == pytest.approx(expected["loss"], rel=0.1)
    up = next(value for key, value in lora.items() if "lora_up" in key)
    assert not torch.equal(up, up.to(dtype_of(half)).float())


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", COARSENESS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_fitted_in_it(family: str, dtype: torch.dtype, checkpointing: bool) -> None:
    full = FAMILIES[family]()
    coarse = models.stored_as(full, dtype)
    coarse.set_model_compute_dtype(dtype)
    settings = {"rank": 2, "steps": 4, "learning_rate": 1e-3, "seed": 0, "gradient_checkpointing": checkpointing}
    (_, loss), (_, expected) = (
        run("FitImageLora", model=model, latent=image_for(model), positive=prompt_for(model), **settings)
        for model in (coarse, full)
    )
    assert loss["loss"] == pytest.approx(expected["loss"], rel=0.1)


@pytest.mark.slow
def test_inversion_and_morph(single: Any, half: Any) -> None:
    noise = [inverted(model) for model in (half, single)]
    assert_coarsely_equal(half, noise[0]["samples"], noise[1]["samples"])
    frames = noise[1]["samples"].repeat(3, 1, 1, 1) + normal(3, 4, 8, 12)
    settings = {"alphas": (0.0, 0.5, 1.0), "strength": 1.0, "end_percent": 1.0, "blocks": "all blocks"}
    results = [
        sample(run("AttentionKVInject", model=model, **settings)[0], conditioning(), frames, STEPS, start=START)
        for model in (half, single)
    ]
    assert_coarsely_equal(half, *results)


def test_a_drag(single: Any, half: Any) -> None:
    given = {"positive": conditioning(), "latent": inverted(single), "image": torch.full((1, 64, 96, 3), 0.5)}
    given |= {"points": '[{"x": 30, "y": 30}, {"x": 50, "y": 30}]', "objective": "DragDiffusion", **SPACING}
    given["options"] = drag_options(iterations=3)
    results = [run("DragLatentOptimize", model=model, **given)[0]["samples"] for model in (half, single)]
    assert_coarsely_equal(half, *results)
    assert (results[0][1] - results[0][0]).abs().max() > 0.01
