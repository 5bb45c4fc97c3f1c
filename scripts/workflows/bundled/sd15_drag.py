"""The drag with Stable Diffusion 1.5, by the papers' settings."""

from ..description import CYAN, GREEN, RED, Group, Workflow
from ..parts.dragging import START, drag, reference, sample_drag, track
from ..parts.inversion import inverted_image
from ..parts.models import SD15, large_model
from ..parts.notes import note
from ..parts.pictures import PURPLE_RABBIT, large_source
from ..parts.results import picture
from ..parts.sampling import empty_prompt


def workflow() -> Workflow:
    """A drawing's head is dragged by its nose."""
    source = large_source("D", PURPLE_RABBIT, SD15.side)
    dragged = drag("dragged", [0.501, 0.621], [0.401, 0.621])
    saved = picture("saved", "dragged images", "sd15_drag", 400, 400)
    return [
        [note(__file__, 620, SD15), large_model(SD15)],
        [inverted_image("D", source, 80, 0.0005, START, "Image")],
        [Group("Drag", GREEN, [[dragged]])],
        [Group("Sample", RED, [[reference(), *sample_drag("dragged")], [empty_prompt(), None, None]])],
        [Group("Result: original and dragged, and the handles' ways", CYAN, [[saved, track("dragged", 400)]])],
    ]
