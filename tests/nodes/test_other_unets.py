"""UNets beside those of text-to-image Stable Diffusion: whatever ComfyUI samples as one, the nodes work with."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, drag_options, latent, normal, run, sample, with_lora

KINDS = {
    "inpainting": models.inpainting,
    "SSD-1B": models.pruned,
    "CosXL": models.cosxl,
    "Playground 2.5": models.playground,
}
STEPS = 40
STARTS = {"inpainting": 34, "SSD-1B": 34, "CosXL": 20, "Playground 2.5": 20}  # random networks are rough: a short way
SIZE = (8, 12)
FIT = {"rank": 4, "steps": 30, "seed": 0}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(kind: str) -> Any:
    return KINDS[kind]()


@pytest.fixture(scope="module")
def spacing(kind: str) -> dict[str, Any]:
    return {"steps": STEPS, "scheduler": "ddim_uniform", "start_at_step": STARTS[kind]}


@pytest.fixture(scope="module")
def prompt() -> Any:
    """With pooled text, and a picture and mask as InpaintModelConditioning gives them: each model takes its part."""
    return conditioning(
        pooled_output=normal(1, models.POOLED_WIDTH, seed=7),
        concat_latent_image=normal(1, 4, *SIZE, seed=9),
        concat_mask=torch.ones(1, 1, *(8 * side for side in SIZE)),
    )


@pytest.fixture(scope="module")
def image(model: Any) -> dict[str, Tensor]:
    """Of unit variance where the model takes it."""
    latent_format = model.get_model_object("latent_format")
    return {"samples": latent_format.process_out(latent(size=SIZE)["samples"])}


@pytest.fixture(scope="module")
def fitted(model: Any, prompt: Any, image: dict[str, Tensor]) -> Any:
    return run("FitImageLora", model=model, latent=image, positive=prompt, learning_rate=0.01, **FIT)


@pytest.fixture(scope="module")
def inverted(model: Any, prompt: Any, image: dict[str, Tensor], spacing: dict[str, Any]) -> dict[str, Tensor]:
    given = {"model": model, "positive": prompt, "latent_image": image, **spacing}
    return run("DdimInvert", **given, fixed_point_iterations=20)[0]


def test_what_is_inverted_is_sampled_back(
    model: Any, prompt: Any, image: dict[str, Tensor], inverted: dict[str, Tensor], spacing: dict[str, Any]
) -> None:
    noise = inverted["samples"]
    back = sample(model, prompt, noise, STEPS, start=spacing["start_at_step"])
    assert (noise - image["samples"]).std() > 0.05 * image["samples"].std()
    assert (back - image["samples"]).std() < 1e-3 * (noise - image["samples"]).std()


def test_a_lora_is_learnt_and_read_whole(
    model: Any, prompt: Any, image: dict[str, Tensor], fitted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """At the noises that both see, the loss is lower where something was learnt; Load LoRA Model uses every key."""
    lora, learnt = fitted
    _, unlearnt = run("FitImageLora", model=model, latent=image, positive=prompt, learning_rate=1e-7, **FIT)
    assert sum(learnt["loss"][15:]) < 0.995 * sum(unlearnt["loss"][15:])
    with caplog.at_level(logging.WARNING):
        patched = with_lora(model, lora)
    unused = [record.message for record in caplog.records if "not loaded" in record.message]  # others speak here too
    assert not unused and len(patched.patches) == len(lora) // 3


def test_a_blended_lora_is_the_merged_one(model: Any, prompt: Any, fitted: Any) -> None:
    lora, _ = fitted
    other = {name: -weight if "lora_up" in name else weight for name, weight in lora.items()}
    (blend,) = run("LoraBlend", model=model, start=lora, end=other, alphas=(0.0, 1.0))
    noise = normal(2, 4, *SIZE)
    rows = sample(blend, prompt, noise, 2)
    for row, weights in enumerate((lora, other)):
        merged = sample(with_lora(model, weights), prompt, noise, 2)
        torch.testing.assert_close(rows[row], merged[row], rtol=0, atol=2e-5 * float(merged.abs().max()))
        assert (rows[1 - row] - merged[1 - row]).abs().max() > 1e-3 * merged.abs().max()


def test_the_ends_of_an_injected_morph_are_plain(model: Any, prompt: Any) -> None:
    settings = {"strength": 1.0, "end_percent": 1.0, "blocks": "all blocks"}
    (injected,) = run("AttentionKVInject", model=model, alphas=(0.0, 0.5, 1.0), **settings)
    noise = normal(3, 4, *SIZE)
    actual, plain = sample(injected, prompt, noise, 2), sample(model, prompt, noise, 2)
    torch.testing.assert_close(actual[[0, 2]], plain[[0, 2]], rtol=0, atol=1e-6 * float(plain.abs().max()))
    assert (actual[1] - plain[1]).abs().max() > 1e-4 * plain.abs().max()


def test_a_drag_moves_only_its_row(
    model: Any, prompt: Any, inverted: dict[str, Tensor], spacing: dict[str, Any]
) -> None:
    dragged, *_ = run(
        "DragLatentOptimize",
        **{"model": model, "positive": prompt, "latent": inverted, "image": torch.full((1, 64, 96, 3), 0.5)},
        **{"points": '[{"x": 30, "y": 30}, {"x": 50, "y": 30}]', "objective": "DragDiffusion", **spacing},
        options=drag_options(iterations=3),
    )
    original, moved = dragged["samples"]
    torch.testing.assert_close(original, inverted["samples"][0], rtol=0, atol=1e-5 * float(original.abs().max()))
    assert (moved - original).abs().max() > 1e-3 * original.abs().max()
