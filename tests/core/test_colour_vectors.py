"""Picker and picture of the way give a pair one colour: each of the vectors, which the JavaScript tests read too."""

import json
from pathlib import Path

import pytest

from morph_pack.morph_core.pictures.handle_tracks import colour_of

VECTORS = json.loads((Path(__file__).parents[1] / "colour_vectors.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS["colours"], ids=lambda vector: str(vector["index"]))
def test_the_picture_of_the_way_has_the_vectors_colours(vector):
    assert list(colour_of(vector["index"])) == vector["rgb"]
