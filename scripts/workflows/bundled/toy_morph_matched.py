"""The toy morph between drawings whose layouts differ."""

from ..description import Workflow
from ..parts.models import TOY_MODEL
from ..parts.morphing import APART_ENDS, matched_blend, sample, schedule
from ..parts.notes import note
from ..parts.results import toy_morph_result


def workflow() -> Workflow:
    """Layouts are matched before the two images are blended and sampled once."""
    return [
        [note(__file__, 480), TOY_MODEL],
        APART_ENDS,
        [matched_blend(schedule())],
        [sample("Sample", "")],
        [toy_morph_result("toy_morph_matched")],
    ]
