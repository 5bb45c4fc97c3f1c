"""The recipe of an instant drag on the bundled toy model: a warp, and the steps that heal it."""

import pytest
import torch

from morph_pack.morph_core.dragging.points import DragPoints
from morph_pack.morph_core.dragging.warp import warp_image
from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.recipes.drag import drag
from morph_pack.morph_core.recipes.warp_drag import WarpDrag, WarpedImage, warp_drag
from morph_pack.morph_core.sampling.kept_outside import KeptOutside
from morph_pack.morph_core.toy.drawing import one_drawing
from morph_pack.morph_core.toy.model import IMAGE_SIZE, load_toy_model

CAPTION = "a calm purple rabbit on mint"
POINTS = DragPoints(torch.tensor([[0.5, 0.62]]), torch.tensor([[0.4, 0.6]]))


@pytest.fixture(scope="module", params=["UNet", "transformer"])
def model(request):
    return load_toy_model(request.param)


@pytest.fixture(scope="module")
def image():
    return one_drawing("rabbit", "purple", "calm", "mint", torch.Generator().manual_seed(7)).render(IMAGE_SIZE)


@pytest.fixture(scope="module")
def mask():
    mask = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    mask[..., 2:54, 12:54] = 1
    return mask


def test_without_steps_it_is_the_warp(model, image, mask):
    result = warp_drag(model, image, CAPTION, POINTS, WarpDrag(healing_steps=0), mask)
    assert torch.equal(result.dragged, warp_image(image, POINTS, mask).values)


@pytest.mark.parametrize("whole", [False, True])
def test_healing_paints_what_it_says_and_leaves_the_rest_of_the_warp_to_the_bit(model, image, mask, whole):
    stages = []
    config = WarpDrag(whole=whole)
    result = drag(model, image, CAPTION, POINTS, config, mask, lambda stage, done, total: stages.append((done, total)))
    assert isinstance(result, WarpedImage) and stages == [(step, 4) for step in range(1, 5)]
    warped = warp_image(image, POINTS, mask)
    assert torch.equal(result.repainted, warped.to_repaint(config.rim, whole))
    kept = ~result.repainted.expand_as(image)
    assert torch.equal(result.dragged[kept], warped.values[kept])
    assert (result.dragged - warped.values).abs().max() > 0.005


def test_what_is_kept_outside_comes_out_as_it_was():
    latent, x = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 5, 9] = 1  # of the cell (1, 2)
    x0 = KeptOutside(latent, mask)(x, x, torch.tensor(1.0), torch.tensor(0.5))
    changed = (x0 != latent).any(1)[0].nonzero().tolist()
    assert changed == [[1, 2]] and torch.equal(x0[..., 1, 2], x[..., 1, 2])


@pytest.mark.parametrize("settings", [{"healing_steps": -1}, {"healing_steps": 21}, {"rim": -1}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(InvalidInput, match="healing_steps must be between 0 and steps"):
        WarpDrag(**settings)
