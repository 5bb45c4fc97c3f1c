"""Morph & Drag: image morphing and point dragging for ComfyUI."""

from .nodes import NODE_CLASS_MAPPINGS

WEB_DIRECTORY = "./js"

__all__ = ["NODE_CLASS_MAPPINGS", "WEB_DIRECTORY"]
