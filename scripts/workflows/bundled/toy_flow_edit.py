"""The toy edit by FlowEdit, with the transformer: no inversion, no patches."""

from ..description import BLUE, CYAN, NARROW, RED, Group, Node, Workflow
from ..parts.inversion import Spacing
from ..parts.models import TOY_FLOW_MODEL
from ..parts.notes import note
from ..parts.pictures import RED_CAT, toy_source
from ..parts.results import enlarged, picture
from ..parts.sampling import decoded

SPACING: Spacing = {"steps": 28, "scheduler": "simple"}


def workflow() -> Workflow:
    """The difference of two prompts turns a cat into a rabbit."""
    first, second = toy_source("D", {**RED_CAT, "seed": 3})
    return [
        [note(__file__, 480), TOY_FLOW_MODEL],
        [Group("Image", BLUE, [[*first], [*second]])],
        [_edit()],
        [Group("Result", CYAN, [[decoded("images", "latents"), enlarged("large", "images")], [_saved(), None]])],
    ]


def _edit() -> Group:
    """SamplerCustomAdvanced edits the image's latent by what Edit Guider predicts for either prompt."""
    text = {"text": "a happy red rabbit on mint"}
    wanted = Node("wanted", "CLIPTextEncode", {"clip": "model.CLIP"}, text, room=30, title="What it is to show")
    prompts = {"source_positive": "D prompt", "target_positive": wanted.name}
    guider = Node("guider", "MorphDragEditGuider", {"model": "model.MODEL", **prompts})
    method = Node("method", "MorphDragFlowEditSampler", {}, {"strength": 0.9})
    noise = Node("noise", "RandomNoise", {}, {"noise_seed": 1})
    schedule = Node("sigmas", "BasicScheduler", {"model": "model.MODEL"}, {**SPACING, "denoise": 1.0}, NARROW)
    links = {"noise": noise.name, "guider": guider.name, "sampler": method.name, "sigmas": schedule.name}
    sampler = Node("latents", "SamplerCustomAdvanced", {**links, "latent_image": "D latent"}, width=NARROW)
    return Group("Edit", RED, [[wanted, guider], [method, noise], [schedule, sampler]])


def _saved() -> Node:
    """Save Image saves the edit."""
    return picture("saved", "large", "toy_flow_edit")
