"""Morph Report: the core's report of what comes in, and nothing of what does not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.morphing.report import Report, morph_report
from morph_pack.morph_core.pictures.perceptual_curve import COLOURS, SIZE, plot_passes
from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_tests.nodes.graph import run
from morph_tests.nodes.refusals import assert_says, refusal

METRIC = "laplacian pyramid"


def greys(*levels: float) -> Tensor:
    """Images (F, H, W, 3), 0.2 of a step's difference apart."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 64, 64, 3)


def report(images: Tensor, **others: Any) -> tuple[str, Tensor]:
    text, plot = run("MorphReport", **{"images": images, "metric": METRIC, "closed": False, **others})
    return text, plot


def test_the_text_is_the_cores() -> None:
    images, alphas = greys(0.0, 0.1, 0.8, 0.9), (0.0, 0.4, 0.41, 1.0)
    text, _ = report(images, alphas=alphas, start_image=images[:1], end_image=greys(1.0), closed=True)
    frames = images.movedim(-1, 1)
    expected = morph_report(frames, METRIC, alphas, frames[:1], torch.ones(1, 3, 64, 64), closed=True)
    assert text == expected.text()
    assert_says(text, r"at once at 0\.405 \(39 % of the path\)", "closed", "end_image by up to 0.1")


def test_the_plot_is_of_both_passes_as_they_were_measured() -> None:
    uneven, first = greys(0.0, 0.1, 0.2, 0.9), greys(0.0, 0.6, 0.9)
    text, plot = report(uneven, first_pass=first)
    passes = {
        "images": Report((0.02, 0.02, 0.14)),
        "first pass": Report((0.12, 0.06)),
    }
    assert torch.equal(plot[:, : SIZE[1]], plot_passes(passes))
    assert not torch.equal(report(uneven, first_pass=first.flip(0))[1][:, : SIZE[1]], plot[:, : SIZE[1]])
    assert_says(text, "Path length 0.18 .*3 steps", "\nFirst pass: Path length 0.18 .*2 steps")
    alone = report(uneven)[1]
    assert not ((alone * 255).round().int() == torch.tensor(COLOURS[1])).all(-1).any()


def test_both_are_shown_on_the_node() -> None:
    cls = NODE_CLASS_MAPPINGS["MorphDragMorphReport"].PREPARE_CLASS_CLONE({})
    with torch.inference_mode():
        output = cls.EXECUTE_NORMALIZED(images=greys(0.0, 0.5), metric=METRIC, closed=False)
    assert output.ui["text"] == (output.result[0],)
    assert len(output.ui["images"]) == 1
    assert cls.GET_SCHEMA().is_output_node


@pytest.mark.parametrize("alphas", [[0.0, 1.0, 2.0], [1.0, 0.5, 0.0], torch.tensor([0.0, 1.0, 0.0]), (0, 0, 0)])
def test_alphas_may_be_any_places(alphas: Any) -> None:
    assert report(greys(0.0, 0.5, 0.6), alphas=alphas)[0].startswith("Path length 0.12")


def test_a_fourth_channel_is_no_colour() -> None:
    images = greys(0.0, 0.5)
    with_mask = torch.cat([images, torch.rand(2, 64, 64, 1)], -1)
    assert report(with_mask, start_image=with_mask[:1])[0] == report(images, start_image=images[:1])[0]


@pytest.mark.parametrize(
    ("changes", "patterns"),
    [
        ({"images": greys(0.0)}, ("^images", "at least 2")),
        ({"images": greys(0.0, float("nan"))}, ("^images", "NaN")),
        ({"first_pass": greys(0.0)}, ("^first_pass", "at least 2")),
        ({"alphas": (0.0, 1.0)}, ("3 frames", "alphas has 2")),
        ({"alphas": (0.0, float("nan"), 1.0)}, ("^alphas must be finite",)),
        ({"alphas": "011"}, ("^alphas must be one number a frame",)),
        ({"start_image": greys(0.0, 1.0)}, ("^start_image must hold one picture",)),
        ({"end_image": greys(0.0)}, ("^end_image must be one picture of the frames' size", "scale it")),
    ],
    ids=["one frame", "NaN", "one frame before", "alphas", "NaN alpha", "text", "two starts", "size"],
)
def test_what_it_refuses(model: Any, changes: dict[str, Any], patterns: tuple[str, ...]) -> None:
    assert_says(refusal(model, "MorphReport", **changes), *patterns)
