"""The toy drag with the rest pinned: Direct Inversion puts back whatever lies outside the mask."""

from ..description import CYAN, GREEN, RED, YELLOW, Group, Workflow
from ..parts.dragging import START, drag, reference, sample_drag, toy_mask, toy_settings, track
from ..parts.inversion import inverted_image, pinned
from ..parts.models import TOY_MODEL
from ..parts.notes import note
from ..parts.pictures import PURPLE_RABBIT, toy_source
from ..parts.results import enlarged, picture
from ..parts.sampling import empty_prompt


def workflow() -> Workflow:
    """The original is pinned as a whole, the dragged image outside the mask."""
    dragged = drag("head", [0.501, 0.621], [0.361, 0.621], options="options", mask="head mask")
    original = pinned("original pinned", "referring", "D noise", 0)
    rest = pinned("rest pinned", original.name, "D noise", 1, "head mask")
    results = [enlarged("large", "head images"), picture("saved", "large", "toy_drag_pinned"), track("head", 300)]
    return [
        [note(__file__, 480), TOY_MODEL],
        [inverted_image("D", toy_source("D", PURPLE_RABBIT), 80, 0.001, START, "Image")],
        [Group("Mask and options", YELLOW, [toy_settings(), toy_mask("head", 2, 2, 50, 52)])],
        [Group("Drag", GREEN, [[dragged]])],
        [Group("Pin", YELLOW, [[reference()], [original], [rest]])],
        [Group("Sample", RED, [[empty_prompt(), *sample_drag("head", rest.name)]])],
        [Group("Result: original and dragged, and the handle's way", CYAN, [results])],
    ]
