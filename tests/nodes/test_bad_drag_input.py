"""What Drag Latent Optimize and Drag Options cannot use is refused: points, masks, pictures, latents, numbers."""

import json
from dataclasses import fields
from typing import Any

import pytest
import torch

from morph_pack.morph_core.dragging.latent import DragLatent
from morph_tests.nodes.graph import conditioning, latent, sample
from morph_tests.nodes.refusals import assert_says, execute, refusal

NAN = float("nan")
DRAG_NUMBERS = [field.name for field in fields(DragLatent) if field.name != "objective"]

HUGE = 10**400
DEEP = 100_000
POINTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "odd": ('[{"x": 1, "y": 1}, {"x": 9, "y": 1}, {"x": 1, "y": 9}]', ("3 points", "odd number", "its target")),
    "handle is target": ('[{"x": 1, "y": 1}, {"x": 1, "y": 1}]', ("pair 1", "same place", "move or remove")),
    "handle outside": ('[{"x": -1, "y": 1}, {"x": 9, "y": 1}]', ("handle of pair 1", "outside the image")),
    "target outside": ('[{"x": 1, "y": 1}, {"x": 9, "y": 33}]', ("target of pair 1", "outside the image")),
    "share outside": ('{"points": [{"handle": [0, 0], "target": [1.5, 0]}]}', ("target of pair 1", "outside")),
    "NaN": ('[{"x": NaN, "y": 1}, {"x": 9, "y": 1}]', ("point 1", "numbers", "nan")),
    "NaN as a share": ('{"points": [{"handle": [NaN, 0], "target": [1, 0]}]}', ("handle of pair 1", "numbers", "nan")),
    "infinite": ('[{"x": 1, "y": 1}, {"x": -Infinity, "y": 1}]', ("point 2", "numbers", "inf")),
    "above all floats": ('[{"x": 1e999, "y": 1}, {"x": 9, "y": 1}]', ("point 1", "numbers", "inf")),
    "above all numbers": (f'[{{"x": {HUGE}, "y": 1}}, {{"x": 9, "y": 1}}]', ("point 1", "numbers", "1000")),
    "more digits than Python reads": (f'[{{"x": {"9" * 9999}}}]', ("not JSON|numbers",)),
    "texts": ('[{"x": "1", "y": 1}, {"x": 9, "y": 1}]', ("point 1", "numbers", "'1'")),
    "booleans": ('[{"x": true, "y": 1}, {"x": 9, "y": 1}]', ("point 1", "numbers", "True")),
    "numbers only": ("[1, 2, 3, 4]", ("point 1", "x and y")),
    "one coordinate": ('{"points": [{"handle": [0.5], "target": [0, 0]}]}', ("handle of pair 1", r"\[x, y\]")),
    "three coordinates": ('{"points": [{"handle": [0, 0], "target": [1, 1, 1]}]}', ("target of pair 1", r"\[x, y\]")),
    "no target": ('{"points": [{"handle": [0, 0]}]}', ("handle of pair 1 has no target", "place it or remove")),
    "no handle": ('{"points": [{"target": [0, 0]}]}', ("handle of pair 1", "None")),
    "no pairs": ('{"points": [null]}', ("pair 1", "handle and a target")),
    "an empty list": ("[]", ("empty", "pick a handle")),
    "an empty object": ("{}", ("must be JSON like", "handle", "target")),
    "points that are none": ('{"v": 1, "points": {"handle": [0, 0]}}', ("must be JSON like",)),
    "a number": ("7", ("must be JSON like",)),
    "null": ("null", ("must be JSON like",)),
    "another version": ('{"v": 3, "points": []}', ("version 3", "update")),
    "a pin outside": (
        '{"v": 2, "points": [{"handle": [0, 0], "target": [1, 0]}], "pins": [[0.5, 2]]}',
        ("pin 1", "outside"),
    ),
    "pins that are none": ('{"v": 2, "points": [{"handle": [0, 0], "target": [1, 0]}], "pins": 1}', ("pins must be",)),
    "pins alone": ('{"v": 2, "points": [], "pins": [[0.5, 0.5]]}', ("empty", "pick a handle")),
    "a long version": (json.dumps({"v": "x" * 10_000, "points": []}), ("version 'xxx", "update")),
    "no JSON": ("here, then there", ("not JSON", "pick the points anew")),
    "Python": ("[{'x': 1, 'y': 1}]", ("not JSON", "pick the points anew")),
    "half of it": ('[{"x": 1, "y"', ("not JSON", "pick the points anew")),
    "deep lists": ("[" * DEEP, ("not JSON", "pick the points anew")),
    "deep objects": ('{"a":' * DEEP, ("not JSON", "pick the points anew")),
    "a deep list that is JSON": ("[" * 300 + "]" * 300, ("point 1", "x and y")),
    "a deep coordinate": ('{"points": [{"handle": %s, "target": [0, 0]}]}' % ("[" * 300 + "]" * 300), ("pair 1",)),
    "very long": (f"[{' ' * 2_000_000}]", ("2000002 characters", "far less")),
    "too many": (json.dumps([{"x": 1 + i % 2, "y": 1} for i in range(2002)]), ("1001 pairs", "at most 1000")),
}


