"""The instant drag with a published checkpoint, which differs from model to model in size alone."""

from dataclasses import replace

from ..description import BLUE, CYAN, GREEN, NARROW, RED, YELLOW, Group, Node, Workflow
from ..parts.dragging import toy_mask
from ..parts.models import Checkpoint, large_model
from ..parts.notes import note
from ..parts.pictures import PURPLE_RABBIT, replaceable_source
from ..parts.results import picture
from ..parts.sampling import decoded, empty_prompt
from ..parts.warping import HEAD, HEAD_POINTS, healing, warp


def large_drag_instant(checkpoint: Checkpoint, prefix: str) -> Workflow:
    """Differential Diffusion lets the sampler blend what it paints into the rest."""
    (drawing, prompt), (square, _) = replaceable_source("D", PURPLE_RABBIT, checkpoint.side)
    black = Node("black", "SolidMask", {}, {"value": 0.0, "width": checkpoint.side, "height": checkpoint.side}, NARROW)
    head = toy_mask("head", *(share * checkpoint.side // 64 for share in HEAD))
    soft = Node("soft", "DifferentialDiffusion", {"model": "model.MODEL"}, width=NARROW)
    warped = warp("warped", "D square", HEAD_POINTS, rim=checkpoint.side // 64, mask="head mask")
    latent, sampled = healing("warped", denoise=0.5, steps=20, cfg=5.0, model="soft")
    shown = Node("what moves", "PreviewImage", {"images": "warped.paths"}, width=300, room=300)
    result = [[decoded("images", "healed"), picture("saved", "images", prefix)], [shown, None]]
    return [
        [note(__file__, 620, checkpoint), large_model(checkpoint)],
        [Group("Image", BLUE, [[drawing, square], [prompt, empty_prompt()]])],
        [Group("What moves", YELLOW, [[black], *([node] for node in head)])],
        [Group("Warp", GREEN, [[replace(warped, width=380)]])],
        [Group("Heal", RED, [latent, sampled, [soft, None]])],
        [Group("Result, and what moved", CYAN, result)],
    ]
