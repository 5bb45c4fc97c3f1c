"""Drags of toy drawings, from the picture to its rows."""

import math
from typing import Any, NamedTuple

import nodes
import pytest
import torch
from torch import Tensor

from morph_pack.morph_core.dragging.latent import PUBLISHED
from morph_tests.nodes.dragging import (
    KV_INJECT,
    NOSE,
    SHORT,
    SPACING,
    STEPS,
    Dragged,
    as_text,
    drag,
    options,
)
from morph_tests.nodes.graph import run, sample

pytestmark = pytest.mark.slow  # drags of whole drawings


class Drawing(NamedTuple):
    """A toy drawing: IMAGE, CONDITIONING of its caption, and LATENT."""

    image: Tensor
    prompt: Any
    latent: dict[str, Any]


@pytest.fixture(scope="module")
def drawing(toy: tuple[Any, Any, Any]) -> Drawing:
    return make_drawing(toy, "cat", 1)


def make_drawing(toy: tuple[Any, Any, Any], animal: str, seed: int, **look: str) -> Drawing:
    look = {"colour": "red", "mood": "happy", "background": "mint", **look}
    image, caption = run("ToyDrawing", animal=animal, seed=seed, **look)
    with torch.inference_mode():
        (prompt,) = nodes.CLIPTextEncode().encode(toy[1], caption)
        (encoded,) = nodes.VAEEncode().encode(toy[2], image)
    return Drawing(image, prompt, encoded)


def drag_drawing(model: Any, drawing: Drawing, **changes: Any) -> Dragged:
    """Its nose, unless told otherwise."""
    spacing = {name: changes.pop(name, value) for name, value in SPACING.items()}
    noise, *_ = run("DdimInvert", model=model, positive=drawing.prompt, latent_image=drawing.latent, **spacing)
    own = {"positive": drawing.prompt, "image": drawing.image, "points": as_text([(NOSE, (40, 40))])}
    return drag(model, noise, **{**own, **spacing, **changes})


def psnr(one: Tensor, other: Tensor) -> float:
    return -10 * math.log10((one - other).square().mean().item())


@pytest.mark.parametrize("objective", PUBLISHED)
def test_the_first_row_becomes_the_image_again(toy: Any, drawing: Drawing, objective: str) -> None:
    """As the autoencoder gives it back; the second one does not."""
    model, _, vae = toy
    numbers = {"learning_rate": 0.03, **SHORT[objective]}
    dragged = drag_drawing(model, drawing, objective=objective, options=options(**numbers))
    (patched,) = run("AttentionKVInject", model=model, **KV_INJECT)
    rows = sample(patched, drawing.prompt, dragged.samples, STEPS, start=dragged.next_step)
    with torch.inference_mode():
        (known,) = nodes.VAEDecode().decode(vae, drawing.latent)
        (pictures,) = nodes.VAEDecode().decode(vae, {"samples": rows})
    assert psnr(pictures[:1], known) > 40
    assert psnr(pictures[1:], known) < psnr(pictures[:1], known) - 2


@pytest.mark.parametrize(
    ("objective", "numbers"),
    [("DragDiffusion", {"iterations": 12}), ("GoodDrag", {"iterations": 6, "levels": 2})],
)
def test_the_handle_comes_nearer_to_its_target(
    model: Any, drawing: Drawing, objective: str, numbers: dict[str, Any]
) -> None:
    target = (NOSE[0], NOSE[1] + 5)
    changes = {
        "points": as_text([(NOSE, target)]),
        "objective": objective,
        "options": options(learning_rate=0.05, **numbers),
    }
    (way,) = drag_drawing(model, drawing, **changes).ways
    left = (way - torch.tensor(target)).norm(dim=-1)
    assert left[-1] < 0.7 * left[0]


@pytest.mark.parametrize(("steps", "start"), [(10, 3), (50, 15), (50, 40)])
def test_the_latents_of_drawings_are_at_the_step_they_were_inverted_to(
    model: Any, drawing: Drawing, steps: int, start: int
) -> None:
    changes = {"steps": steps, "start_at_step": start, "options": options(iterations=1)}
    assert drag_drawing(model, drawing, **changes).next_step == start


def test_so_are_those_that_the_model_inverts_to_little_variance(toy: Any) -> None:
    rabbit = make_drawing(toy, "rabbit", 1, colour="blue", mood="sad", background="sand")
    assert drag_drawing(toy[0], rabbit, start_at_step=0, options=options(iterations=1)).next_step == 0