@pytest.mark.parametrize("node", ["DragLatentOptimize", "DragWarp"])
@pytest.mark.parametrize("kind", POINTS)
def test_points(model: Any, kind: str, node: str) -> None:
    points, patterns = POINTS[kind]
    message = refusal(model, node, points=points)
    assert_says(message, "^points", *patterns)
    assert len(message) < 500


@pytest.mark.parametrize("node", ["DragLatentOptimize", "DragWarp"])
@pytest.mark.parametrize("points", [None, 7, [{"x": 1, "y": 1}]], ids=["None", "number", "list"])
def test_points_that_are_no_text(model: Any, points: Any, node: str) -> None:
    """Values of links may be anything."""
    assert_says(refusal(model, node, points=points), "^points must be text")


def spotted(value: float) -> torch.Tensor:
    mask = torch.zeros(1, 32, 32)
    mask[0, 3, 3] = value
    return mask


@pytest.mark.parametrize(
    ("mask", "patterns"),
    [
        (torch.ones(1, 64, 64), ("64x64", "32x32", "of the image's size")),
        (torch.ones(1, 32, 48), ("48x32", "32x32", "of the image's size")),
        (torch.ones(2, 32, 32), ("batch of 2", "one mask")),
        (torch.full((1, 32, 32), NAN), ("NaN", "check the node that made it")),
        (spotted(NAN), ("NaN", "check the node that made it")),
        (spotted(float("inf")), ("infinite", "check the node that made it")),
    ],
    ids=["another size", "another shape", "batch", "NaN", "one NaN", "infinite"],
)
@pytest.mark.parametrize("node", ["DragLatentOptimize", "DragWarp"])
def test_masks(model: Any, mask: Any, patterns: tuple[str, ...], node: str) -> None:
    assert_says(refusal(model, node, mask=mask), "^mask ", *patterns)


@pytest.mark.parametrize(
    ("image", "patterns"),
    [
        (torch.zeros(1, 32, 48, 3), ("48x32 pixels", "8x8 cells", "the image that was encoded")),
        (torch.zeros(1, 4, 4, 3), ("4x4 pixels", "8x8 cells", "the image that was encoded")),
        (torch.zeros(2, 32, 32, 3), ("one picture", "batch of 2", "ImageFromBatch")),
        (torch.zeros(0, 32, 32, 3), ("is empty", r"\(0, 32, 32, 3\)")),
        (torch.full((1, 32, 32, 3), NAN), ("NaN", "check the node that made it")),
        (torch.zeros(1, 32, 32), ("must be an IMAGE", r"\(1, 32, 32\)")),
        (torch.zeros(1, 32, 32, 1), ("must be an IMAGE", r"\(1, 32, 32, 1\)")),
    ],
    ids=["another aspect", "tiny", "batch", "empty batch", "NaN", "mask", "grey"],
)
def test_images(model: Any, image: Any, patterns: tuple[str, ...]) -> None:
    assert_says(refusal(model, "DragLatentOptimize", image=image), "^image ", *patterns)


