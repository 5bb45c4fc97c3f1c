"""The instant drag with a published checkpoint, which differs from model to model in size alone."""

from dataclasses import replace

from ..description import BLUE, CYAN, GREEN, NARROW, RED, Group, Node, Workflow
from ..parts.dragging import track
from ..parts.models import Checkpoint, large_model
from ..parts.notes import note
from ..parts.pictures import PURPLE_RABBIT, replaceable_source
from ..parts.results import picture
from ..parts.sampling import decoded, empty_prompt
from ..parts.warping import HEAD_POINTS, head_mask, healing, warp


def large_drag_instant(checkpoint: Checkpoint, prefix: str) -> Workflow:
    """Differential Diffusion lets the sampler blend what it paints into the rest."""
    (drawing, prompt), (square, _) = replaceable_source("D", PURPLE_RABBIT, checkpoint.side)
    soft = Node("soft", "DifferentialDiffusion", {"model": "model.MODEL"}, width=NARROW)
    warped = warp("warped", "D square", HEAD_POINTS, rim=checkpoint.side // 64, mask="head mask")
    latent, sampled = healing("warped", denoise=0.5, steps=20, cfg=5.0, model="soft")
    result = [[decoded("images", "healed"), picture("saved", "images", prefix)], [track("warped", 300), None]]
    return [
        [note(__file__, 620, checkpoint), large_model(checkpoint)],
        [Group("Image", BLUE, [[drawing, square], [prompt, empty_prompt()]])],
        [head_mask(checkpoint.side)],
        [Group("Warp", GREEN, [[replace(warped, width=380)]])],
        [Group("Heal", RED, [latent, sampled, [soft, None]])],
        [Group("Result, and what moved", CYAN, result)],
    ]
