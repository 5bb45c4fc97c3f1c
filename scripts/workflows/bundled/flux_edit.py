"""An edit by FlowEdit with Flux.1 [dev], whose guidance comes from its prompts."""

from dataclasses import replace

from ..description import BLUE, CYAN, NARROW, Group, Node, Workflow, relinked
from ..parts.flow import edit_by_difference
from ..parts.models import FLUX
from ..parts.notes import note
from ..parts.pictures import RED_CAT, replaceable_source
from ..parts.results import picture
from ..parts.sampling import decoded

SIDE = 1024
GUIDANCE = {"D prompt": 1.5, "wanted": 5.5}  # as published for Flux, with strength 24/28
STRENGTH = 0.86


def workflow() -> Workflow:
    """The difference of two prompts turns a drawn cat into a rabbit; any other picture can be connected."""
    text = {"text": "a drawing of a happy red rabbit's face"}
    words = Node("wanted words", "CLIPTextEncode", {"clip": "model.CLIP"}, text, room=80, title="What it is to show")
    prompts = {"source_positive": "D prompt", "target_positive": "wanted"}
    spacing = {"steps": FLUX.steps, "scheduler": "simple"}
    described = [
        [note(__file__, 640, kind=FLUX.kind, files=FLUX.files()), FLUX.loaders()],
        [_image()],
        [edit_by_difference(prompts, {}, STRENGTH, spacing, [words, _told("wanted", words.name)])],
        [Group("Result", CYAN, [[decoded("images", "latents")], [picture("saved", "images", "flux_edit")]])],
    ]
    return relinked(described, FLUX.sources())


def _image() -> Group:
    """The picture's own prompt is told its guidance, too."""
    first, second = replaceable_source("D", RED_CAT, SIDE)
    renamed = [replace(node, name="D words") if node and node.name == "D prompt" else node for node in first]
    return Group("Image", BLUE, [renamed, second, [None, _told("D prompt", "D words")]])


def _told(name: str, words: str) -> Node:
    """FluxGuidance stands behind the words."""
    return Node(name, "FluxGuidance", {"conditioning": words}, {"guidance": GUIDANCE[name]}, NARROW)
