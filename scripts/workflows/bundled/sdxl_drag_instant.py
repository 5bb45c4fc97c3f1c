"""The instant drag with SDXL."""

from ..description import Workflow
from ..parts.models import SDXL
from .large_drag_instant import large_drag_instant


def workflow() -> Workflow:
    """A warp, healed by stock inpainting."""
    return large_drag_instant(SDXL, "sdxl_drag_instant")
