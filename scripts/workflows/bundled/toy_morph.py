"""The toy morph: one pass between two drawings."""

from ..description import Workflow
from ..parts.models import TOY_MODEL
from ..parts.morphing import TOY_ENDS, blend, sample, schedule
from ..parts.notes import note
from ..parts.results import toy_morph_result


def workflow() -> Workflow:
    """The two images are blended and sampled once."""
    return [
        [note(__file__, 480), TOY_MODEL],
        TOY_ENDS,
        [blend("Blend", "", schedule())],
        [sample("Sample", "")],
        [toy_morph_result("toy_morph")],
    ]
