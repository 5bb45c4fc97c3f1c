"""Layouts of drawings, matched by the toy model's own features; where the parts of a face are is known."""

from dataclasses import replace

import pytest
import torch

from morph_pack.morph_core.dragging.backward import pixel_middles
from morph_pack.morph_core.errors import UnsupportedModel
from morph_pack.morph_core.matching.bilinear import read_between
from morph_pack.morph_core.matching.descriptors import MOST_TOKENS, descriptors
from morph_pack.morph_core.models.text import Text
from morph_pack.morph_core.recipes.image import PreparedImage
from morph_pack.morph_core.recipes.layouts import aligned_ends
from morph_pack.morph_core.toy.drawing import FACTORS, Drawings, landmarks, one_drawing
from morph_pack.morph_core.toy.model import IMAGE_SIZE, load_toy_model

LAYOUTS = {
    "low left": {"x": 0.43, "y": 0.64, "size": 0.24, "tilt": -0.2},
    "high right": {"x": 0.57, "y": 0.55, "size": 0.28, "tilt": 0.2},
}


@pytest.fixture(scope="module")
def toy():
    return load_toy_model()


def drawing(layout, kind="cat"):
    drawn = one_drawing(kind, "red", "happy", "mint", torch.Generator().manual_seed(0))
    factors = drawn.factors.clone()
    for name, value in LAYOUTS[layout].items():
        factors[:, FACTORS.index(name)] = value
    return replace(drawn, factors=factors)


def prepared(model, drawn: Drawings):
    return PreparedImage(
        model.encode_images(drawn.render(IMAGE_SIZE)), Text(model.encode_text(drawn.captions).context), {}
    )


def distances(matches, start, end):
    """Of the parts of the face from where they belong, and how far they have to go; pixels of 64."""
    places = [torch.cat(list(landmarks(one.kinds, one.factors).values())).double() for one in (start, end)]
    found = read_between(matches.start_to_end.movedim(-1, 0), 16 * places[0]).mT / 16
    return [IMAGE_SIZE * (places[1] - one).norm(dim=-1) for one in (found, places[0])]


def test_an_image_is_matched_with_itself_where_it_is(toy):
    image = prepared(toy, drawing("low left"))
    matches = aligned_ends(toy, image, image).matches
    assert matches.size == (16, 16)
    assert (matches.start_to_end - pixel_middles((16, 16))).norm(dim=-1).max() < 0.25


@pytest.mark.parametrize(("first", "second"), [("low left", "high right"), ("high right", "low left")])
def test_a_face_that_was_moved_turned_and_scaled_is_found(toy, first, second):
    start, end = drawing(first), drawing(second)
    matches = aligned_ends(toy, prepared(toy, start), prepared(toy, end)).matches
    left, moved = distances(matches, start, end)
    assert moved.mean() > 9 and left.mean() < 2.5
    assert matches.least_jacobian > 0


def test_another_animal_s_face_is_found(toy):
    start, end = drawing("low left"), drawing("high right", "bear")
    matches = aligned_ends(toy, prepared(toy, start), prepared(toy, end)).matches
    eyes_and_nose = slice(0, 3)
    assert distances(matches, start, end)[0][eyes_and_nose].mean() < 3


def test_large_latents_have_no_more_tokens_than_can_be_matched(toy):
    latent = torch.randn(1, 4, 96, 80, generator=torch.Generator().manual_seed(0))
    features = descriptors(toy.backbone, Text(toy.encode_text([""]).context), latent, noises=1)
    assert features.shape[1:] == (48, 40) and 48 * 40 <= MOST_TOKENS


def test_a_transformer_has_no_features_to_match_by():
    flow = load_toy_model("transformer")
    image = PreparedImage(torch.zeros(1, 4, 16, 16), flow.encode_text(["a happy red cat on mint"]), {})
    with pytest.raises(UnsupportedModel, match="leave the matching out"):
        aligned_ends(flow, image, image)
