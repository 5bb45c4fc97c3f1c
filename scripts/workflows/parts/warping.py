"""A drag by a warp needs a sampler only to paint what the warp left."""

import json

from ..description import NARROW, WIDE, YELLOW, Group, Node
from .dragging import black_mask, toy_mask

HEAD = (12, 2, 42, 52)  # of the purple rabbit: left, top, width and height, in 64ths of the picture
HEAD_POINTS = json.dumps({"v": 1, "points": [{"handle": [0.501, 0.621], "target": [0.361, 0.621]}]})


def head_mask(side: int) -> Group:
    """The mask is white on the rabbit's head, in a picture of `side` pixels."""
    head = toy_mask("head", *(share * side // 64 for share in HEAD))
    return Group("What moves", YELLOW, [[black_mask(side)], *([node] for node in head)])


def warp(name: str, image: str, points: str, rim: int, **links: str) -> Node:
    """Drag Warp moves what the mask covers as the points say."""
    widgets = {"points": points, "rim": rim}
    return Node(name, "MorphDragDragWarp", {"image": image, **links}, widgets, 340, room=560)


def healing(
    warped: str, denoise: float, steps: int, cfg: float = 1.0, model: str = "model.MODEL"
) -> list[list[Node | None]]:
    """KSampler paints inside of the mask that Drag Warp names, from new noise."""
    latent = Node("warped latent", "VAEEncode", {"pixels": warped, "vae": "model.VAE"}, width=NARROW)
    masked = Node("masked", "SetLatentNoiseMask", {"samples": latent.name, "mask": f"{warped}.MASK"}, width=NARROW)
    links = {"model": model, "positive": "D prompt", "negative": "empty prompt", "latent_image": masked.name}
    widgets = {
        "seed": 0,
        "steps": steps,
        "cfg": cfg,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": denoise,
    }
    return [[latent, masked], [Node("healed", "KSampler", links, widgets, WIDE), None]]
