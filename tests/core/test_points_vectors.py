"""Node and picker read the same points: each text of the vectors, which the JavaScript tests read too."""

import json
from pathlib import Path

import pytest
import torch

from morph_pack.morph_core.dragging.points import parse_points
from morph_pack.morph_core.errors import InvalidInput

VECTORS = json.loads((Path(__file__).parents[1] / "points_vectors.json").read_text(encoding="utf-8"))
CASES = [*VECTORS["cases"], *VECTORS["pinned"]]
BY_NAME = {case["name"]: case for case in CASES}


def test_every_vector_has_its_own_name_and_an_outcome():
    assert len(BY_NAME) == len(CASES)
    assert {case["becomes"] for case in VECTORS["cases"]} == {"pairs", "nothing", "unfinished", "refused"}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_node_reads_what_the_vectors_say(name):
    case = BY_NAME[name]
    if case["becomes"] == "pairs":
        points = parse_points(case["text"], VECTORS["size"])
        expected = torch.tensor(case["pairs"], dtype=torch.float32)
        torch.testing.assert_close(torch.stack([points.handles, points.targets], 1), expected, rtol=0, atol=1e-6)
        pins = torch.tensor(case.get("pins", []), dtype=torch.float32).reshape(-1, 2)
        torch.testing.assert_close(points.pins, pins, rtol=0, atol=1e-6)
        return
    with pytest.raises(InvalidInput, match="^points") as refused:
        parse_points(case["text"], VECTORS["size"])
    assert ("points is empty" in str(refused.value)) == (case["becomes"] == "nothing")
