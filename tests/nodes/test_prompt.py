"""What the UNet is called with is what ComfyUI makes of a CONDITIONING."""

import logging
from typing import Any

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.nodes.host.prompt import read_prompt
from morph_tests.nodes import models
from morph_tests.nodes.graph import conditioning, latent, normal
from morph_tests.nodes.test_shadow import POOLED, assert_same_output, through_comfyui, through_shadow


def test_sdxl_is_told_the_sizes_in_the_conditioning() -> None:
    """CLIP Text Encode SDXL's width, height and crop; without them the latent's own size."""
    model, x, sigma = models.sdxl(), normal(1, 4, 8, 12), torch.tensor(1.0)
    outputs = {}
    for name, sizes in {
        "none": {},
        "latent's": {"width": 96, "height": 64},
        "swapped": {"width": 64, "height": 96},
        "cropped": {"crop_w": 32},
        "target": {"target_width": 512},
    }.items():
        positive = conditioning(**POOLED, **sizes)
        outputs[name] = through_shadow(model, x, sigma, positive)
        assert_same_output(outputs[name], through_comfyui(model, x, sigma, positive), x)
    assert torch.equal(outputs["none"], outputs["latent's"])
    for name in ("swapped", "cropped", "target"):
        assert (outputs[name] - outputs["none"]).abs().max() > 1e-3, name


def test_a_prompt_of_another_models_clip_is_refused() -> None:
    x = latent(size=(8, 8))["samples"]
    for positive, complaint in (
        (conditioning(), "positive has no pooled_output; encode the prompt"),
        (conditioning(pooled_output=normal(1, 10)), "makes a vector 1546 wide, model takes 1600; encode the prompt"),
        ([[normal(1, 8, 10), POOLED]], "positive is 10 wide, model takes 64; encode the prompt"),
    ):
        with torch.inference_mode(), pytest.raises(InvalidInput, match=complaint):
            read_prompt(models.sdxl(), positive, "positive", x)


@pytest.mark.parametrize("carried", [{"control": None}, {"area": (1, 1, 0, 0)}, {"strength": 0.5}, {"mask": None}])
def test_what_has_no_effect_in_optimising_is_said(
    model: Any, caplog: pytest.LogCaptureFixture, carried: dict[str, Any]
) -> None:
    x = latent(size=(8, 8))["samples"]
    with caplog.at_level(logging.WARNING):
        read_prompt(model, conditioning(**POOLED, width=64), "positive", x).to(x.device)
        prompt = read_prompt(model, conditioning(**carried), "positive", x)
        assert not caplog.records, "the nodes that sample honour it"
        prompt.to(x.device)
    (record,) = caplog.records
    assert f"carries {next(iter(carried))}, which has no effect in this node" in record.message