def test_images_when_there_are_no_points_yet(model: Any) -> None:
    """The picker is shown none that cannot be used."""
    batch = torch.zeros(2, 32, 32, 3)
    assert_says(refusal(model, "DragLatentOptimize", image=batch, points=""), "^image ", "batch of 2")


def inverted(model: Any, start_at_step: int) -> Any:
    noise, *_ = execute(model, "DdimInvert", steps=10, start_at_step=start_at_step)
    return noise


@pytest.mark.parametrize(("start", "told"), [(3, 2), (3, 4), (3, 9), (5, 0), (0, 1)])
def test_a_latent_inverted_to_another_step(model: Any, start: int, told: int) -> None:
    message = refusal(model, "DragLatentOptimize", latent=inverted(model, start), start_at_step=told)
    assert_says(message, "^latent ", rf"start_at_step {told}\b", "as in DDIM Invert")


def test_a_latent_inverted_with_other_steps_or_another_scheduler(model: Any) -> None:
    for change in ({"steps": 12}, {"scheduler": "karras"}):
        message = refusal(model, "DragLatentOptimize", latent=inverted(model, 3), **change)
        assert_says(message, "^latent ", "start_at_step 3", "steps, scheduler and start_at_step")


def test_a_latent_that_was_not_inverted(model: Any) -> None:
    """From VAE Encode; from KSampler, whose output still says what its input was inverted to; an empty one."""
    noise = inverted(model, 3)
    sampled = {**noise, "samples": sample(model, conditioning(), noise["samples"], 10, start=3)}
    for clean in (latent(size=(8, 8)), sampled, {"samples": torch.zeros(1, 4, 8, 8)}):
        message = refusal(model, "DragLatentOptimize", latent=clean)
        assert_says(message, "^latent is not at start_at_step 3", "deviation", "connect DDIM Invert's output")


@pytest.mark.parametrize("start_at_step", [10, 11, 998])
def test_dragging_after_the_last_step(model: Any, start_at_step: int) -> None:
    message = refusal(model, "DragLatentOptimize", start_at_step=start_at_step)
    assert_says(message, r"^start_at_step must be below steps \(10\)", f"got {start_at_step}")


def test_more_levels_than_steps_remain(model: Any) -> None:
    changes = {"latent": inverted(model, 4), "start_at_step": 4, "objective": "GoodDrag"}
    assert_says(refusal(model, "DragLatentOptimize", **changes), "^levels is 7", "6 sampling steps remain")


MAY_BE_ZERO = {"motion_radius", "mask_weight"}


@pytest.mark.parametrize("name", DRAG_NUMBERS)
def test_drag_options_out_of_range(model: Any, name: str) -> None:
    """Values of links are not validated by ComfyUI."""
    for value in (-2, NAN) if name in MAY_BE_ZERO else (-2, NAN, 0):
        assert_says(refusal(model, "DragOptions", **{name: value}), f"^{name} must", str(value))


@pytest.mark.parametrize("options", [{}, 5, "published"])
def test_drag_options_of_another_making(model: Any, options: Any) -> None:
    assert_says(refusal(model, "DragLatentOptimize", options=options), "^options must come from Drag Options")


@pytest.mark.parametrize(
    ("start", "patterns"),
    [
        ({"samples": 3 * torch.ones(1, 4, 8, 6)}, (r"\(1, 4, 8, 6\)", r"\(1, 4, 8, 8\)", "Drag Warp")),
        ({"samples": torch.zeros(1, 4, 8, 8)}, ("is not at start_at_step 3", "deviation")),
        ({"samples": torch.zeros(2, 4, 8, 8)}, ("one image", "batch of 2")),
    ],
    ids=["another size", "another noise level", "batch"],
)
def test_starts(model: Any, start: Any, patterns: tuple[str, ...]) -> None:
    assert_says(refusal(model, "DragLatentOptimize", start=start), "^start ", *patterns)
