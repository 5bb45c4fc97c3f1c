"""The node and the picker's preview warp alike: each field of the vectors, which the JavaScript tests read too."""

import json
from pathlib import Path

import pytest
import torch

from morph_pack.morph_core.dragging.backward import Matter, after_another, backward_fields, faded_field
from morph_pack.morph_core.dragging.moves import nearness

VECTORS = json.loads((Path(__file__).parents[1] / "warp_vectors.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_places_come_from_where_the_vectors_say(case):
    handles, targets = torch.tensor(case["pairs"], dtype=torch.float64).movedim(1, 0)
    pins, places, came = (
        torch.tensor(case[name], dtype=torch.float64).reshape(-1, 2) for name in ("pins", "places", "came")
    )
    before, after = torch.cat([handles, pins]), torch.cat([targets, pins])
    fields = backward_fields(before, after, "rigid", Matter(places), case["parts"])
    if case["radius"] is not None:
        core = case["radius"] * min(VECTORS["size"])
        reach = core + 2 * (targets - handles).norm(dim=1).max().item()
        fields = [faded_field(field, lambda at: nearness(at, handles, targets, core, reach)) for field in fields]
    torch.testing.assert_close(after_another(fields)(places), came, rtol=0, atol=1e-6)
