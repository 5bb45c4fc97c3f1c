"""A morph with a published flow model in one pass, which differs from model to model in its files."""

from dataclasses import replace

from ..description import CYAN, NARROW, Group, Node, Workflow, relinked
from ..parts.flow import empty_latents, guider, sample_noise
from ..parts.inversion import Spacing, inverted_image
from ..parts.models import FlowModel
from ..parts.morphing import blend, schedule
from ..parts.notes import note
from ..parts.pictures import BLUE_RABBIT, RED_CAT, Looks, replaceable_source
from ..parts.results import animation, video

SIDE, FRAMES = 1024, 16


def large_flow_morph(model: FlowModel, prefix: str) -> Workflow:
    """Frames go through the model two at a time."""
    spacing = {"steps": model.steps, "scheduler": "simple"}
    empty, basic = empty_latents(model.latents, SIDE, FRAMES), guider("patched", "prompts")
    film = [animation("saved", "frames", prefix, lossless=False), *video("frames", prefix)]
    advice = GUIDANCE if model.distilled else ""
    workflow = [
        [note(__file__, 640, kind=model.kind, files=model.files(), guidance=advice), model.loaders()],
        [_image(end, looks, model, spacing) for end, looks in (("A", RED_CAT), ("B", BLUE_RABBIT))],
        [blend("Blend", "", schedule(), frames_per_batch=2, noise="NOISE")],
        [sample_noise("Sample", "styled.NOISE", basic, empty, "model.MODEL", spacing, "frames")],
        [Group("Result", CYAN, [film])],
    ]
    return relinked(workflow, model.sources())


GUIDANCE = """
- **FluxGuidance** is 1 behind both prompts: this model was distilled with guidance, and at 1 an inversion leads back.
"""


def _image(end: str, looks: Looks, model: FlowModel, spacing: Spacing) -> Group:
    """An image is learnt as published, and can be replaced; a distilled model is told a guidance of 1."""
    source = replaceable_source(end, looks, SIDE)
    group = inverted_image(end, source, 200, 0.0002, save_memory=True, spacing=spacing)
    if not model.distilled:
        return group
    told = Node(f"{end} prompt", "FluxGuidance", {"conditioning": f"{end} words"}, {"guidance": 1.0}, NARROW)
    first, *others = group.rows
    renamed = [replace(node, name=f"{end} words") if node and node.name == told.name else node for node in first]
    return replace(group, rows=[renamed, *others, [None, told, None, None]])
