"""A drag changes the noise of image "D", and samples the original and the dragged image side by side."""

import json

from ..description import NARROW, Node
from .inversion import SPACING
from .sampling import decoded, ksampler

START = 12  # of 50 steps: a drag inverts three quarters of the way to noise


def drag(name: str, handle: list[float], target: list[float], **links: str) -> Node:
    """Drag Latent Optimize moves what is at `handle` to `target`, both as shares of the image."""
    points = json.dumps({"v": 1, "points": [{"handle": handle, "target": target}]})
    known = {"model": "D model", "positive": "D prompt", "latent": "D noise", "image": "D picture"}
    widgets = {"points": points, **SPACING, "start_at_step": START, "objective": "GoodDrag"}
    return Node(name, "MorphDragDragLatentOptimize", {**known, **links}, widgets, 340, room=560)


def reference() -> Node:
    """Attention KV Inject is the published reference control, for all drags."""
    widgets = {"strength": 1.0, "end_percent": 1.0, "blocks": "last two up blocks"}
    return Node("referring", "MorphDragAttentionKVInject", {"model": "D model"}, widgets)


def sample_drag(dragged: str, model: str = "referring") -> list[Node]:
    """The original and the dragged image are sampled from the step where the drag left off."""
    links = {"model": model, "positive": "D prompt", "negative": "empty prompt", "latent_image": dragged}
    sampler = ksampler(f"{dragged} latents", {**links, "start_at_step": f"{dragged}.start_at_step"})
    return [sampler, decoded(f"{dragged} images", sampler.name)]


def track(dragged: str, side: int) -> Node:
    """Preview Image shows the handle's track."""
    return Node(f"{dragged} way", "PreviewImage", {"images": f"{dragged}.paths"}, width=side, room=side)


def toy_settings() -> list[Node]:
    """Toy drags share a black mask to paint on, and options for a model with few cells."""
    return [black_mask(64), Node("options", "MorphDragDragOptions", {}, {"reach": 0.75, "mask_weight": 1.0}, 270)]


def black_mask(side: int) -> Node:
    """White rectangles are painted on it."""
    return Node("black", "SolidMask", {}, {"value": 0.0, "width": side, "height": side}, NARROW)


def toy_mask(name: str, left: int, top: int, width: int, height: int) -> list[Node]:
    """A white rectangle is painted on the black mask."""
    white = Node(f"{name} white", "SolidMask", {}, {"value": 1.0, "width": width, "height": height}, NARROW)
    links = {"destination": "black", "source": white.name}
    placed = Node(f"{name} mask", "MaskComposite", links, {"x": left, "y": top, "operation": "add"}, NARROW)
    return [white, placed]
