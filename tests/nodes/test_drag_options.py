"""Drag Options reach the core; a drag tells its progress and can be cancelled."""

from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from PIL import Image

import morph_pack.nodes.drag as drag_node
from morph_pack.morph_core.dragging.latent import PUBLISHED, DragLatent, published
from morph_pack.morph_core.pictures.handle_tracks import as_image
from morph_tests.nodes.dragging import (
    NUMBERS,
    PAIRS,
    SHORT,
    assert_close,
    drag,
    half_a_mask,
    invert,
    options,
)
from morph_tests.nodes.graph import normal


@pytest.fixture(scope="module")
def inverted(model: Any) -> dict[str, Any]:
    return invert(model)


class TestOptions:
    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_without_them_it_is_as_published(self, monkeypatch: pytest.MonkeyPatch, model: Any, objective: str) -> None:
        assert configuration(monkeypatch, model, objective, None) == published(objective)
        assert configuration(monkeypatch, model, objective, options()) == published(objective)

    def test_minus_one_everywhere_gives_what_none_give(
        self, monkeypatch: pytest.MonkeyPatch, model: Any, inverted: Any
    ) -> None:
        """Of a drag that is not as long as the published one."""
        monkeypatch.setattr(drag_node, "published", lambda objective: replace(published(objective), iterations=2))
        none, some = (drag(model, inverted, options=given) for given in (None, options()))
        assert torch.equal(none.samples, some.samples) and none.tracks == some.tracks
        assert none.ways.shape == (len(PAIRS), 3, 2)

    @pytest.mark.parametrize("objective", PUBLISHED)
    def test_every_number_reaches_the_core(self, monkeypatch: pytest.MonkeyPatch, model: Any, objective: str) -> None:
        others = {name: 2 * getattr(published(objective), name) for name in NUMBERS}
        assert configuration(monkeypatch, model, objective, options(**others)) == DragLatent(objective, **others)

    @pytest.mark.parametrize("iterations", [1, 3])
    def test_iterations_are_updates(self, model: Any, inverted: Any, iterations: int) -> None:
        """A track has a place before each of them and one at the end."""
        ways = drag(model, inverted, options=options(iterations=iterations)).ways
        assert ways.shape == (len(PAIRS), iterations + 1, 2)

    @pytest.mark.parametrize("masked", [False, True], ids=["no mask", "mask"])
    def test_gradient_checkpointing_gives_the_same(
        self, monkeypatch: pytest.MonkeyPatch, model: Any, inverted: Any, masked: bool
    ) -> None:
        """And computes more: it is no switch that nothing is behind."""
        calls, mask = count_resnets(monkeypatch), half_a_mask() if masked else None
        plain = drag(model, inverted, mask=mask)
        calls_of_plain = len(calls)
        saving = drag(model, inverted, mask=mask, options=options(iterations=4, checkpointing=True))
        assert_close(saving.samples, plain.samples, 1e-4)
        assert len(calls) > 2.3 * calls_of_plain


class _Seen(Exception):
    pass


def configuration(monkeypatch: pytest.MonkeyPatch, model: Any, objective: str, given: Any) -> DragLatent:
    """What the core is asked for."""

    def catch(read: Any, schedule: Any, x: Any, sigmas: Any, points: Any, config: Any, *others: Any) -> Any:
        raise _Seen(config)

    monkeypatch.setattr(drag_node, "drag_latent", catch)
    with pytest.raises(_Seen) as seen:
        drag(model, {"samples": 3 * normal(1, 4, 8, 12)}, objective=objective, options=given)
    return seen.value.args[0]


def count_resnets(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for every residual block that is computed from now on."""
    calls: list[None] = []
    original = ResBlock.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(*args, **kwargs)

    monkeypatch.setattr(ResBlock, "forward", counted)
    return calls


class Updates(list[tuple[int, int, Any]]):
    """What the progress bar is told: value, total and preview."""

    def __init__(self) -> None:
        comfy.utils.set_progress_bar_global_hook(self)

    def __call__(self, value: int, total: int, preview: Any, **_: Any) -> None:
        self.append((value, total, preview))


@pytest.mark.parametrize("objective", PUBLISHED)
def test_progress_counts_updates_and_shows_the_way_so_far(model: Any, inverted: Any, objective: str) -> None:
    updates, numbers = Updates(), SHORT[objective]
    dragged = drag(model, inverted, objective=objective, options=options(**numbers))
    most = numbers["iterations"] * numbers.get("levels", 1)
    assert sorted({value for value, _, _ in updates}) == [*range(most + 1)]
    assert [value for value, _, _ in updates] == sorted(value for value, _, _ in updates)
    assert {total for _, total, _ in updates} == {most}
    assert all(kind == "JPEG" and isinstance(picture, Image.Image) for _, _, (kind, picture, _) in updates)
    assert all(picture.size == (512, 341) and side > 0 for _, _, (_, picture, side) in updates)
    assert torch.equal(as_image(updates[-1][2][1]), dragged.paths)


def test_it_can_be_cancelled_where_nobody_watches_the_progress(model: Any, inverted: Any) -> None:
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        drag(model, inverted)
