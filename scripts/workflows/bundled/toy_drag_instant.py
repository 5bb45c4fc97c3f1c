"""The toy drag by a warp, which needs no model, healed by a few steps of it."""

from ..description import CYAN, GREEN, NARROW, RED, YELLOW, Group, Node, Workflow
from ..parts.dragging import toy_mask
from ..parts.models import TOY_MODEL
from ..parts.notes import note
from ..parts.pictures import PURPLE_RABBIT, toy_source
from ..parts.results import enlarged, picture
from ..parts.sampling import decoded, empty_prompt
from ..parts.warping import HEAD, HEAD_POINTS, healing, warp


def workflow() -> Workflow:
    """The head moves at once; the sampler paints what it left, and its rim."""
    (drawing, prompt), _ = toy_source("D", PURPLE_RABBIT)
    black = Node("black", "SolidMask", {}, {"value": 0.0, "width": 64, "height": 64}, NARROW)
    results = [
        [enlarged("large", "images"), picture("saved", "large", "toy_drag_instant")],
        [_shown("what moves", "warped.paths"), None],
    ]
    return [
        [note(__file__, 480), TOY_MODEL],
        [Group("Image", YELLOW, [[drawing], [prompt], [empty_prompt()]])],
        [Group("What moves", YELLOW, [[black], *([node] for node in toy_mask("head", *HEAD))])],
        [Group("Warp", GREEN, [[warp("warped", "D picture", HEAD_POINTS, rim=2, mask="head mask")]])],
        [Group("Heal", RED, [*healing("warped", denoise=0.4, steps=10), [decoded("images", "healed"), None]])],
        [Group("Result, and what moved", CYAN, results)],
    ]


def _shown(name: str, image: str) -> Node:
    """Preview Image shows what moves, and where to."""
    return Node(name, "PreviewImage", {"images": image}, width=300, room=300)
