"""The toy morph with exact ends: Direct Inversion holds the first and the last frame to the images."""

from ..description import YELLOW, Group, Workflow
from ..parts.inversion import pinned
from ..parts.models import TOY_MODEL
from ..parts.morphing import TOY_ENDS, blend, sample, schedule
from ..parts.notes import note
from ..parts.results import toy_morph_result


def workflow() -> Workflow:
    """Two nodes stand between the blended model and KSampler."""
    pins = [pinned("A pinned", "patched", "A noise", 0), pinned("both pinned", "A pinned", "B noise", -1)]
    return [
        [note(__file__, 480), TOY_MODEL],
        TOY_ENDS,
        [blend("Blend", "", schedule())],
        [Group("Exact ends", YELLOW, [[pin] for pin in pins])],
        [sample("Sample", "", "both pinned")],
        [toy_morph_result("toy_morph_exact")],
    ]
