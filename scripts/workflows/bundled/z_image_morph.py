"""The morph with Z-Image Turbo."""

from ..description import Workflow
from ..parts.models import Z_IMAGE
from .large_flow_morph import large_flow_morph


def workflow() -> Workflow:
    """Its files are ComfyUI's own."""
    return large_flow_morph(Z_IMAGE, "z_image")
