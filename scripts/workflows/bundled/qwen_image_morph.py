"""The morph with Qwen-Image."""

from ..description import Workflow
from ..parts.models import QWEN_IMAGE
from .large_flow_morph import large_flow_morph


def workflow() -> Workflow:
    """Its files are ComfyUI's own."""
    return large_flow_morph(QWEN_IMAGE, "qwen_image")
