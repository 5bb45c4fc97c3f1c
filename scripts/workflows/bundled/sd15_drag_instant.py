"""The instant drag with Stable Diffusion 1.5."""

from ..description import Workflow
from ..parts.models import SD15
from .large_drag_instant import large_drag_instant


def workflow() -> Workflow:
    """A warp, healed by stock inpainting."""
    return large_drag_instant(SD15, "sd15_drag_instant")
