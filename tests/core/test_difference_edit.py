"""The recipe on the bundled toy model: a cat becomes a rabbit by the difference of two prompts."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.errors import InvalidInput
from morph_pack.morph_core.lora.fit import LoraFit
from morph_pack.morph_core.recipes.difference_edit import DifferenceEdit, edit_prepared_by_difference
from morph_pack.morph_core.recipes.edit import edit
from morph_pack.morph_core.recipes.image import prepare_image
from morph_pack.morph_core.sampling.flow_edit import FlowEdit, flow_edit
from morph_pack.morph_core.sampling.guidance import guided_denoiser
from morph_pack.morph_core.sampling.schedule import ddim_sigmas
from morph_pack.morph_core.sampling.uni_edit import UniEdit, uni_edit
from morph_pack.morph_core.toy.drawing import one_drawing
from morph_pack.morph_core.toy.model import IMAGE_SIZE, load_toy_model

SOURCE, EDITED = "a calm blue cat on mint", "a calm blue rabbit on mint"
SHORT = DifferenceEdit(FlowEdit(seed=3), steps=5, source_guidance=1.5, edited_guidance=3.0)
SHORT_UNI = DifferenceEdit(UniEdit(omega=2.0), steps=5, source_guidance=1.0, edited_guidance=1.0)


@pytest.fixture(scope="module")
def model():
    return load_toy_model()


@pytest.fixture(scope="module")
def image():
    drawing = one_drawing("cat", "blue", "calm", "mint", torch.Generator().manual_seed(3))
    return drawing.render(IMAGE_SIZE)


@torch.no_grad()
@pytest.mark.parametrize("config", [SHORT, SHORT_UNI], ids=["FlowEdit", "Uni-Edit"])
def test_the_recipe_is_its_parts_put_together(model, image, config):
    source, target, empty = (model.backbone.denoiser(model.encode_text([text])) for text in (SOURCE, EDITED, ""))
    source = guided_denoiser(empty, source, config.source_guidance)
    target = guided_denoiser(empty, target, config.edited_guidance)
    method = flow_edit if config is SHORT else uni_edit
    latent, sigmas = model.encode_images(image), ddim_sigmas(model.backbone.schedule.sigmas, 5)
    expected = method(source, target, latent, sigmas, model.backbone.schedule, config.method)
    stages = []
    result = edit(model, image, SOURCE, EDITED, config, lambda *stage: stages.append(stage))
    torch.testing.assert_close(result.edited, model.decode_latents(expected))
    torch.testing.assert_close(result.source, model.decode_latents(latent))
    assert (result.edited - result.source).abs().max() > 0.05
    assert {name for name, *_ in stages} == {"sampling"} and stages[-1][1] == stages[-1][2]


def test_the_same_prompt_twice_is_no_edit(model, image):
    result = edit(model, image, SOURCE, SOURCE, replace(SHORT, edited_guidance=SHORT.source_guidance))
    assert torch.equal(result.edited, result.source)


def test_a_lora_of_the_image_is_used(model, image):
    prepared = prepare_image(model, image, SOURCE, LoraFit(rank=2, steps=2, learning_rate=1e-2))
    pictures = [
        edit_prepared_by_difference(model, one, EDITED, SHORT_UNI).edited
        for one in (prepared, replace(prepared, lora={}))
    ]
    assert (pictures[0] - pictures[1]).abs().max() > 0.01


def test_what_cannot_be_used_is_refused():
    with pytest.raises(InvalidInput, match="method must be a FlowEdit or a UniEdit, got 'FlowEdit'"):
        DifferenceEdit("FlowEdit")
    with pytest.raises(InvalidInput, match="of 5 steps a strength of 0.05 edits in none; raise either"):
        DifferenceEdit(UniEdit(0.05), steps=5)
