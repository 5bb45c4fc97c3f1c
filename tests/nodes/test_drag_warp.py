"""Drag Warp: the core's warp in ComfyUI's values, what it refuses, and what comes after it."""

from typing import Any

import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from morph_pack.morph_core.dragging.moves import Warp
from morph_pack.morph_core.dragging.points import parse_points
from morph_pack.morph_core.dragging.warp import warp_image, warp_latent
from morph_pack.nodes import NODE_CLASS_MAPPINGS
from morph_tests.nodes.dragging import drag, drag_inputs, invert, options
from morph_tests.nodes.graph import normal, run
from morph_tests.nodes.refusals import assert_says, refusal

SIZE = (48, 40)  # width and height in pixels; latents have a cell for every 4
MOVE = '{"v": 2, "points": [{"handle": [0.4, 0.5], "target": [0.5, 0.55]}], "pins": [[0.3, 0.3]]}'
LEFT, WHOLE = "what was left, and the rim", "all that moved, too"


def picture(count: int = 1) -> torch.Tensor:
    return torch.rand(count, SIZE[1], SIZE[0], 3, generator=torch.Generator().manual_seed(0))


def painted() -> torch.Tensor:
    mask = torch.zeros(1, SIZE[1], SIZE[0])
    mask[:, 8:28, 8:32] = 1
    return mask


def warped(**changes: Any) -> Any:
    known = {"image": picture(), "points": MOVE, "field": "rigid", "radius": 0.25, "repaint": LEFT, "rim": 2}
    return run("DragWarp", **{**known, **changes})


def test_it_is_the_cores_warp() -> None:
    points = parse_points(MOVE, SIZE)
    for mask in (None, painted()):
        expected = warp_image(picture().movedim(-1, 1), points, None if mask is None else mask[None], Warp())
        for repaint in (LEFT, WHOLE):
            image, to_repaint, _, paths = warped(mask=mask, repaint=repaint)
            assert torch.equal(image, expected.values.movedim(1, -1))
            assert torch.equal(to_repaint > 0, expected.to_repaint(2, whole=repaint == WHOLE)[0])
            assert paths.shape[0] == 1 and paths.shape[-1] == 3


def test_frames_move_alike_and_a_fourth_channel_is_left_out() -> None:
    frames = torch.cat([picture(3), torch.ones(3, SIZE[1], SIZE[0], 1)], dim=-1)
    together = warped(image=frames, mask=painted())[0]
    assert together.shape == (3, SIZE[1], SIZE[0], 3)
    for frame, moved in zip(picture(3), together, strict=True):
        assert torch.equal(warped(image=frame[None], mask=painted())[0][0], moved)


def test_a_latent_moves_by_cells_and_keeps_what_else_it_has() -> None:
    latent = {"samples": normal(1, 4, 10, 12), "batch_index": [3], "morph_drag_sigma": 1.5}
    moved = warped(latent=latent, mask=painted())[2]
    cells = torch.zeros(1, 1, 10, 12, dtype=torch.bool)
    cells[..., 2:7, 2:8] = True
    expected = warp_latent(latent["samples"], parse_points(MOVE, SIZE), cells)
    assert torch.equal(moved["samples"], expected.values)
    assert moved["batch_index"] == [3] and moved["morph_drag_sigma"] == 1.5
    assert torch.equal(latent["samples"], normal(1, 4, 10, 12))


def test_without_a_latent_whoever_wants_one_is_told() -> None:
    blocked = warped()[2]
    assert isinstance(blocked, ExecutionBlocker)
    assert_says(blocked.message, "^Drag Warp: ", "nothing is")


def test_without_points_it_shows_the_picture_and_nothing_runs_after_it() -> None:
    cls = NODE_CLASS_MAPPINGS["MorphDragDragWarp"].PREPARE_CLASS_CLONE({})
    given = {"image": picture(2), "points": " ", "field": "rigid", "radius": 0.25, "repaint": LEFT, "rim": 2}
    output = cls.EXECUTE_NORMALIZED(**given)
    assert output.block_execution.startswith("Drag Warp: points is empty")
    assert len(output.ui["picker_image"]) == 1


def pins(*places: tuple[float, float]) -> str:
    return MOVE.replace("[0.3, 0.3]", ", ".join(str([*place]) for place in places))


@pytest.mark.parametrize(
    ("changes", "patterns"),
    [
        ({"mask": torch.ones(1, 32, 32)}, ("^mask is white everywhere", "paint what is to move")),
        ({"mask": torch.eye(32)[None].flip(1)}, ("^points: the handle of pair 1 is outside of the mask", "paint over")),
        ({"points": '[{"x": 8, "y": 8}, {"x": 12, "y": 8}, {"x": 8, "y": 8}, {"x": 8, "y": 9}]'}, ("contradict|same",)),
        ({"depth": torch.ones(1, 16, 16, 3)}, ("^depth is 16x16, image is 32x32", "scale")),
        ({"depth": torch.ones(2, 32, 32, 3)}, ("^depth ", "batch of 2")),
        ({"field": "rigid"}, ("^depth has a meaning for the field",)),
        ({"field": "affine"}, ("^field must be one of", "affine")),
        ({"radius": 0.0}, ("^radius ",)),
        ({"rim": -1}, ("^rim ",)),
        ({"latent": {"samples": torch.zeros(1, 4, 8, 16)}}, ("32x32 pixels", "16x8 cells")),
        ({"image": torch.zeros(0, 32, 32, 3)}, ("^image ", "empty")),
    ],
)
def test_what_it_cannot_use_is_refused(model: Any, changes: dict[str, Any], patterns: tuple[str, ...]) -> None:
    assert_says(refusal(model, "DragWarp", **changes), *patterns)


def test_points_that_would_fold_the_picture_are_refused(model: Any) -> None:
    crossing = '[{"x": 8, "y": 16}, {"x": 24, "y": 16}, {"x": 24, "y": 16}, {"x": 8, "y": 16}]'
    changes = {"points": crossing, "field": "rigid", "depth": None, "mask": None}
    assert_says(refusal(model, "DragWarp", **changes), "fold the picture over itself", "cross")


def test_a_target_on_the_border_is_taken() -> None:
    image = warped(points='{"points": [{"handle": [0.5, 0.5], "target": [1, 0.5]}]}', mask=painted())[0]
    assert torch.isfinite(image).all()


def test_a_drag_that_starts_from_the_warp_begins_at_its_targets(model: Any) -> None:
    inverted = invert(model)
    given = drag_inputs(model, inverted)
    known = {"image": given["image"], "points": given["points"], "latent": inverted, "mask": None}
    start = warped(**known)[2]
    few = {"options": options(iterations=2)}
    plain, ahead = drag(model, inverted, **few), drag(model, inverted, start=start, **few)
    targets = parse_points(given["points"], SIZE_OF_DRAG).targets * torch.tensor(SIZE_OF_DRAG)
    gone = [(dragged.ways[:, 0] - targets).norm(dim=-1) for dragged in (plain, ahead)]
    assert (gone[1] < gone[0]).all()
    assert torch.equal(plain.samples[0], ahead.samples[0])


SIZE_OF_DRAG = (48, 32)
