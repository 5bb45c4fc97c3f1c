"""The toy edit by FlowEdit, with the transformer: no inversion, no patches."""

from ..description import BLUE, CYAN, Group, Node, Workflow
from ..parts.flow import edit_by_difference
from ..parts.inversion import Spacing
from ..parts.models import TOY_FLOW_MODEL
from ..parts.notes import note
from ..parts.pictures import RED_CAT, toy_source
from ..parts.results import enlarged, picture
from ..parts.sampling import decoded, empty_prompt

SPACING: Spacing = {"steps": 28, "scheduler": "simple"}


def workflow() -> Workflow:
    """The difference of two prompts turns a cat into a rabbit."""
    first, second = toy_source("D", {**RED_CAT, "seed": 3})
    text = {"text": "a happy red rabbit on mint"}
    wanted = Node("wanted", "CLIPTextEncode", {"clip": "model.CLIP"}, text, room=30, title="What it is to show")
    prompts = {"source_positive": "D prompt", "target_positive": wanted.name, "target_negative": "empty prompt"}
    cfg = {"target_cfg": 1.5}
    return [
        [note(__file__, 480), TOY_FLOW_MODEL],
        [Group("Image", BLUE, [[*first], [*second]])],
        [edit_by_difference(prompts, cfg, 0.8, SPACING, [wanted, empty_prompt()])],
        [Group("Result", CYAN, [[decoded("images", "latents"), enlarged("large", "images")], [_saved(), None]])],
    ]


def _saved() -> Node:
    """Save Image saves the edit."""
    return picture("saved", "large", "toy_flow_edit")
