"""A drag by a warp needs a sampler only to paint what the warp left."""

from ..description import NARROW, WIDE, Node


def warp(name: str, image: str, points: str, rim: int, **links: str) -> Node:
    """Drag Warp moves what the mask covers as the points say."""
    widgets = {"points": points, "rim": rim}
    return Node(name, "MorphDragDragWarp", {"image": image, **links}, widgets, 340, room=560)


def healing(warped: str, denoise: float, steps: int) -> list[list[Node]]:
    """KSampler paints inside of the mask that Drag Warp names, from new noise."""
    latent = Node("warped latent", "VAEEncode", {"pixels": warped, "vae": "model.VAE"}, width=NARROW)
    masked = Node("masked", "SetLatentNoiseMask", {"samples": latent.name, "mask": f"{warped}.MASK"}, width=NARROW)
    links = {"model": "model.MODEL", "positive": "D prompt", "negative": "empty prompt", "latent_image": masked.name}
    widgets = {
        "seed": 0,
        "steps": steps,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": denoise,
    }
    return [[latent, masked], [Node("healed", "KSampler", links, widgets, WIDE), None]]
