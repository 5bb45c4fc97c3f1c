"""The toy morph of a flow-matching transformer."""

from ..description import Workflow
from ..parts.flow import FLOW_SPACING, TOY_CELLS, empty_latents, guider, sample_noise
from ..parts.inversion import inverted_image
from ..parts.models import TOY_FLOW_MODEL
from ..parts.morphing import blend, schedule
from ..parts.notes import note
from ..parts.pictures import BLUE_RABBIT, RED_CAT, toy_source
from ..parts.results import toy_morph_result

SIDE = 16 * TOY_CELLS


def workflow() -> Workflow:
    """It differs from the toy morph in what hands on the noise and in what samples it."""
    ends = [
        inverted_image(end, toy_source(end, looks), 100, 0.001, spacing=FLOW_SPACING)
        for end, looks in (("A", RED_CAT), ("B", BLUE_RABBIT))
    ]
    empty, basic = empty_latents("EmptyLatentImage", SIDE, 16), guider("patched", "prompts")
    return [
        [note(__file__, 560), TOY_FLOW_MODEL],
        ends,
        [blend("Blend", "", schedule(), noise="NOISE")],
        [sample_noise("Sample", "styled.NOISE", basic, empty, "model.MODEL", FLOW_SPACING, "frames")],
        [toy_morph_result("toy_flow_morph")],
    ]
