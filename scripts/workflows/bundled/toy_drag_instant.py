"""The toy drag by a warp, which needs no model, healed by a few steps of it."""

from ..description import CYAN, GREEN, RED, YELLOW, Group, Workflow
from ..parts.dragging import track
from ..parts.models import TOY_MODEL
from ..parts.notes import note
from ..parts.pictures import PURPLE_RABBIT, toy_source
from ..parts.results import enlarged, picture
from ..parts.sampling import decoded, empty_prompt
from ..parts.warping import HEAD_POINTS, head_mask, healing, warp


def workflow() -> Workflow:
    """The head moves at once; the sampler paints what it left, and its rim."""
    (drawing, prompt), _ = toy_source("D", PURPLE_RABBIT)
    results = [
        [enlarged("large", "images"), picture("saved", "large", "toy_drag_instant")],
        [track("warped", 300), None],
    ]
    return [
        [note(__file__, 480), TOY_MODEL],
        [Group("Image", YELLOW, [[drawing], [prompt], [empty_prompt()]])],
        [head_mask(64)],
        [Group("Warp", GREEN, [[warp("warped", "D picture", HEAD_POINTS, rim=2, mask="head mask")]])],
        [Group("Heal", RED, [*healing("warped", denoise=0.4, steps=10), [decoded("images", "healed"), None]])],
        [Group("Result, and what moved", CYAN, results)],
    ]
